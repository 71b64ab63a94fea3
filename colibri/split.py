"""Doublons, coupe par document et étanchéité : rien d'évalué n'a été vu à l'entraînement."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator

from colibri.cache import Document

GRAM = 13  # mots ; la longueur habituelle pour chercher une contamination
SHORT_GRAM = 8  # pour les voix : une citation en vers a rarement treize mots
ROLES = ("defi", "test", "validation", "train")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")


def unit(key: str, use: str = "") -> float:
    """Nombre de [0, 1[ tiré de la clé seule : le même partout et toujours."""
    digest = hashlib.sha256(f"{use}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def role(source: str, key: str, shares: dict[str, float]) -> str:
    """Rôle d'un document : défi, test, validation ou entraînement, selon les parts données."""
    place = unit(f"{source}/{key}", "role")
    for name in ROLES[:-1]:
        if place < shares[name]:
            return name
        place -= shares[name]
    return "train"


def words(text: str) -> list[str]:
    """Mots en minuscules, nombres masqués par « 0 »."""
    return _WORD.findall(_NUMBER.sub("0", text.lower()))


def grams(text: str, length: int = GRAM) -> Iterator[str]:
    """Suites de `length` mots d'un paragraphe."""
    sequence = words(text)
    for i in range(len(sequence) - length + 1):
        yield " ".join(sequence[i : i + length])


class Deduplicator:
    """Retient ce qui a été vu : paragraphes exacts (nombres masqués) et quasi-doublons.

    Quasi-doublon : un échantillon fixe (un sur `every`) des suites de `length` mots du paragraphe
    est déjà connu pour `threshold` au moins.
    """

    def __init__(self, length: int = 8, every: int = 4, threshold: float = 0.7) -> None:
        self.length, self.every, self.threshold = length, every, threshold
        self._exact: set[bytes] = set()
        self._shingles: set[int] = set()

    @staticmethod
    def mask(paragraph: str) -> bytes:
        """Empreinte d'un paragraphe : mots seuls, nombres masqués."""
        return hashlib.blake2b("".join(words(paragraph)).encode(), digest_size=8).digest()

    def is_new(self, paragraph: str) -> bool:
        """Vrai si le paragraphe est nouveau ; il est alors retenu."""
        sequence = words(paragraph)
        exact = self.mask(paragraph)
        if exact in self._exact:
            return False
        self._exact.add(exact)
        codes = (
            zlib.crc32(" ".join(sequence[i : i + self.length]).encode()) for i in range(len(sequence) - self.length + 1)
        )
        sample = [code for code in codes if code % self.every == 0]
        known = sum(code in self._shingles for code in sample)
        if len(sample) >= 3 and known >= self.threshold * len(sample):
            return False
        self._shingles.update(sample)
        return True


class Guard:
    """Les suites de mots des textes déjà placés ; refuse les paragraphes qui en partagent une."""

    def __init__(self, length: int = GRAM) -> None:
        self.length = length
        self._grams: set[str] = set()

    def add(self, paragraphs: Iterable[str]) -> None:
        """Protège ces paragraphes."""
        for paragraph in paragraphs:
            self._grams.update(grams(paragraph, self.length))

    def allows(self, paragraph: str) -> bool:
        """Vrai si le paragraphe ne partage aucune suite de mots avec ce qui est protégé."""
        return self._grams.isdisjoint(grams(paragraph, self.length))

    def filter(self, documents: Iterable[Document]) -> tuple[list[Document], int]:
        """Documents sans leurs paragraphes refusés, et le nombre de ceux-ci."""
        kept, refused = [], 0
        for document in documents:
            paragraphs = [line for line in document.paragraphs if self.allows(line)]
            refused += len(document.paragraphs) - len(paragraphs)
            if paragraphs:
                kept.append(Document(document.source, document.key, paragraphs, document.info))
        return kept, refused


def size(documents: Iterable[Document]) -> int:
    """Octets UTF-8 des documents, écrits un paragraphe par ligne."""
    return sum(len(line.encode()) + 1 for document in documents for line in document.paragraphs)


def stratified(documents: list[Document], total: int, weights: dict[str, int]) -> list[Document]:
    """Documents choisis jusqu'à `total` octets, dans les proportions `weights` des sources."""
    chosen: list[Document] = []
    for source, weight in weights.items():
        room = total * weight / sum(weights.values())
        candidates = [document for document in documents if document.source == source]
        for document in shuffled(candidates, "extrait"):
            cost = size([document])
            if cost <= room:
                chosen.append(document)
                room -= cost
    return chosen


def shuffled(documents: Iterable[Document], use: str = "ordre") -> list[Document]:
    """Ordre pseudo-aléatoire fixe."""
    return sorted(documents, key=lambda document: unit(f"{document.source}/{document.key}", use))
