"""Le dictionnaire de Littré : ses définitions, et les vers qu'il cite."""

from __future__ import annotations

import html
import re
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from colibri.cache import Cache, Document, Keep, read
from colibri.text import normalise

TAG = re.compile(r"<[^>]+>")
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
        body = html.unescape(TAG.sub("", re.sub(r"<b>\d+°</b>", "", body)))
        return [line for line in map(normalise, body.split("\n")) if line]

    @property
    def quotes(self) -> list[tuple[str, str, str]]:
        """Citations : (auteur, référence, texte)."""
        return [
            (_plain(found["author"]), _plain(found["work"]), _plain(found["text"]))
            for found in _QUOTE.finditer(self.body)
        ]


def _plain(markup: str | None) -> str:
    return normalise(html.unescape(TAG.sub("", markup or "")))


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
        category = normalise(TAG.sub("", head.group(1))) if head else ""
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
