"""Les textes distribués : taille, provenance, forme, et étanchéité entre entraînement et évaluation."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from itertools import combinations
from pathlib import Path

import pytest

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"
CHALLENGE = Path(__file__).parents[1] / "grader" / "defi" / "extrait.txt"
PARTS = ("train", "validation", "test")
VOICES = ("a", "b", "bprime")
TABLES = {
    "classification": ("partie", "sujet", "texte"),
    "categories_littre": ("partie", "mot", "categorie", "definition"),
    "paires": ("partie", "anglais", "francais", "source"),
}
FRENCH_COLUMN = {"classification": 2, "categories_littre": 3, "paires": 2}
UPOS = set("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
DATA = [f"{voice}_{part}.txt" for voice in VOICES for part in PARTS]
DATA += [f"{name}.tsv" for name in TABLES] + ["etiquetage.jsonl"]
GRAM, SHORT_GRAM = 13, 8


@functools.cache
def content(name: str) -> str:
    return (CORPORA / name).read_text("utf-8")


@functools.cache
def table(name: str) -> list[tuple[str, ...]]:
    return [tuple(line.split("\t")) for line in content(f"{name}.tsv").split("\n")[:-1]]


@functools.cache
def sentences() -> list[dict]:
    return [json.loads(line) for line in content("etiquetage.jsonl").splitlines()]


@functools.cache
def provenance() -> dict:
    return json.loads(content("provenance.json"))


def texts(dataset: str, part: str) -> list[str]:
    """Textes français d'une partie ; une citation en vers compte pour un texte."""
    if dataset in VOICES:
        separator = "\n\n" if dataset == "bprime" else "\n"
        return [text.replace("\n", " ") for text in content(f"{dataset}_{part}.txt").split(separator)]
    if dataset == "etiquetage":
        return [" ".join(line["mots"]) for line in sentences() if line["partie"] == part]
    return [row[FRENCH_COLUMN[dataset]] for row in table(dataset) if row[0] == part]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"\d+", "0", text.lower()))


@functools.cache
def grams(dataset: str, part: str, length: int = GRAM) -> frozenset[str]:
    found = set()
    for text in texts(dataset, part):
        sequence = words(text)
        found.update(" ".join(sequence[i : i + length]) for i in range(len(sequence) - length + 1))
    return frozenset(found)


