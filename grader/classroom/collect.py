"""`collect` : ce que l'enseignant a reçu → submitted/<étudiant>/<devoir>/<devoir>.ipynb, et personne ne disparaît.

Ouvrir est le travail d'archives.py, trouver le nom celui de layout.py, l'identifiant celui de people.py. Ici : à quel
devoir est un carnet, lequel garder, le ranger d'un coup avec sa date. Relancer la même commande ne change rien.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import nbformat
from nbgrader.utils import parse_utc

from atelier import paths
from atelier.paths import write_atomically
from grader import UserError
from grader.classroom.archives import ARCHIVES, Received, clean_name, is_notebook_name, plausible, seconds, unpack
from grader.classroom.course import CONFIG, Course, known_assignments
from grader.classroom.layout import Layout, Who
from grader.classroom.nbglue import Assignment, assignment, blank_copy, read_apart, refusal
from grader.classroom.people import People, slug
from grader.classroom.submission import MAX_FILE_BYTES, Unreadable, claimed, defines, plain

__all__ = ["Collected", "collect", "moodle_numbers", "slug"]

SET_ASIDE = "mis_de_cote"
"""Où, dans le cours, vont les copies qui ne sont pas celle que l'on corrige."""
SAME_DATE = 2.0
"""Secondes : la précision d'une date d'archive."""
RAW_BYTES = 20_000_000
"""Ce que l'on regarde d'un carnet abîmé."""
UNREADABLE, BLANK, ANSWERED = 0, 1, 2
KINDS = {
    ".py": "un programme Python",
    ".html": "une page HTML",
    ".htm": "une page HTML",
    ".pdf": "un PDF",
    ".docx": "un document Word",
    ".odt": "un document LibreOffice",
    ".md": "un texte",
    ".txt": "un texte",
    ".zip": "une archive",
    ".7z": "une archive 7z",
    ".rar": "une archive RAR",
}
"""Ce que l'on reçoit à la place d'un carnet, en toutes lettres."""


