"""`grade` : corriger toutes les copies d'un devoir, sans qu'aucune ne puisse arrêter les autres.

Une copie déjà corrigée, ni elle ni le chapitre n'ayant changé depuis, n'est pas reprise : ce qui fait foi est le carnet
corrigé (empreintes de la copie et du chapitre) et la base (mêmes points). Il n'y a pas d'autre journal.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from atelier.paths import write_atomically
from atelier.text import NBSP, THIN, grid, legible, number, plural
from grader import UserError
from grader.classroom.course import Course
from grader.classroom.grading import VERDICTS, Result, fresh_seed, grade_refused, worth
from grader.classroom.jobs import Failed, Graded, Job, Pool, Processes, Setup
from grader.classroom.ledger import PenaltyError
from grader.classroom.marks import CopyMarks, out_of, points_when_graded, sentence
from grader.classroom.nbglue import Assignment, assignment, blank_copy, open_apart
from grader.classroom.people import People, slug
from grader.classroom.record import Recorder, entries, follows_nbgrader, read_graded, render
from grader.classroom.submission import KEY, Unreadable, notes_text, read_data
from grader.jail.outside.dialogue import shown

TABLE_ROWS = 60
"""Au-delà, le résumé ne montre que les étudiants dont la copie demande un regard."""


@dataclass
class Marked:
    """Ce qu'un devoir corrigé a donné. results : étudiant → notes ; remarks : étudiant → ce qu'il faut savoir."""

    assignment: str
    max_score: float = 0.0
    results: dict[str, list[Result]] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    unsaved: list[str] = field(default_factory=list)
    """Étudiants dont la copie n'a pas pu être notée, ou la note pas écrite."""
    kept: list[str] = field(default_factory=list)
    """Étudiants dont la correction précédente est encore bonne."""
    marks: dict[str, CopyMarks] = field(default_factory=dict)
    """Étudiant → sa note dans la base : c'est elle qui est montrée."""
    names: dict[str, str] = field(default_factory=dict)
    """Étudiant → son nom, pour ceux que la base connaît."""
    absent: list[str] = field(default_factory=list)
    """Inscrits qui n'ont rien rendu."""
    seconds: float = 0.0

    def who(self, student: str) -> str:
        """L'identifiant, et le nom s'il ne s'y lit pas."""
        name = legible(self.names.get(student, ""))
        return f"{legible(student)} ({name})" if name and slug(name) != student else legible(student)

    def remark(self, student: str, text: str) -> None:
        self.remarks.setdefault(student, []).append(legible(text))

    def records(self) -> list[dict]:
        """Les fiches de `--json` : verdicts de la correction, points de la base."""
        return [self.record(student, r) for student in sorted(self.results) for r in self.results[student]]

    def record(self, student: str, result: Result) -> dict:
        """Une fiche. Ce qui sépare ses points de la correction automatique est dit dans son message."""
        fields = result.record(student, self.assignment)
        copy = self.marks.get(student)
        cell = copy.cells.get(result.exercise) if copy else None
        said = [fields["message"]]
        if copy and cell:
            fields |= {"score": cell.score, "max_score": cell.max_score or result.max_score}
            said += [sentence(cell.difference), sentence(copy.lateness)]
        if student in self.unsaved:
            fields["score"] = cell.score if cell else 0.0
            said.append("Cette correction n'a pas pu être enregistrée.")
        return fields | {"message": " ".join(filter(None, said))}

    def total(self, student: str) -> tuple[float, float]:
        """(points, barème) d'une copie, pénalité de retard comprise."""
        if copy := self.marks.get(student):
            return copy.score, copy.max_score
        return 0.0, self.max_score

    @property
    def refused(self) -> list[str]:
        return [s for s, results in self.results.items() if any(r.verdict == "refused" for r in results)]


