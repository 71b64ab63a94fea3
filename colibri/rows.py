"""Les lignes des exercices : catégories de Littré, sujets des fiches, couples anglais → français."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from colibri.cache import Cache, Document, read
from colibri.littre import littre_entries
from colibri.sources import LIBREOFFICE, MAN_PACKAGES, libreoffice_root, wesnoth_clean, wesnoth_scenarios
from colibri.text import is_french, normalise, roff_sections


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
        root = libreoffice_root(path)
        elements = root.xpath(".//p[@id]|.//h1[@id]|.//h2[@id]|.//h3[@id]") if root is not None else []
        return {e.get("id"): normalise(e.text_content()) for e in elements}

    for key, path in cache.files("libreoffice-help-fr", f"{LIBREOFFICE}/fr/text/**/*.html"):
        original = cache.deb("libreoffice-help-en-us") / LIBREOFFICE / "en-US" / str(path).split("/help/fr/")[1]
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
            en, fr = wesnoth_clean(english.split("^")[-1]), wesnoth_clean(french)
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
