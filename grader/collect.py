"""`collect` : une archive Moodle ou un dossier de carnets → submitted/<étudiant>/<devoir>/<devoir>.ipynb.

Les chemins de l'archive ne servent qu'à reconnaître l'étudiant : rien n'est jamais écrit là où ils le disent.
"""

from __future__ import annotations

import json
import re
import stat
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from atelier import paths
from grader import UserError
from grader.chapters import chapter_names
from grader.course import Course
from grader.nbglue import Assignment, assignment, read_apart
from grader.submission import MAX_FILE_BYTES, Unreadable, claimed, defines

MAX_FILES = 20_000
MAX_TOTAL_BYTES = 4 * 1024**3
WITHOUT_ACCENT = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ß": "ss", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
"""Les lettres latines que la décomposition d'Unicode laisse entières."""
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""Un nom de dossier qui peut servir tel quel d'identifiant d'étudiant."""
MOODLE = re.compile(r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)", re.DOTALL)


@dataclass
class Incoming:
    """Un fichier reçu. order : date puis rang, pour garder le dernier."""

    path: str
    order: tuple
    data: bytes
    student: str = ""
    full_name: str = ""
    number: str = ""
    assignment: str = ""


@dataclass
class Collected:
    """Ce qui a été rangé : (étudiant, devoir) → fichier d'origine ; et ce qu'il faut dire."""

    stored: dict[tuple[str, str], str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def collect(course: Course, source: Path) -> Collected:
    """Range les copies de `source` (archive .zip ou dossier) dans le cours."""
    done = Collected()
    known = {name: assignment(name) for name in course.assignments() if name in chapter_names(paths.root())}
    if not known:
        raise UserError(
            f"Aucun devoir dans {course.folder}. Lancez d'abord\u00a0: python -m grader init {course.folder}"
        )
    received = list(read_zip(source, done) if source.is_file() else read_folder(source, done))
    for item in received:
        identify(item, known)
    rename_homonyms(received)
    recognise(received, known, done)
    keep = defaultdict(list)
    for item in received:
        if item.student and item.assignment:
            keep[item.student, item.assignment].append(item)
    for (student, _), items in sorted(keep.items()):
        items.sort(key=lambda item: item.order)
        for dropped in items[:-1]:
            done.remarks.append(f"{student}\u00a0: {dropped.path} laissé de côté, {items[-1].path} est plus récent.")
        store(course, items[-1], done)
    remember_moodle(course, [items[-1] for items in keep.values()])
    return done


# ---------------------------------------------------------------------------------------------- recevoir


def read_zip(source: Path, done: Collected) -> Iterator[Incoming]:
    """Les fichiers d'une archive, bornés en taille quoi qu'elle annonce."""
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{source} n'est pas une archive .zip lisible ({error}).") from None
    with archive:
        entries = [e for e in archive.infolist() if not e.is_dir()]
        if len(entries) > MAX_FILES:
            raise UserError(f"{source} contient {len(entries)} fichiers, la limite est de {MAX_FILES}.")
        total = 0
        for rank, entry in enumerate(entries):
            name = entry.filename.replace("\\", "/")
            if not wanted(name, done):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                done.remarks.append(f"{name}\u00a0: lien symbolique, ignoré.")
                continue
            try:
                with archive.open(entry) as stream:
                    data = stream.read(MAX_FILE_BYTES + 1)
            except (RuntimeError, zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
                done.remarks.append(f"{name}\u00a0: illisible dans l'archive ({error}).")
                continue
            total += len(data)
            if len(data) > MAX_FILE_BYTES:
                done.remarks.append(f"{name}\u00a0: plus de {MAX_FILE_BYTES // 1024**2} Mo, ignoré.")
                continue
            if total > MAX_TOTAL_BYTES:
                raise UserError(
                    f"{source} se déploie sur plus de {MAX_TOTAL_BYTES // 1024**3} Go\u00a0: archive refusée."
                )
            yield Incoming(name, (entry.date_time, rank), data)


def read_folder(source: Path, done: Collected) -> Iterator[Incoming]:
    """Les fichiers d'un dossier ; les liens ne sont pas suivis."""
    if not source.is_dir():
        raise UserError(f"{source} n'existe pas\u00a0: donnez une archive .zip ou un dossier de carnets.")
    for rank, path in enumerate(sorted(source.rglob("*"))):
        name = path.relative_to(source).as_posix()
        if path.is_symlink() or not path.is_file() or not wanted(name, done):
            continue
        if path.stat().st_size > MAX_FILE_BYTES:
            done.remarks.append(f"{name}\u00a0: plus de {MAX_FILE_BYTES // 1024**2} Mo, ignoré.")
            continue
        yield Incoming(name, (path.stat().st_mtime, rank), path.read_bytes())


def wanted(name: str, done: Collected) -> bool:
    """Vrai pour un carnet. Les autres fichiers visibles sont signalés."""
    parts = PurePosixPath(name).parts
    if any(p == "__MACOSX" or p.startswith(".") for p in parts if p != ".."):
        return False
    if name.lower().endswith(".ipynb"):
        return True
    if not name.endswith(("timestamp.txt", "onlinetext.html")):
        done.remarks.append(f"{name}\u00a0: ce n'est pas un carnet (.ipynb), ignoré.")
    return False