def mark(
    course: Course,
    name: str,
    jobs: int = 0,
    seed: int | None = None,
    *,
    only: Sequence[str] = (),
    redo: bool = False,
    pool: Pool | None = None,
) -> Marked:
    """Corrige le devoir `name` : chaque copie dans un processus à part, chaque note là où nbgrader l'écrit.

    jobs : processus de cette machine (0 : un par cœur). only : ces étudiants seulement. redo, ou une graine : reprendre
    aussi ce qui est déjà corrigé. pool : qui note, à la place de processus d'ici.
    """
    points = course.points(name)
    given = assignment(name)
    if missing := sorted((given.chapter.exercises.keys() | given.template.tasks.keys()) ^ points.keys()):
        raise UserError(
            f"Le devoir «\u00a0{name}\u00a0» a changé depuis la préparation du cours ({', '.join(missing)}). "
            f"Relancez «\u00a0python -m grader init {course.folder}\u00a0», ou revenez à la version publiée."
        )
    students = chosen(course, name, only)
    marked = Marked(name, max_score=sum(points.values()))
    start = time.monotonic()
    with Recorder(course, name) as recorder:
        recorder.forget_english()
        setup = Setup(
            name,
            given.fingerprint,
            points,
            recorder.cells,
            recorder.kernelspec,
            fresh_seed() if seed is None else seed,
        )
        batch = Batch(course, given, recorder, marked, redo or seed is not None)
        if pool is None:
            pool = Processes(min(jobs or os.cpu_count() or 1, len(students)))
        with batch.bar, closing(pool.run(setup, batch.todo(students))) as outcomes:
            for outcome in outcomes:
                batch.finish(outcome)
        batch.say_differences()
    people = People(course)
    marked.names = {id: person["name"] for id, person in people.numbers(name).items()}
    with course.gradebook() as book:
        marked.names |= {s.id: " ".join(filter(None, (s.first_name, s.last_name))) for s in book.students}
    marked.absent = [] if only else sorted(marked.names.keys() - set(students))
    marked.seconds = time.monotonic() - start
    return marked


def chosen(course: Course, name: str, only: Sequence[str]) -> list[str]:
    """Les étudiants à corriger : ceux qui ont rendu quelque chose, ou ceux de `only`."""
    excluded = course.directory.student_id_exclude.split(",")
    students = [s for s in course.students(name) if s not in excluded]
    if not students:
        raise UserError(
            f"Aucune copie de {name} dans {course.path('submitted').parent / 'submitted'}. "
            "Rangez-les d'abord\u00a0: python -m grader collect ARCHIVE --course …"
        )
    if unknown := sorted(set(only) - set(students)):
        raise UserError(f"Aucune copie de {name} rendue par {', '.join(unknown)} dans {course.folder}.")
    return [s for s in students if s in only] if only else students


