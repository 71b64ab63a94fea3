"""À qui est ce fichier ? Le chemin le dit, mais jamais un de ses éléments seul : c'est le lot entier qui tranche.

Moodle, Canvas, Blackboard et nbgrader écrivent le nom sous une forme à eux. Ailleurs (dossiers, dépôts GitHub, un
niveau par groupe ou par devoir, carnets à plat), le nom est l'élément qui distingue les copies entre elles. Ce qui ne
nomme personne (« Copie de ch3.ipynb », « Untitled ») reste sans nom : l'enseignant est interrogé.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from atelier import talk
from grader.classroom.archives import ARCHIVES, clean_name

MOODLE = re.compile(r"(?P<name>.*?)_(?P<number>\d+)_assignsubmission_[a-z]+(?:_.*)?", re.DOTALL)
CANVAS = re.compile(r"(?P<name>[^_/]+)(?:_late)?_(?P<number>\d{3,})_\d{3,}_.+", re.DOTALL | re.IGNORECASE)
BLACKBOARD = re.compile(
    r"(?:.*_)?(?P<name>[^_]+)_attempt_(?P<date>\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)(?:_.*|\..*)?", re.DOTALL
)
ANONYMOUS = {"participant", "participante", "teilnehmer", "anon", "anonymous"}
"""Ce que Moodle écrit à la place du nom quand l'évaluation est anonyme."""

DATE = re.compile(r"20\d\d[01]\d[0-3]\d")
SMALL = set("de du des of et and la le les the un une en in pour for".split())
NOISE = set(
    """copie copy copia kopie untitled sans titre nouveau nouvelle new mon ma mes my notre tp tps td dm tme devoir
    devoirs travail travaux work rendu rendus rendre remise carnet carnets notebook notebooks fichier fichiers
    file files doc docs document documents version final finale definitif definitive def fin fini complet
    corrige corrigee corriges correction solution solutions solved reponse reponses answers brouillon draft
    essai essais test tests ancien ancienne old vieux backup bak sauvegarde bis ter ok last dernier derniere
    ipynb jupyter colab kaggle python py ch chap chapitre chapter exo exos exercice exercices exercise hw
    homework lab labo projet project seance semaine week partie cours course quiz num numero no v vf submission
    submissions submitted assignment checkpoint modif modifie suite main master src source sources copies home
    jovyan desktop bureau downloads telechargements release content drive mydrive archive zip rapport livrable
    livrables dossier folder nom prenom name sujet enonce bareme liste notes readme consigne
    consignes""".split()
)
"""Mots qui ne nomment personne, sans accent."""
GROUP = re.compile(
    r"(?:groupe?|grp|gr|classe?|section|promo|promotion|equipe|team|parcours|td|tp)"
    r"(?:[ _.-]*\d+(?:[ _.-]?\d+)?[a-z]?|[ _.-]+[a-z])?"
    r"|g[ _.-]?\d+[a-z]?|[lm][123]"
)
EMBEDDED = re.compile(r"^(?:(?:tp|td|hw|ch|chap|chapitre|lab|devoir|assignment|exo|dm)[ _]?\d+\w*)[-_ ]", re.IGNORECASE)


@dataclass(frozen=True)
class Who:
    """À qui est un fichier. label : le nom exact, ce qui distingue ; system et number : ce qu'en sait la plateforme."""

    label: str
    name: str
    system: str = ""
    number: str = ""
    context: str = ""
    """Le groupe où cette personne est rangée, quand deux groupes ont le même nom."""
    alias: str = field(default="", compare=False)
    """Le nom sans le préfixe que tout le lot partage (« tp3-alice » dans un dépôt GitHub)."""
    date: str = field(default="", compare=False)
    """La date que le nom porte (nbgrader, Blackboard)."""

    @property
    def key(self) -> str:
        """Ce qui décide, quand une plateforme l'a donné."""
        if self.system == "moodle":
            return f"moodle:{self.number}"
        return f"{self.system}:{self.number}:{self.label}" if self.system else ""


