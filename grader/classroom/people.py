"""Les personnes du cours : à chacune un identifiant, un seul, qui ne change plus ; à chaque identifiant une personne.

Tenu dans moodle/personnes.json : identifiant → noms sous lesquels elle est arrivée, numéros que Moodle lui donne. Le
numéro décide dès qu'il est connu. Moodle en donne un par devoir et par personne : d'un devoir à l'autre, ils sont
parfois tous différents, et c'est alors le nom qui décide, s'il n'est celui que d'une personne. Dans le doute, deux.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from nbgrader.api import SubmittedAssignment
from sqlalchemy import select

from atelier.paths import write_atomically
from grader import UserError
from grader.classroom.course import Course
from grader.classroom.layout import Who, someone

FILE = "personnes.json"
LENGTH = 60
WITHOUT_ACCENT = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ß": "ss", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
"""Les lettres latines que la décomposition d'Unicode laisse entières."""
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""Un nom de dossier qui peut servir tel quel d'identifiant d'étudiant."""


def slug(name: str) -> str:
    """Un identifiant sûr à partir d'un nom : lettres sans accent, chiffres, traits d'union."""
    text = unicodedata.normalize("NFKD", name.lower()).translate(WITHOUT_ACCENT)
    text = "".join(c for c in text if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:LENGTH].strip("-")


@dataclass
class Person:
    """Une personne. labels : ses noms exacts ; keys : ce qu'en disent les plateformes ; numbers : devoir → numéro."""

    name: str
    labels: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    contexts: set[str] = field(default_factory=set)
    numbers: dict[str, str] = field(default_factory=dict)

    def as_data(self) -> dict:
        lists = {k: sorted(v) for k in ("labels", "keys", "contexts") if (v := getattr(self, k))}
        return {"name": self.name, **lists, "numbers": self.numbers}