class Batch:
    """Une correction en cours : ce qu'il reste à noter, et ce que l'on fait de chaque copie notée."""

    def __init__(self, course: Course, given: Assignment, recorder: Recorder, marked: Marked, redo: bool) -> None:
        self.course, self.given, self.recorder, self.marked, self.redo = course, given, recorder, marked, redo
        self.recorded = recorder.recorded()
        self.fast = follows_nbgrader(course, given.chapter.name)
        self.bar = tqdm(desc="Correction", unit="copie", disable=None)

    def todo(self, students: Sequence[str]) -> Iterator[Job]:
        """Les copies à noter, lues au fur et à mesure. Celles qui sont déjà corrigées sont réglées au passage."""
        self.bar.reset(len(students))
        for student in students:
            self.bar.set_postfix_str(student[:24])
            path, remarks = expected_file(self.course.path("submitted", student, self.marked.assignment), self.given)
            for text in remarks:
                self.marked.remark(student, text)
            if self.recorder.unreadable_timestamp(student):
                self.marked.remark(student, "date de remise (timestamp.txt) illisible\u00a0: retard non compté.")
            try:
                job = Job(student, read_data(path))
            except Unreadable as error:
                job = Job(student, b"", str(error))
            if self.redo or not self.already(job):
                yield job
        self.bar.set_postfix_str("dernières copies")

    def already(self, job: Job) -> bool:
        """Vrai si cette copie est déjà corrigée ; complète la base si elle seule manquait."""
        student = job.student
        notebook = read_graded(self.recorder.file(student))
        if notebook is None:
            return False
        about = notebook.metadata.get(KEY, {})
        same = about.get("source") == hashlib.sha256(job.data).hexdigest() and about.get("results")
        if not same or about.get("chapter") != self.given.fingerprint or (job.refused and not about.get("refused")):
            return False
        results = [Result.from_data(data) for data in about["results"]]
        points = self.points()
        if {r.exercise: r.max_score for r in results} != worth(self.given.chapter, points):
            return False
        if points_when_graded(notebook) != points:  # un exercice devenu, ou plus, un bonus
            return False
        try:
            if self.outdated(student, results):
                self.recorder.write_rows(student, entries(notebook))
        except PenaltyError as error:
            self.lose(student, str(error), results)
            return True
        self.marked.kept.append(student)
        self.keep(student, results, about)
        return True

    def points(self) -> dict[str, float]:
        """Le barème, par exercice."""
        cells = self.recorder.cells.items()
        return {name.removeprefix("test_"): cell.points for name, cell in cells if cell.points is not None}

    def outdated(self, student: str, results: list[Result]) -> bool:
        """Vrai si la base n'a pas encore ces notes, cette date de remise ou la pénalité qu'elles demandent."""
        copy = self.recorded.get(student)
        auto = {r.exercise: None if r.exercise in self.given.template.tasks else r.score for r in results}
        if copy is None or {id: cell.auto for id, cell in copy.cells.items()} != auto:
            return True
        timestamp = self.recorder.timestamp(student)
        if timestamp is not None and timestamp != copy.timestamp:
            return True
        return copy.excess_changed or self.recorder.penalty_changed(copy)

    def say_differences(self) -> None:
        """Relit les notes de la base, et dit ce qui les sépare de la correction automatique."""
        everyone = self.recorder.recorded()
        self.marked.marks = {s: everyone[s] for s in self.marked.results if s in everyone}
        for student, copy in sorted(self.marked.marks.items()):
            for text in copy.differences():
                self.marked.remark(student, f"{text}.")

    def finish(self, outcome: Graded | Failed) -> None:
        """Écrit les notes d'une copie. Ce qui n'a pas pu l'être est dit."""
        student = outcome.student
        if isinstance(outcome, Failed):
            self.lose(student, outcome.reason)
        elif problem := self.write(outcome):
            self.lose(student, problem, outcome.results)
        else:
            self.keep(student, outcome.results, outcome.about)

    def write(self, graded: Graded) -> str:
        """Écrit une copie notée ; rend "" ou, en une phrase, ce qui l'a empêchée."""
        if not self.fast:
            return self.course.autograde(self.marked.assignment, graded.student, graded.text)
        try:
            self.recorder.save(graded.student, graded.text, graded.entries)
        except PenaltyError as error:
            return str(error)
        return ""

    def keep(self, student: str, results: list[Result], about: dict) -> None:
        """Retient les notes d'une copie et ce qu'il faut en savoir."""
        for text in notes_text(about.get("notes", {})):
            self.marked.remark(student, text)
        if about.get("refused"):
            self.marked.remark(student, f"copie refusée{NBSP}: {about['refused']}.")
        self.marked.results[student] = results
        self.bar.update()

    def lose(self, student: str, problem: str, results: list[Result] | None = None) -> None:
        """Une copie sans note enregistrée : elle compte comme refusée, et quelqu'un doit regarder."""
        self.marked.unsaved.append(student)
        self.marked.remark(student, f"NOTE NON ENREGISTRÉE, {problem}")
        reason = f"la correction a échoué ({problem})"
        self.marked.results[student] = results or grade_refused(self.given.chapter, self.points(), reason)
        self.bar.update()