@dataclass
class Copy:
    """Un fichier reçu, ce qu'il contient et à qui il est."""

    item: Received
    sha: str = ""
    assignment: str = ""
    worth: int = UNREADABLE
    answers: int = 0
    problem: str = ""
    who: Who | None = None
    student: str = ""
    stamp: str = ""
    """La date de remise, telle que nbgrader la relira ; "" si rien ne la dit."""

    @property
    def name(self) -> str:
        return clean_name(self.item.path)

    @property
    def short(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    @property
    def candidate(self) -> bool:
        """Vrai pour ce qui peut être rangé : un carnet dont on a les octets, de ce cours ou illisible."""
        return self.item.kind == "notebook" and self.item.file is not None

    @property
    def order(self) -> float | None:
        return seconds(parse_utc(self.stamp)) if self.stamp else self.item.order


@dataclass
class Collected:
    """Ce qui a été rangé, ce qui ne pouvait pas l'être, et ce qu'il faut dire."""

    stored: dict[tuple[str, str], str] = field(default_factory=dict)
    """(étudiant, devoir) → fichier d'origine."""
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    """(étudiant, devoir) → pourquoi rien de ce qu'il a envoyé n'est un carnet."""
    unnamed: list[str] = field(default_factory=list)
    """Fichiers dont on ne sait pas de qui ils sont."""
    remarks: list[str] = field(default_factory=list)


def collect(course: Course, source: Path) -> Collected:
    """Range les copies de `source` (archive ou dossier) dans le cours."""
    done = Collected()
    ours = known_assignments(paths.root())
    known = {name: assignment(name) for name in course.assignments() if name in ours}
    if not known:
        raise UserError(
            f"Aucun devoir dans {course.folder}. Lancez d'abord\u00a0: python -m grader init {course.folder}"
        )
    if (source / CONFIG).is_file():
        source = source / "submitted"  # un dossier de cours entier : les corrigés n'y sont de personne
    clean_old_spools(course)
    with tempfile.TemporaryDirectory(prefix=".collecte-", dir=course.folder) as spool:
        received = unpack(source, Path(spool), MAX_FILE_BYTES)
        stamps = {PurePosixPath(r.path).parent: r for r in received if r.kind == "stamp" and not r.nested}
        copies = [Copy(r) for r in received if r.kind != "stamp"]
        for copy in copies:
            recognise(copy, known)
        people = People(course)
        default = usual_assignment(copies, known, source)
        identify(copies, people, default, done)
        date(copies, stamps, done)
        people.save()
        for (student, name), mine in sorted(by_student(copies).items()):
            place(course, student, name, mine, known[name], done)
    return done


def clean_old_spools(course: Course) -> None:
    """Les dossiers de travail qu'un arrêt brutal a laissés."""
    for folder in course.folder.glob(".collecte-*"):
        if folder.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- quel devoir


def recognise(copy: Copy, known: dict[str, Assignment]) -> None:
    """Le devoir d'un carnet d'après ses cellules, ce qu'il vaut, et sinon pourquoi il n'est pas lisible."""
    item = copy.item
    lowered = item.path.lower()
    named = max((name for name in known if name.lower() in lowered), key=lambda n: lowered.rfind(n.lower()), default="")
    copy.assignment = named
    if item.kind == "other" or item.problem:
        copy.problem = item.problem
        return
    data = item.data()
    copy.sha = hashlib.sha256(data).hexdigest()
    try:
        found, copy.answers = best_match(data, known, named)
    except Unreadable as error:
        copy.problem = str(error)
        copy.assignment = copy.assignment or ids_in(data, known)
        if not copy.assignment and not is_notebook_name(item.path):
            item.kind = "other"
        return
    if found:
        copy.assignment, copy.worth = found, ANSWERED if copy.answers else BLANK
    elif named:
        copy.problem = f"le carnet rendu n'est pas celui de {named}"
    else:
        copy.problem = "ce n'est pas le carnet d'un devoir de ce cours"
        item.kind = "other"


def best_match(data: bytes, known: dict[str, Assignment], named: str = "") -> tuple[str, int]:
    """Le devoir dont le carnet porte le plus d'identifiants, ou de définitions, et combien de réponses il en a."""
    notebook = read_apart(data)
    owners = [claimed(c) for c in notebook.cells]
    scores = {}
    for name, given in known.items():
        ids = {c.grade_id for c in given.template.graded}
        stubs = {c.exercise: plain(c.source) for c in given.template.cells if c.role == "solution"}
        marked = sum(owner in ids for owner in owners)
        written = {e: [c for c in notebook.cells if defines(c.source, e)] for e in stubs}
        answers = sum(any(plain(c.source) != stubs[e] for c in cells) for e, cells in written.items())
        if given.template.tasks:  # tout ce qui y est écrit compte, le titre excepté
            published = {plain(c.source) for c in given.template.cells}
            answers += sum(plain(c.source) not in published for c in notebook.cells[1:])
        scores[name] = (marked, sum(map(bool, written.values())), name == named, answers)
    name = max(scores, key=lambda n: scores[n])
    return (name, scores[name][3]) if any(scores[name][:2]) else ("", 0)


def ids_in(data: bytes, known: dict[str, Assignment]) -> str:
    """Le devoir dont un carnet abîmé porte encore des identifiants ; "" si aucun."""
    found = set(re.findall(rb'"grade_id":\s{0,9}"([A-Za-z0-9_-]{1,64})"', data[:RAW_BYTES]))
    scores = {name: sum(c.grade_id.encode() in found for c in given.template.graded) for name, given in known.items()}
    name = max(scores, key=lambda n: scores[n])
    return name if scores[name] else ""


def usual_assignment(copies: Sequence[Copy], known: dict[str, Assignment], source: Path) -> str:
    """Le devoir de ce lot, pour ce qui ne dit pas le sien : celui du plus de réponses, ou celui que nomme l'archive."""
    for worth in (ANSWERED, BLANK, UNREADABLE):
        if seen := Counter(c.assignment for c in copies if c.worth >= worth and c.assignment):
            return seen.most_common(1)[0][0]
    named = [name for name in known if name.lower() in source.name.lower()] or list(known)
    return named[0] if len(named) == 1 else ""


# ---------------------------------------------------------------------------------------------- qui, et quand


def identify(copies: Sequence[Copy], people: People, default: str, done: Collected) -> None:
    """Donne à chaque fichier son étudiant, et son devoir à ce qui ne dit pas le sien ; dit ce qui n'est à personne."""
    layout = Layout(known_assignments(paths.root()), people.names)
    notebooks = [c for c in copies if c.item.kind == "notebook"]
    for copy, who in zip(notebooks, named(layout, notebooks), strict=True):
        copy.who = who
    name_the_rest(layout, notebooks, [c for c in copies if c.item.kind != "notebook"])
    numbered = moodle_box(copies, people, default)
    ids = people.resolve([c.who for c in copies if c.who is not None], numbered)
    done.remarks += people.remarks
    main: dict[str, str] = {}
    for copy in copies:
        copy.student = ids[copy.who] if copy.who is not None else ""
        if copy.worth and copy.student:
            main.setdefault(copy.student, copy.assignment)
    for copy in copies:
        copy.assignment = copy.assignment or main.get(copy.student, "") or default
        if copy.who is not None and copy.student and copy.assignment:
            if copy.who.system == "moodle" and copy.assignment in numbered:
                people.number(copy.student, copy.assignment, copy.who.number)
        elif copy.candidate:
            done.unnamed.append(copy.name)
            done.remarks.append(
                f"{copy.name}\u00a0: de qui\u202f? Rien ne le dit dans son chemin. Mettez ce carnet dans un dossier au "
                "nom de l'étudiant, et relancez."
            )
        else:
            whose = f"{copy.student}\u00a0: " if copy.student else ""
            done.remarks.append(f"{whose}{not_a_copy(copy)}, ignoré.")


def moodle_box(copies: Sequence[Copy], people: People, default: str) -> set[str]:
    """Les devoirs que ramasse la boîte de dépôt d'où vient cette archive. Un carnet égaré n'en fait pas partie."""
    mine = [c for c in copies if c.who is not None and c.who.system == "moodle"]
    counts = Counter(c.assignment or default for c in mine if c.assignment or default)
    if not counts:
        return set()
    main, most = counts.most_common(1)[0]
    by_person: dict[Who | None, set[str]] = defaultdict(set)
    for copy in mine:
        by_person[copy.who].add(copy.assignment or default)
    known = {(a, n) for person in people.known.values() for a, n in person.numbers.items()}
    box = {main}
    for name, count in counts.items():
        together = any({main, name} <= names for names in by_person.values())
        already_ours = any(c.who is not None and (name, c.who.number) in known for c in mine)
        if together or already_ours or (count > 1 and count * 4 >= most):
            box.add(name)
    return box


def named(layout: Layout, copies: Sequence[Copy]) -> list[Who | None]:
    return layout.identify([c.item.parts for c in copies], [c.assignment for c in copies])


def name_the_rest(layout: Layout, notebooks: Sequence[Copy], others: Sequence[Copy]) -> None:
    """À qui sont les fichiers qui ne sont pas des carnets : à qui a un carnet à côté, sinon d'après le lot entier."""
    owners: dict[tuple[str, ...], set[Who]] = defaultdict(set)
    for copy in notebooks:
        for depth in range(1, len(copy.item.parts)):
            if copy.who is not None:
                owners[copy.item.parts[:depth]].add(copy.who)
    alone = []
    for copy in others:
        parts = copy.item.parts
        near = next((owners[parts[:d]] for d in range(len(parts) - 1, 0, -1) if parts[:d] in owners), set())
        copy.who = layout.platform(parts) or (next(iter(near)) if len(near) == 1 else None)
        alone += [copy] if copy.who is None else []
    common = set(notebooks[0].item.parts).intersection(*(c.item.parts for c in notebooks)) if notebooks else set()
    for copy, who in zip(alone, named(layout, [*notebooks, *alone])[len(notebooks) :], strict=True):
        in_folder = len(copy.item.parts) > 1 and who is not None and who.label not in common
        archive = copy.item.parts[-1].lower().endswith(ARCHIVES)
        copy.who = who if in_folder or archive or layout.of_file(copy.item.parts[-1])[1] else None


def not_a_copy(copy: Copy) -> str:
    """Ce qu'est un fichier qui n'est pas une copie, en une phrase sans point."""
    suffix = PurePosixPath(copy.item.path).suffix.lower()
    if copy.item.parts[-1].lower() == "onlinetext.html" or "_assignsubmission_onlinetext" in copy.item.path:
        return f"{copy.short}\u00a0: un texte écrit dans Moodle, pas un carnet (.ipynb)"
    if copy.problem:
        return f"{copy.short}\u00a0: {copy.problem}"
    return f"{copy.short}\u00a0: {KINDS.get(suffix, 'un fichier')}, ce n'est pas un carnet (.ipynb)"


def date(copies: Iterable[Copy], stamps: dict[PurePosixPath, Received], done: Collected) -> None:
    """La date de remise : celle du timestamp.txt rendu avec la copie, du nom, ou de l'archive.

    Un étudiant dépose ce qu'il veut dans Moodle ou dans une archive à lui : un timestamp.txt n'y prouve rien.
    """
    for copy in copies:
        beside = None if copy.item.nested else stamps.get(PurePosixPath(copy.item.path).parent)
        if beside is not None and not (copy.who and copy.who.system):
            copy.stamp = stamp_text(beside.data()[:200].decode("utf-8", errors="replace"))
            if not copy.stamp:
                done.remarks.append(f"{clean_name(beside.path)}\u00a0: ce n'est pas une date, ignoré.")
        if not copy.stamp and copy.who and copy.who.date:
            copy.stamp = stamp_text(copy.who.date)
        if not copy.stamp and copy.item.date is not None:
            copy.stamp = f"{copy.item.date:%Y-%m-%d %H:%M:%S} UTC"


def stamp_text(text: str) -> str:
    """Une date telle que nbgrader la relira, ou "" : il s'arrêterait sur ce qui n'en est pas une."""
    text = clean_name(text)
    try:
        when = parse_utc(text)
        return text if isinstance(when, datetime) and plausible(when) else ""
    except (ValueError, OverflowError, TypeError):
        return ""


# ---------------------------------------------------------------------------------------------- ranger


def by_student(copies: Iterable[Copy]) -> dict[tuple[str, str], list[Copy]]:
    found = defaultdict(list)
    for copy in copies:
        if copy.student and copy.assignment:
            found[copy.student, copy.assignment].append(copy)
    return found


def place(course: Course, student: str, name: str, mine: Sequence[Copy], given: Assignment, done: Collected) -> None:
    """Garde la meilleure copie d'un étudiant, celle déjà rangée comprise ; dit ce que devient le reste."""
    folder = course.path("submitted", student, name)
    target = folder / f"{name}.ipynb"
    before = already(target, name, given)
    copies = [c for c in mine if c.candidate]
    rest = [c for c in mine if not c.candidate]
    if not copies:
        if before is None:
            refuse(target, student, rest, given, done)
        else:
            say_rest(student, rest, done)
        return
    best = copies[0]
    for copy in copies[1:]:
        best = best if beats(best, copy) else copy
    if before is not None and before.sha == best.sha:
        before = None if best.stamp and not (folder / "timestamp.txt").exists() else best
    if before is None or (before is not best and replaces(course, student, name, best, before)):
        if before is not None:
            set_aside(course, student, name, before)
            done.remarks.append(
                f"{student}\u00a0: sa copie de {name} remplace celle déjà rangée, gardée dans {SET_ASIDE}/{name}."
            )
        store(target, best)
        winner = best
    else:
        winner = before
    done.stored[student, name] = winner.name
    if winner.problem:
        done.remarks.append(
            f"{winner.name}\u00a0: {winner.problem}. Rangé quand même, il sera refusé avec cette raison."
        )
    for copy in copies:
        if copy.sha != winner.sha:
            set_aside(course, student, name, copy)
            done.remarks.append(f"{student}\u00a0: {copy.name} laissé de côté, {winner.name} {reason(winner, copy)}.")
    say_rest(student, rest, done)


def already(target: Path, name: str, given: Assignment) -> Copy | None:
    """La copie déjà rangée ; None s'il n'y en a pas, ou si c'est un refus."""
    if not target.is_file() or target.is_symlink():
        return None
    item = Received(f"celle déjà rangée ({name})", "notebook", target.stat().st_mtime, None, target)
    data = item.data()
    if refusal(data):
        return None
    copy = Copy(item)
    recognise(copy, {name: given})
    copy.sha = hashlib.sha256(data).hexdigest()
    stamp = target.with_name("timestamp.txt")
    if stamp.is_file():
        copy.stamp = stamp_text(stamp.read_bytes()[:200].decode("utf-8", errors="replace"))
    return copy


def beats(first: Copy, second: Copy) -> bool:
    """Vrai si `first`, venue avant, reste préférable : lisible, répondue, plus récente, plus complète, dans cet ordre.

    Une copie blanche ou illisible ne l'emporte jamais sur une copie répondue, même plus récente : ce n'est jamais ce
    que son auteur a voulu rendre. À égalité de tout, la dernière venue.
    """
    if first.worth != second.worth:
        return first.worth > second.worth
    if first.order is not None and second.order is not None and abs(first.order - second.order) > SAME_DATE:
        return first.order > second.order
    return first.answers > second.answers


def replaces(course: Course, student: str, name: str, copy: Copy, before: Copy) -> bool:
    """Vrai si cette copie prend la place de celle déjà rangée. À égalité, une copie déjà écartée ne revient pas."""
    return beats(copy, before) or (not beats(before, copy) and aside(course, student, name, copy) is None)


def reason(winner: Copy, loser: Copy) -> str:
    """Pourquoi l'une a été préférée à l'autre."""
    if winner.worth != loser.worth:
        return "est lisible" if loser.worth == UNREADABLE else "contient des réponses"
    if winner.order is not None and loser.order is not None and winner.order - loser.order > SAME_DATE:
        return "est plus récent"
    if winner.answers > loser.answers:
        return "répond à plus d'exercices"
    return "est venu après"


def aside(course: Course, student: str, name: str, copy: Copy) -> Path | None:
    """Où cette copie a déjà été mise de côté ; None si elle ne l'a jamais été."""
    return next((course.folder / SET_ASIDE / name / student).glob(f"*-{copy.sha[:12]}.ipynb"), None)


def set_aside(course: Course, student: str, name: str, copy: Copy) -> None:
    """Garde une copie que l'on ne corrigera pas."""
    if aside(course, student, name, copy) is None:
        when = datetime.fromtimestamp(copy.order, UTC).strftime("%Y%m%d-%H%M%S") if copy.order else "sans-date"
        path = course.folder / SET_ASIDE / name / student / f"{when}-{copy.sha[:12]}.ipynb"
        write_atomically(path, copy.item.data())


def store(target: Path, copy: Copy) -> None:
    """Range une copie et sa date. La date d'abord : qui s'arrête entre les deux relancera, et la copie suivra."""
    if copy.stamp:
        write_atomically(target.with_name("timestamp.txt"), f"{copy.stamp}\n".encode())
    write_atomically(target, copy.item.data())
    if copy.item.order is not None:
        os.utime(target, (copy.item.order, copy.item.order))


def refuse(target: Path, student: str, files: Sequence[Copy], given: Assignment, done: Collected) -> None:
    """Quelqu'un qui n'a envoyé aucun carnet : une copie blanche dit pourquoi, et il a sa ligne partout."""
    if any(path != target for path in target.parent.glob("*.ipynb")):
        return  # un autre carnet y est, rangé par nbgrader : « grade » le prendra
    what = "\u202f; ".join(not_a_copy(c) for c in files[:3])
    what += f" et {len(files) - 3} autres fichiers" if len(files) > 3 else ""
    text = f"aucun carnet dans ce qui a été rendu ({what})"
    dated = max((c for c in files if c.stamp), key=lambda c: c.order or 0.0, default=None)
    if dated is not None:
        write_atomically(target.with_name("timestamp.txt"), f"{dated.stamp}\n".encode())
    write_atomically(target, nbformat.writes(blank_copy(given.template, text)).encode())
    done.refused[student, given.template.name] = text
    done.remarks.append(f"{student}\u00a0: {text}. Sa copie est refusée avec cette raison.")


def say_rest(student: str, rest: Sequence[Copy], done: Collected) -> None:
    """Ce qui accompagnait la copie."""
    unread = [c for c in rest if c.item.kind == "notebook" and c.problem]
    for copy in unread:
        done.remarks.append(f"{student}\u00a0: {copy.name}\u00a0: {copy.problem}, laissé de côté.")
    others = [c.short for c in rest if c not in unread and "onlinetext" not in c.name]
    if others:
        text = ", ".join(others[:3]) + (f" et {len(others) - 3} autres" if len(others) > 3 else "")
        what = "ce ne sont pas des carnets (.ipynb), ignorés" if len(others) > 1 else "ce n'est pas un carnet, ignoré"
        done.remarks.append(f"{student}\u00a0: {text}\u00a0: {what}.")


def moodle_numbers(course: Course, name: str) -> dict[str, dict[str, str]]:
    """Étudiant → {"number", "name"} pour un devoir relevé dans Moodle."""
    return People(course).numbers(name)