def someone(raw: str, **known: str) -> Who | None:
    """Quelqu'un de ce nom ; None si le nom est vide. Deux noms qui s'affichent pareil restent deux noms."""
    text = " ".join(unicodedata.normalize("NFC", raw).split())
    name = clean_name(text)
    if name != text:
        name = name or "?"
        text = f"{name} #{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return Who(text, name, **known) if text else None


def plain_words(text: str, camel: str = "[A-Z]+(?![a-z])|[A-Z]?[a-z]+") -> list[str]:
    """Les mots d'un texte, sans accent, coupés aussi entre lettres et chiffres et à la chasse du chameau."""
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    return [w.lower() for w in re.findall(rf"{camel}|\d+|[^\W\d_]+", text)]


def readings(text: str) -> tuple[list[str], list[str]]:
    """Les deux façons de couper « TPfinal » et « DUPONTMarie »."""
    return plain_words(text), plain_words(text, "[A-Z]{2,}|[A-Z]?[a-z]+")


def without_archive(folder: str) -> str:
    """« alice.zip » contient ce qu'alice a rendu."""
    return re.sub(r"(?:\.(?:zip|tar|tgz|gz|xz|txz|bz2|tbz2))+$", "", folder, flags=re.IGNORECASE) or folder


class Layout:
    """Le lot entier. paths : chemins, en éléments ; assignments : le devoir de chacun, s'il est reconnu."""

    def __init__(self, chapters: Collection[str], people: Collection[str] = ()) -> None:
        self.chapters = {name.lower() for name in chapters}
        self.topics = {w for name in self.chapters for w in plain_words(name) if len(w) > 2}
        self.people = set(people)
        """Identifiants et noms déjà connus du cours."""

    # ------------------------------------------------------------------------------------------ les formes connues

    def platform(self, parts: Sequence[str]) -> Who | None:
        """La personne, si une plateforme a écrit ce chemin."""
        for part in parts:
            if found := MOODLE.fullmatch(part):
                raw = "" if found["name"].strip().lower() in ANONYMOUS else found["name"].replace("_", " ")
                return someone(raw, system="moodle", number=found["number"]) or Who("", "", "moodle", found["number"])
        for part in parts[:-1]:
            pieces = part.split("+")
            if len(pieces) >= 3 and pieces[1].lower() in self.chapters:
                return someone(pieces[0], date=pieces[2])
        for part in parts:
            if part is not parts[-1] and not part.lower().endswith(ARCHIVES):
                continue
            if found := BLACKBOARD.fullmatch(part):
                day, hour = found["date"][:10], found["date"][11:].replace("-", ":")
                return someone(found["name"], date=f"{day} {hour} UTC")
            if (found := CANVAS.fullmatch(part)) and not DATE.fullmatch(found["number"]):
                return someone(found["name"], system="canvas", number=found["number"])
        return None

    def noise(self, word: str) -> bool:
        """Vrai pour un mot qui ne nomme personne. Cinq chiffres et plus sont un numéro d'étudiant, ou une date."""
        if word.isdigit():
            return len(word) < 5 or DATE.fullmatch(word) is not None
        if word in NOISE or word in SMALL or (len(word) == 1 and word.isascii()):
            return True
        return len(word) >= 4 and any(t.startswith(word) or word.startswith(t) for t in self.topics if len(t) >= 4)

    def nobody(self, text: str) -> bool:
        """Vrai si aucun mot de ce texte ne peut être le nom de quelqu'un."""
        return text not in self.people and any(all(map(self.noise, words)) for words in readings(text))

    def structural(self, folder: str) -> bool:
        """Vrai pour un dossier qui range sans nommer : un devoir, « notebooks », « rendu », « v2 ».

        Une lettre seule (« A », « tp3-B ») ou un petit mot (« Le ») nomment : quelqu'un les a choisis pour distinguer.
        """
        if folder in self.people:
            return False
        words = plain_words(folder)
        name = any(len(w) == 1 and w.isalpha() and w not in ("v", "n") for w in words) or SMALL.issuperset(words)
        return folder.lower() in self.chapters or (self.nobody(folder) and not name)

    def group(self, folder: str) -> bool:
        """Vrai pour un dossier de groupe (« TD2 », « Groupe A », « promo 2026 »)."""
        text = "".join(c for c in unicodedata.normalize("NFKD", folder.lower()) if not unicodedata.combining(c))
        return GROUP.fullmatch(text) is not None and folder not in self.people

    def of_file(self, name: str) -> tuple[str, bool]:
        """(le nom que porte un nom de fichier, ou "" ; vrai s'il a tout d'un nom de personne)."""
        stem = unicodedata.normalize("NFC", re.split(r"\.ipynb|(?:\.\w{1,5})+$", name, flags=re.IGNORECASE)[0])
        if stem.lower().startswith(f"{talk.ASSIGNMENT}_") and talk.ASSIGNMENT in self.chapters:
            return "", False  # « expose_le_decodage_speculatif » : un sujet
        text = stem
        for chapter in sorted(self.chapters, key=len, reverse=True):
            text = re.sub(re.escape(chapter), " ", text, flags=re.IGNORECASE)
        text = re.sub(r"\s*\(\d+\)", " ", text)
        text = re.sub(
            r"^\W*(?:copie|copy|copia|kopie)\b\s*(?:\d+\s*)?(?:de|of|di|von)?\b", " ", text, flags=re.IGNORECASE
        )
        before = None
        while before != text:
            before = text
            text = text.strip(" _-–—.,+#()[]")
            for pattern in (r"^([^\W_]+)(?=[\W_]|$)", r"(?:(?<=[\W_])|^)([^\W_]+)$"):
                edge = re.search(pattern, text)
                if edge and self.edge(edge[1]):
                    text = text[: edge.start()] + text[edge.end() :]
        if self.nobody(text):
            return "", False
        words = [w for w in re.split(r"[\W\d_]+", text) if len(w) >= 2]
        certain = any(len(w) >= 3 or not w.isascii() for w in words)
        return text, len(words) >= 2 or (text != stem.strip() and certain)

    def edge(self, word: str) -> bool:
        """Vrai pour un mot à ôter au bord d'un nom de fichier (« v3 », « final », « ch3 »)."""
        if word in self.people or word.lower() in SMALL:
            return False
        return any(pieces and all(map(self.noise, pieces)) for pieces in readings(word))

    # ------------------------------------------------------------------------------------------ le lot

    def identify(self, paths: Sequence[Sequence[str]], assignments: Sequence[str]) -> list[Who | None]:
        """La personne de chaque chemin ; None si rien ne la dit."""
        found = [self.platform(parts) for parts in paths]
        rest = [i for i, who in enumerate(found) if who is None]
        names = self.by_layout([paths[i] for i in rest], [assignments[i] for i in rest])
        for i, who in zip(rest, names, strict=True):
            found[i] = who
        return found

    def by_layout(self, paths: Sequence[Sequence[str]], assignments: Sequence[str]) -> list[Who | None]:
        """D'après les dossiers et les noms de fichiers, tous regardés ensemble."""
        folders = [[without_archive(p) for p in parts[:-1]] for parts in paths]
        folders = [[p for p in parts if not self.structural(p)] for parts in folders]
        wrappers: list[str] = []
        while folders and all(folders) and len({f[0] for f in folders}) == 1:
            wrappers.append(folders[0][0])
            folders = [f[1:] for f in folders]
        level = self.column(folders, assignments)
        columns = [self.deeper(f, level) for f in folders]
        values = [f[c] if c < len(f) else "" for f, c in zip(folders, columns, strict=True)]
        contexts = self.contexts(folders, columns)
        places = ["/".join(filter(None, pair)) for pair in zip(contexts, values, strict=True)]
        files = [self.of_file(parts[-1]) for parts in paths]
        labels: dict[str, set[str]] = defaultdict(set)
        certain: dict[str, bool] = defaultdict(lambda: True)
        copies: Counter[tuple[str, str]] = Counter()
        for place, (label, sure), assignment in zip(places, files, assignments, strict=True):
            labels[place].add(label)
            certain[place] &= sure
            copies[place, assignment] += 1
        again = self.recurring(labels)
        alone = self.wrapper(wrappers)
        prefix = self.prefix({v for v in values if v})
        found: list[Who | None] = []
        for place, value, context, (label, _), assignment in zip(
            places, values, contexts, files, assignments, strict=True
        ):
            several = len(labels[place]) > 1
            if label and (self.group(value) if value else not alone) or (label and several and certain[place]):
                found.append(someone(label, context="" if again else place))
            elif value:
                crowd = self.group(value) and copies[place, assignment] > 1
                found.append(
                    None if crowd else someone(value, context=context, alias=value[len(prefix) :] if prefix else "")
                )
            elif label and several and "" not in labels[place]:
                found.append(someone(label))
            else:
                found.append(someone(alone) if alone else None)
        return found

    def deeper(self, folders: Sequence[str], column: int) -> int:
        """Le rang du dossier qui nomme dans ce chemin : un groupe n'y nomme que s'il n'y a rien de plus précis."""
        while column + 1 < len(folders) and self.group(folders[column]):
            column += 1
        return column

    def column(self, folders: Sequence[Sequence[str]], assignments: Sequence[str]) -> int:
        """Le niveau de dossier qui nomme : le premier où la plupart n'ont qu'une copie de chaque devoir."""
        deepest = max(map(len, folders), default=0)
        for column in range(deepest):
            rows = [(f[: column + 1], a) for f, a in zip(folders, assignments, strict=True) if len(f) > column]
            values = {f[column] for f, _ in rows}
            if column + 1 == deepest:
                return column
            if sum(map(self.group, values)) * 2 > len(values) or self.tells_assignment(rows, column):
                continue
            copies = Counter((tuple(f), a) for f, a in rows)
            if sum(n == 1 for n in copies.values()) * 2 >= len(copies):
                return column
        return 0

    def tells_assignment(self, rows: Sequence[tuple[Sequence[str], str]], column: int) -> bool:
        """Vrai si ce niveau et le devoir disent la même chose : un dossier par devoir."""
        by_value: dict[str, set[str]] = defaultdict(set)
        for folders, assignment in rows:
            by_value[folders[column]].add(assignment)
        said = [next(iter(v)) for v in by_value.values() if len(v) == 1]
        return len(said) == len(by_value) > 1 and len(set(said)) == len(said)

    def contexts(self, folders: Sequence[Sequence[str]], columns: Sequence[int]) -> list[str]:
        """Ce qui précède le nom, si c'est un groupe. Deux niveaux où reviennent les mêmes noms sont deux remises."""
        before = ["/".join(f[:c]) if c < len(f) else "" for f, c in zip(folders, columns, strict=True)]
        members: dict[str, set[str]] = defaultdict(set)
        for parent, f, c in zip(before, folders, columns, strict=True):
            if c < len(f):
                members[parent].add(f[c])
        return ["" for _ in folders] if self.recurring(members) else before

    def recurring(self, members: dict[str, set[str]]) -> bool:
        """Vrai si deux dossiers ont, pour l'essentiel, les mêmes noms : deux remises, et non deux groupes."""
        for first, second in combinations(sorted(members), 2):
            shared = len((members[first] & members[second]) - {""})
            named = self.group(first.split("/")[-1]) and self.group(second.split("/")[-1])
            if shared * 2 > min(len(members[first]), len(members[second])) and not named:
                return True
        return False

    def wrapper(self, wrappers: Sequence[str]) -> str:
        """Le dossier qui contient tout le lot nomme quelqu'un s'il est seul à pouvoir le faire."""
        known = [w for w in wrappers if w in self.people]
        possible = known or [w for w in wrappers if not self.group(w)]
        return possible[0] if len(possible) == 1 else ""

    def prefix(self, values: Collection[str]) -> str:
        """Le préfixe de devoir que tous les noms du lot partagent (« tp3- »), ou ""."""
        found = {m[0] for v in values if (m := EMBEDDED.match(v))}
        return found.pop() if len(found) == 1 and all(EMBEDDED.match(v) for v in values) else ""