# ---------------------------------------------------------------------------------------------- reconnaître


def slug(name: str) -> str:
    """Un identifiant sûr à partir d'un nom : lettres sans accent, chiffres, traits d'union."""
    text = unicodedata.normalize("NFKD", name.lower()).translate(WITHOUT_ACCENT)
    text = "".join(c for c in text if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:60].strip("-")


def identify(item: Incoming, known: dict[str, Assignment]) -> None:
    """Trouve l'étudiant d'après le chemin : dossier Moodle, dossier à son nom, ou nom du fichier."""
    parts = [p for p in PurePosixPath(item.path).parts if p not in ("..", "/", ".")]
    for part in parts:
        if found := MOODLE.fullmatch(part):
            item.full_name, item.number = found["name"].strip(), found["number"]
            item.student = slug(item.full_name) or f"participant-{item.number}"
            return
    folders = [p for p in parts[:-1] if p not in known]
    if folders:
        item.full_name = folders[-1]
    else:
        stem = re.sub(r"\s*\(\d+\)$", "", PurePosixPath(parts[-1]).stem)
        for name in known:
            stem = stem.replace(name, " ")
        item.full_name = stem.strip(" _-.")
    item.student = item.full_name if IDENTIFIER.fullmatch(item.full_name) else slug(item.full_name)


def rename_homonyms(received: list[Incoming]) -> None:
    """Deux participants Moodle de même nom reçoivent leur numéro."""
    numbers = defaultdict(set)
    for item in received:
        if item.number:
            numbers[item.student].add(item.number)
    for item in received:
        if len(numbers[item.student]) > 1:
            item.student = f"{item.student}-{item.number}"


def recognise(received: list[Incoming], known: dict[str, Assignment], done: Collected) -> None:
    """Trouve le devoir d'après les cellules, sinon le nom du fichier, sinon (illisible) celui des autres copies."""
    unreadable = []
    for item in received:
        named = next((name for name in known if name in item.path), "")
        try:
            item.assignment = best_match(item.data, known) or named
        except Unreadable as error:
            item.assignment = named
            unreadable.append((item, str(error)))
    common = Counter(item.assignment for item in received if item.assignment).most_common(1)
    for item, reason in unreadable:
        item.assignment = item.assignment or (common[0][0] if common else "")
        done.remarks.append(f"{item.path}\u00a0: {reason}. Rangé quand même, il sera refusé avec cette raison.")
    for item in received:
        if not item.assignment:
            done.remarks.append(f"{item.path}\u00a0: ce n'est pas le carnet d'un devoir de ce cours, ignoré.")
        elif not item.student:
            done.remarks.append(
                f"{item.path}\u00a0: de qui\u202f? Mettez ce carnet dans un dossier au nom de l'étudiant."
            )


def best_match(data: bytes, known: dict[str, Assignment]) -> str:
    """Le devoir dont le carnet porte le plus d'identifiants, ou de définitions ; "" si aucun."""
    notebook = read_apart(data)
    scores = {}
    for name, given in known.items():
        ids = {c.grade_id for c in given.template.graded}
        exercises = [c.exercise for c in given.template.cells if c.role == "solution"]
        marked = sum(claimed(c) in ids for c in notebook.cells)
        written = sum(any(defines(c.source, e) for c in notebook.cells) for e in exercises)
        scores[name] = (marked, written)
    name = max(scores, key=lambda n: scores[n])
    return name if any(scores[name]) else ""


# ---------------------------------------------------------------------------------------------- ranger


def store(course: Course, item: Incoming, done: Collected) -> None:
    target = course.path("submitted", item.student, item.assignment) / f"{item.assignment}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.read_bytes() != item.data:
        done.remarks.append(f"{item.student}\u00a0: sa copie de {item.assignment} remplace celle déjà rangée.")
    target.write_bytes(item.data)
    done.stored[item.student, item.assignment] = item.path
    if item.number:
        with course.gradebook() as book:
            first, _, last = item.full_name.partition(" ")
            book.update_or_create_student(item.student, first_name=first, last_name=last or None)


def moodle_file(course: Course, name: str) -> Path:
    """Où sont gardés les numéros Moodle des participants d'un devoir."""
    return course.folder / "moodle" / f"{name}.json"


def moodle_numbers(course: Course, name: str) -> dict[str, dict[str, str]]:
    """Étudiant → {"number", "name"} pour un devoir relevé dans Moodle."""
    path = moodle_file(course, name)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def remember_moodle(course: Course, kept: list[Incoming]) -> None:
    """Retient les numéros de participant : la feuille de notes de Moodle les demande."""
    for name in {item.assignment for item in kept if item.number}:
        people = moodle_numbers(course, name)
        people |= {
            item.student: {"number": item.number, "name": item.full_name}
            for item in kept
            if item.assignment == name and item.number
        }
        path = moodle_file(course, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(people, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