def test_everything_fits() -> None:
    files = [path for path in CORPORA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert 170_000 <= CHALLENGE.stat().st_size <= 210_000
    assert not list(CORPORA.rglob("*defi*"))


@pytest.mark.parametrize("name", DATA)
def test_file_is_the_recorded_one(name: str) -> None:
    recorded = provenance()["fichiers"][name]
    data = (CORPORA / name).read_bytes()
    assert recorded["sha256"] == hashlib.sha256(data).hexdigest()
    assert recorded["octets"] == len(data)


def test_provenance_and_readme_name_every_file() -> None:
    present = {path.name for path in CORPORA.iterdir() if path.is_file()} - {"README.md"}
    assert present == {*DATA, "provenance.json"}
    assert set(provenance()["fichiers"]) == set(DATA)
    readme = content("README.md")
    assert all(f"`{name}`" in readme for name in [*present, "licences/"])
    assert all(package["licence"] and package["attribution"] for package in provenance()["paquets"])
    assert all(f"`{package['paquet']}`" in readme for package in provenance()["paquets"])
    licences = {path.stem for path in (CORPORA / "licences").iterdir()}
    assert licences == {"GPL-2", "GPL-3", "GFDL-1.3", "MPL-2.0", "Apache-2.0", "CC-BY-SA-3.0"}


def test_recorded_overlaps_with_the_large_training_text_are_nil() -> None:
    counts = provenance()["suites_partagees"]
    watched = {f"{voice}_{part}.txt" for voice in VOICES for part in ("validation", "test")}
    watched |= {f"{name} ({part})" for name in DATA[9:] for part in ("validation", "test")}
    assert watched | {CHALLENGE.name, "b_train.txt", "bprime_train.txt"} == set(counts)
    assert all("grand texte A" in found for found in counts.values())
    assert sum(count for found in counts.values() for count in found.values()) == 0


@pytest.mark.parametrize("part", ("validation", "test"))
@pytest.mark.parametrize("dataset", (*VOICES, *TABLES, "etiquetage"))
def test_nothing_evaluated_is_in_a_training_text(dataset: str, part: str) -> None:
    for other in (*VOICES, *TABLES, "etiquetage"):
        shared = grams(dataset, part) & grams(other, "train")
        assert not shared, f"{dataset} ({part}) et {other} (train) partagent « {min(shared)} »"


@pytest.mark.parametrize("dataset", (*VOICES, *TABLES, "etiquetage"))
def test_test_is_not_validation(dataset: str) -> None:
    assert not grams(dataset, "test") & grams(dataset, "validation")


@pytest.mark.parametrize("voice", ("b", "bprime"))
def test_a_voice_repeats_not_even_eight_words(voice: str) -> None:
    for one, other in combinations(PARTS, 2):
        assert not grams(voice, one, SHORT_GRAM) & grams(voice, other, SHORT_GRAM)


@pytest.mark.parametrize(("one", "other"), list(combinations(VOICES, 2)))
def test_the_three_voices_share_nothing(one: str, other: str) -> None:
    everything = [frozenset().union(*(grams(voice, part) for part in PARTS)) for voice in (one, other)]
    assert not everything[0] & everything[1]


@pytest.mark.parametrize("voice", VOICES)
def test_documents_are_in_one_part_only(voice: str) -> None:
    origins = [set(provenance()["fichiers"][f"{voice}_{part}.txt"]["origine"]) for part in PARTS]
    assert all(not one & other for one, other in combinations(origins, 2))
    assert all(len(origin) >= 20 for origin in origins)


@pytest.mark.parametrize("name", DATA)
def test_characters_are_clean(name: str) -> None:
    text = content(name)
    assert unicodedata.is_normalized("NFC", text)
    assert text.endswith("\n") and not text.endswith("\n\n") and "\r" not in text
    allowed = {"\n", "\t"} if name.endswith(".tsv") else {"\n"}
    control = {c for c in set(text) if unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs", "Zl", "Zp")} - allowed
    assert not control
    if name.endswith(".txt"):
        assert "\n\n\n" not in text
        assert all(line == line.strip() for line in text.split("\n"))


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_well_formed(name: str) -> None:
    header, *rows = table(name)
    assert header == TABLES[name]
    assert {row[0] for row in rows} == set(PARTS)
    assert all(len(row) == len(header) and all(cell == cell.strip() and cell for cell in row) for row in rows)
    masks = [" ".join(words(row[FRENCH_COLUMN[name]])) for row in rows]
    assert len(masks) == len(set(masks)), "deux lignes ont le même texte"


def test_sizes_of_the_tables() -> None:
    counts = {name: provenance()["fichiers"][name]["lignes"] for name in DATA[9:]}
    least = {"classification.tsv": 3000, "categories_littre.tsv": 5000, "paires.tsv": 7000, "etiquetage.jsonl": 3000}
    for name, parts in counts.items():
        assert sum(parts.values()) >= least[name]
        assert min(parts["validation"], parts["test"]) >= 300


def test_classification_has_its_twelve_classes_everywhere() -> None:
    classes = [{row[1] for row in table("classification")[1:] if row[0] == part} for part in PARTS]
    assert classes[0] == classes[1] == classes[2]
    assert len(classes[0]) == 12


def test_definitions_and_pairs_are_short() -> None:
    assert all(len(row[3]) <= 200 for row in table("categories_littre")[1:])
    assert all(max(len(row[1]), len(row[2])) <= 120 for row in table("paires")[1:])


def test_pairs_do_not_share_their_english() -> None:
    english = {part: {" ".join(words(row[1])) for row in table("paires") if row[0] == part} for part in PARTS}
    assert not english["train"] & (english["validation"] | english["test"])


def test_tags_are_universal_and_one_per_word() -> None:
    for line in sentences():
        assert set(line) == {"partie", "mots", "etiquettes"} and line["partie"] in PARTS
        assert len(line["mots"]) == len(line["etiquettes"]) >= 6
        assert set(line["etiquettes"]) <= UPOS
        assert all(word and not re.search(r"\s", word) for word in line["mots"])