def expected_file(folder: Path, given: Assignment) -> tuple[Path, list[str]]:
    """Le carnet que nbgrader lira dans ce dossier ; copié ou remplacé par une copie blanche s'il n'a pas le bon nom."""
    name = given.template.name
    path = folder / f"{name}.ipynb"
    if path.exists():
        others = sorted(shown(p.name, 80) for p in folder.glob("*.ipynb") if p != path)
        return path, [f"autres carnets laissés de côté{NBSP}: {', '.join(others[:5])}."] if others else []
    candidates = sorted(folder.glob("*.ipynb"), key=lambda p: (p.lstat().st_mtime, p.name))
    for candidate in reversed(candidates):
        if not open_apart(candidate, given).metadata[KEY].get("refused"):
            write_atomically(path, candidate.read_bytes())
            return path, [
                f"carnet rendu sous le nom «{NBSP}{shown(candidate.name, 80)}{NBSP}», corrigé comme {path.name}."
            ]
    if candidates:
        reason = open_apart(candidates[-1], given).metadata[KEY]["refused"]
        reason = f"{shown(candidates[-1].name, 80)}{NBSP}: {reason}"
    else:
        files = sorted(shown(p.name, 80) for p in folder.iterdir() if p.is_file())
        reason = "le dossier rendu ne contient aucun carnet" + (f" ({', '.join(files[:5])})" if files else "")
    write_atomically(path, render(blank_copy(given.template, reason)).encode())
    return path, [f"{reason}{THIN}; une copie blanche a été déposée à la place."]


# ---------------------------------------------------------------------------------------------- dire


def write_records(marked: Marked, path: Path) -> None:
    """Le tableau JSON des notes, une fiche par étudiant et par exercice."""
    data = (json.dumps(marked.records(), ensure_ascii=False, indent=1) + "\n").encode()
    if path.exists() and not path.is_file():  # /dev/stdout, un tube
        path.write_bytes(data)
    else:
        write_atomically(path.resolve(), data)


def summary(marked: Marked) -> str:
    """Le tableau des notes, le décompte des verdicts et ce qui demande un regard, en texte."""
    rows = []
    everyone = sorted(marked.results)
    shown = everyone if len(everyone) <= TABLE_ROWS else sorted(set(marked.remarks) & set(everyone))
    for student in shown:
        results = marked.results[student]
        counts = Counter(r.verdict for r in results)
        rows.append((marked.who(student), out_of(*marked.total(student)), verdicts_text(counts)))
    lines = grid(("étudiant", "points", "exercices"), rows) if rows else []
    if marked.remarks:
        lines += ["", "À savoir\u00a0:"]
        for student in sorted(marked.remarks):
            lines += [f"  {marked.who(student)}{NBSP}: {text}" for text in marked.remarks[student]]
    waiting = [copy for copy in marked.marks.values() if copy.pending]
    if waiting:
        lines += ["", f"À noter à la main, dans formgrader{NBSP}: {plural(len(waiting), 'copie')}."]
    if marked.absent:
        lines += ["", f"Rien reçu de{NBSP}: {', '.join(map(marked.who, marked.absent))}"]
    counts = Counter(r.verdict for results in marked.results.values() for r in results)
    copies = len(everyone)
    said = plural(copies, "copie")
    if marked.kept:
        said += f", dont {plural(len(marked.kept), 'déjà corrigée', 'déjà corrigées')}"
    if fresh := copies - len(marked.kept):
        said += f"{THIN}; {number(round(marked.seconds, 1), unit='s')}, "
        said += f"{number(round(marked.seconds / fresh, 2), unit='s')} par copie"
    lines += ["", f"{said}.", f"Exercices{NBSP}: {verdicts_text(counts)}."]
    return "\n".join(lines)


def verdicts_text(counts: Counter[str]) -> str:
    """« juste × 12, faux × 3 », dans l'ordre des verdicts."""
    return ", ".join(f"{VERDICTS[v]} × {counts[v]}" for v in VERDICTS if counts[v])


def check_destination(path: Path) -> None:
    """Vérifie, avant de corriger, que l'on pourra écrire `path` à la fin."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} n'existe pas\u00a0: le résultat ne pourrait pas y être écrit.")
    if path.is_dir():
        raise UserError(f"{path} est un dossier\u00a0: donnez un nom de fichier à --json.")