class People:
    """Les personnes d'un cours, relues de son dossier et de sa base."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.path = course.folder / "moodle" / FILE
        self.known: dict[str, Person] = {}
        self.remarks: list[str] = []
        self.came: set[str] = set()
        """Ceux dont on a reçu quelque chose cette fois : eux seuls entrent dans la base."""
        self._read()
        with course.gradebook() as book:
            for student in book.students:
                name = " ".join(filter(None, (student.first_name, student.last_name)))
                person = self.known.setdefault(student.id, Person(name, {name} if name else set()))
                person.name = person.name or name
            busy = set(book.db.execute(select(SubmittedAssignment.student_id).distinct()).scalars())
        self.named = {id for id, person in self.known.items() if person.name}
        submitted = course.path("submitted")
        for folder in submitted.iterdir() if submitted.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith("."):
                self.known.setdefault(folder.name, Person(""))
                busy.add(folder.name)
        self.idle = {id for id, person in self.known.items() if not person.keys} - busy
        """Inscrits sans rien d'autre que leur nom : leur identifiant est libre pour quelqu'un de ce nom."""
        self.taken = {fold(id) for id in self.known}

    def _read(self) -> None:
        """personnes.json, et les numéros que gardaient les versions d'avant, un fichier par devoir."""
        for path in sorted(self.path.parent.glob("*.json"), key=lambda p: (p.name != FILE, p.name)):
            try:
                for id, data in json.loads(path.read_text(encoding="utf-8")).items():
                    if path.name == FILE:
                        sets = {k: {str(x) for x in data.get(k, [])} for k in ("labels", "keys", "contexts")}
                        numbers = {str(k): str(v) for k, v in data["numbers"].items()}
                        self.known[id] = Person(str(data["name"]), **sets, numbers=numbers)
                        continue
                    person = self.known.setdefault(id, Person(data["name"], {data["name"]}))
                    if path.stem not in person.numbers:
                        person.numbers[path.stem] = data["number"]
                        person.keys.add(f"moodle:{data['number']}")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path} est abîmé ({error})\u00a0: il dit quel identifiant est à qui. Réparez-le, ou reprenez-en "
                    "une sauvegarde\u202f; ne l'effacez qu'avec tout submitted/."
                ) from None

    def save(self) -> None:
        """Écrit ce que l'on sait, avant de ranger quoi que ce soit sous un identifiant neuf."""
        people = {id: p.as_data() for id, p in sorted(self.known.items()) if p.labels or p.keys}
        text = json.dumps(people, ensure_ascii=False, indent=1)
        write_atomically(self.path, (text + "\n").encode("utf-8", "replace"))
        fresh = {id: p.name for id, p in self.known.items() if p.name and p.name != id and id in self.came - self.named}
        if fresh:
            with self.course.gradebook() as book:
                for id, name in fresh.items():
                    first, _, last = name.partition(" ")
                    book.update_or_create_student(id, first_name=first, last_name=last or None)
            self.named |= set(fresh)

    @property
    def names(self) -> set[str]:
        """Les identifiants et les noms connus."""
        return set(self.known).union(*(p.labels for p in self.known.values()))

    def numbers(self, assignment: str) -> dict[str, dict[str, str]]:
        """Étudiant → {"number", "name"} pour un devoir relevé dans Moodle."""
        return {
            id: {"number": p.numbers[assignment], "name": p.name}
            for id, p in self.known.items()
            if assignment in p.numbers
        }

    # ------------------------------------------------------------------------------------------ reconnaître

    def resolve(self, everyone: Iterable[Who], assignments: Collection[str]) -> dict[Who, str]:
        """L'identifiant de chacun ; "" si l'on ne peut pas dire qui c'est. assignments : les devoirs de ce lot."""
        wanted = list(dict.fromkeys(everyone))
        found = self.by_number(wanted, assignments)
        for who in wanted:
            if not who.system and who.label in self.known:  # l'enseignant a écrit l'identifiant
                found[who] = who.label
        renumbered = self.renumbered(wanted, found, assignments)
        groups: dict[str, list[Who]] = defaultdict(list)
        for who in wanted:
            if who not in found:
                groups[who.key if not who.label else who.label].append(who)
        used = set(found.values())
        by_key = {who.key: id for who, id in found.items() if who.key}
        crowded = Counter(base(w) for w in self.apart(wanted))
        for label, rivals in groups.items():
            same = self.candidates(label, rivals[0])
            for who in rivals:
                id = by_key.get(who.key) if who.key else None
                id = id or self.match(who, rivals, same, used, assignments, renumbered)
                if id is None:
                    id = self.create(who, crowded[base(who)] > 1)
                found[who] = id
                by_key |= {who.key: id} if who.key else {}
                used.add(id)
        for who, id in found.items():
            if id:
                self.learn(id, who)
        self.came |= set(found.values())
        return found

    def by_number(self, wanted: Iterable[Who], assignments: Collection[str]) -> dict[Who, str]:
        """Ceux que leur numéro désigne : pour ces devoirs, sans condition ; pour un autre, si le nom s'y accorde."""
        here = {p.numbers[a]: id for id, p in self.known.items() for a in assignments if a in p.numbers}
        by_key: dict[str, list[str]] = defaultdict(list)
        for id, person in self.known.items():
            for key in person.keys:
                by_key[key].append(id)
        found = {}
        for who in wanted:
            if who.system == "moodle" and who.number in here:
                found[who] = here[who.number]
            elif same := [id for id in by_key[who.key] if self.agrees(id, who)]:
                found[who] = same[0]
            elif who.number:
                old = shorten(base(who), f"-{who.number}")  # l'identifiant des versions d'avant
                if old in self.known and self.known[old].labels == {who.label} and not self.known[old].keys:
                    found |= {who: old} if old not in self.idle else {}
        return found

    def agrees(self, id: str, who: Who) -> bool:
        """Vrai si ce nom peut être celui de cette personne : un mot en commun suffit, le numéro fait le reste."""
        person = self.known[id]
        words = set(slug(who.name).split("-")) - {""}
        theirs = {w for label in (person.name, *person.labels) for w in slug(label).split("-")} - {""}
        return bool(words & theirs) or not words or not theirs or who.label in person.labels

    def apart(self, wanted: Sequence[Who]) -> list[Who]:
        """Un représentant de chaque personne distincte du lot : même numéro, même personne."""
        return list({who.key or (who.label, who.context): who for who in wanted}.values())

    def candidates(self, label: str, who: Who) -> list[str]:
        """Ceux que ce nom peut désigner."""
        names = {label, who.alias} - {""}
        found = [id for id, p in self.known.items() if names & p.labels]
        words = loose(label)
        found = found or [id for id in self.idle if words in map(loose, self.known[id].labels)]
        return found or [id for id, p in self.known.items() if not p.name and not p.labels and id == base(who)]

    def match(
        self,
        who: Who,
        rivals: Sequence[Who],
        same: Sequence[str],
        used: Collection[str],
        assignments: Collection[str],
        renumbered: bool,
    ) -> str | None:
        """Celui d'avant, "" si l'on ne peut pas le dire, None s'il est nouveau."""
        if not who.system:
            if len(same) > 1 or len(rivals) > 1:
                here = [id for id in same if who.context and who.context in self.known[id].contexts and id not in used]
                if len(here) == 1:
                    return here[0]
                if len(rivals) > 1 or not same:
                    return None
                self.remarks.append(
                    f"{who.name}\u00a0: plusieurs personnes portent ce nom ({', '.join(same)}). "
                    "Donnez à son dossier l'identifiant de la bonne, et relancez."
                )
                return ""
            if same and same[0] in used and who.label not in self.known[same[0]].labels:
                return None
            return same[0] if same else None
        free = [id for id in same if id not in used and not self.other(id, who, assignments)]
        if len(free) != 1 or len({w.key for w in rivals}) > 1:
            return None
        if who.system != "moodle" or not self.known[free[0]].numbers or renumbered:
            return free[0]
        numbers = ", ".join(sorted(set(self.known[free[0]].numbers.values())))
        self.remarks.append(
            f"{who.name}, numéro {who.number}\u00a0: rangé à part de {free[0]}, qui porte ce nom mais a le numéro "
            f"{numbers}. Si c'est la même personne\u00a0: dans {self.path}, mettez «\u00a0{who.key}\u00a0» parmi les "
            f"clés («\u00a0keys\u00a0») de {free[0]}, ôtez l'autre, et relancez."
        )
        return None

    def other(self, id: str, who: Who, assignments: Collection[str]) -> bool:
        """Vrai si cette personne a déjà un autre numéro là où `who` a le sien : c'en est une autre."""
        person = self.known[id]
        if who.system == "moodle":
            return any(person.numbers.get(a, who.number) != who.number for a in assignments)
        return any(key.startswith(f"{who.system}:") for key in person.keys)

    def renumbered(self, wanted: Sequence[Who], found: dict[Who, str], assignments: Collection[str]) -> bool:
        """Vrai si Moodle a visiblement donné d'autres numéros aux mêmes personnes pour ces devoirs.

        Une seule qui garde le sien montre que non ; il en faut deux qui en changent pour le croire.
        """
        kept, changed = 0, set()
        for who in wanted:
            if who.system != "moodle" or not who.label:
                continue
            if who in found:
                elsewhere = [n for a, n in self.known[found[who]].numbers.items() if a not in assignments]
                kept += who.number in elsewhere
            else:
                same = [id for id in self.candidates(who.label, who) if not self.other(id, who, assignments)]
                changed |= set(same) if len(same) == 1 and self.known[same[0]].numbers else set()
        for id, person in self.known.items():
            here = {n for a, n in person.numbers.items() if a in assignments}
            there = {n for a, n in person.numbers.items() if a not in assignments}
            kept += bool(here & there)
            changed |= {id} if here and there and not here & there else set()
        return not kept and len(changed) > 1

    # ------------------------------------------------------------------------------------------ retenir

    def create(self, who: Who, crowded: bool) -> str:
        """Un identifiant neuf, que personne n'a et que personne ne lira comme celui d'un autre."""
        start = base(who)
        wishes = [start] if not (crowded and who.number) else []
        if who.number:
            wishes.append(shorten(start, f"-{who.number}"))
        mine = (w for w in wishes if w in self.idle and loose(who.label) in map(loose, self.known[w].labels))
        id = next(mine, "") or next((w for w in wishes if fold(w) not in self.taken), "")
        rank = 2
        while not id:
            wish = shorten(start, f"-{rank}")
            id = wish if fold(wish) not in self.taken else ""
            rank += 1
        self.taken.add(fold(id))
        self.idle.discard(id)
        self.known[id] = Person(who.name)
        return id

    def learn(self, id: str, who: Who) -> None:
        """Retient sous quel nom et quelle clé cette personne est arrivée."""
        person = self.known[id]
        person.name = person.name or who.name
        if who.name and who.system == "moodle" and who.name != person.name:
            if person.labels and who.label not in person.labels:
                self.remarks.append(
                    f"{id}\u00a0: le numéro {who.number} était celui de {person.name}, Moodle le donne à {who.name}. "
                    "La copie est rangée d'après le numéro."
                )
            person.name = who.name
            self.named.discard(id)
        person.labels |= {who.label, who.alias} - {""}
        person.keys |= {who.key} - {""}
        person.contexts |= {who.context} - {""}

    def number(self, id: str, assignment: str, number: str) -> None:
        """Retient le numéro que Moodle donne à cette personne pour ce devoir."""
        self.known[id].numbers.setdefault(assignment, number)

    def enrol(self, assignment: str, participants: Iterable[tuple[str, str]], sure: bool) -> None:
        """Retient ceux d'une feuille d'évaluation de Moodle : (numéro, nom).

        sure : vrai si la feuille est à coup sûr celle de ce devoir. Sinon, un nom que porte déjà quelqu'un qui a un
        autre numéro est laissé : ce n'est pas un homonyme, mais la feuille d'un autre devoir.
        """
        taken = {tuple(loose(label)) for p in self.known.values() if assignment in p.numbers for label in p.labels}
        named = [someone(name, system="moodle", number=number) for number, name in participants]
        everyone = [who for who in named if who and (sure or tuple(loose(who.label)) not in taken)]
        found = self.resolve(everyone, [assignment])
        for who, id in found.items():
            self.number(id, assignment, who.number)
        self.came -= set(found.values())
        self.save()


def fold(id: str) -> str:
    """Deux identifiants que les systèmes de fichiers de macOS et de Windows confondent."""
    return unicodedata.normalize("NFC", id).casefold()


def loose(label: str) -> list[str]:
    """Les mots d'un nom, sans leur casse ni leur ordre : une liste d'inscrits écrit souvent « SILVA Ana »."""
    return sorted(label.casefold().split())


def shorten(start: str, end: str) -> str:
    return start[: LENGTH - len(end)].rstrip("-._") + end


def base(who: Who) -> str:
    """L'identifiant que l'on donnerait à cette personne si elle était seule."""
    if not who.system and IDENTIFIER.fullmatch(who.label):
        return who.label
    if made := slug(who.name):
        return made
    if who.number:
        return f"participant-{who.number}"
    return f"etudiant-{hashlib.sha256(who.label.encode('utf-8', 'replace')).hexdigest()[:6]}"
