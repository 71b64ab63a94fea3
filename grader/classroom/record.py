"""Ce que `grade` écrit pour une copie : le carnet corrigé, puis la base (`ledger`), là où nbgrader les écrit.

C'est l'étape « autograde » de nbgrader sans l'exécution. Le fichier d'abord, la base ensuite : qui s'arrête entre les
deux retrouve le fichier la fois suivante et n'a plus que la base à écrire. Rien n'est perdu, ni écrit deux fois.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import reads_json, writes_json
from nbgrader import utils
from nbgrader.converters import Autograde
from nbgrader.converters.base import BaseConverter
from traitlets.config import Config

from atelier.paths import write_atomically
from grader.classroom.course import Course, configure
from grader.classroom.ledger import Entries, Ledger, RecordError, SourceCell, quiet_log


def overwrite(notebook: NotebookNode, cells: Mapping[str, SourceCell], kernelspec: Mapping[str, Any] | None) -> None:
    """Ce que font OverwriteKernelspec et OverwriteCells de nbgrader, d'après ce que la base a dit une fois."""
    if kernelspec:
        notebook.metadata["kernelspec"] = NotebookNode(kernelspec)
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader")
        known = cells.get(meta.get("grade_id")) if meta else None
        if known is None:
            continue
        if known.points is not None:
            meta["points"] = known.points
        meta["checksum"] = known.checksum
        if known.locked:
            meta["locked"] = True
            cell.source = known.source


def entries(notebook: NotebookNode) -> Entries:
    """Ce que `nbglue.SaveGrades` lirait dans ce carnet."""
    found = Entries()
    for cell in notebook.cells:
        if utils.is_grade(cell):
            found.scores[cell.metadata.nbgrader["grade_id"]] = score_of(cell)
        if utils.is_task(cell):
            found.scores[cell.metadata.nbgrader["grade_id"]] = None  # quelqu'un la notera
        if utils.is_solution(cell) or utils.is_task(cell):
            found.comments[cell.metadata.nbgrader["grade_id"]] = None  # le retour dit déjà, en français, « non fait »
    return found


def score_of(cell: NotebookNode) -> float | None:
    """Les points d'une cellule de vérification corrigée ; nbgrader n'en donne pas à qui en vaut 0, un bonus si."""
    if not float(cell.metadata["nbgrader"]["points"]):
        shown = [o.data["text/plain"] for o in cell.get("outputs", []) if o.output_type == "execute_result"]
        with suppress(ValueError):
            return float(shown[0]) if shown else 0.0
    return utils.determine_grade(cell)[0]


def render(notebook: NotebookNode) -> str:
    """Le texte du carnet corrigé."""
    return writes_json(notebook) + "\n"


def follows_nbgrader(course: Course, name: str) -> bool:
    """Vrai si le cours n'a rien ajouté à l'étape « autograde » ; sinon c'est à nbgrader d'écrire, copie par copie."""
    wanted = Config()
    configure(wanted, course.folder)
    given = course.config.get("Autograde", {})
    same = all(list(given.get(key, [])) == list(wanted.Autograde[key]) for key in wanted.Autograde if "preproc" in key)
    plain = not set(given) - set(wanted.Autograde) - {"create_student", "force", "permissions"}
    hooks = {"pre_convert_hook", "post_convert_hook"} & {key for part in course.config.values() for key in part}
    with course.gradebook() as book:
        only = [n.name for n in book.find_assignment(name).notebooks] == [name]
    return bool(same and plain and only and not hooks and given.get("create_student", True))


class Recorder(Ledger):
    """Le seul qui écrive les notes d'un devoir. `with Recorder(course, name) as recorder: recorder.save(…)`"""

    def __init__(self, course: Course, name: str) -> None:
        self.course = course
        self.converter = Autograde(coursedir=course.directory, config=course.config)
        self.converter.log = quiet_log()
        super().__init__(course.directory, name, name, self.converter)
        self.source_folder = course.path("source", assignment=name)
        ignored = [*course.directory.ignore, "*.ipynb"]
        self.extra_files = [Path(p) for p in utils.find_all_files(str(self.source_folder), ignored)]

    def timestamp(self, student: str) -> datetime | None:
        """La date de remise écrite à côté de la copie ; None s'il n'y en a pas, ou si elle est illisible."""
        folder = str(self.course.path("submitted", student, self.name))
        try:
            return self.course.directory.get_existing_timestamp(folder)
        except (Exception, SystemExit):  # nbgrader arrête tout devant une date qu'il ne comprend pas
            return None

    def unreadable_timestamp(self, student: str) -> bool:
        """Vrai si `timestamp.txt` dit quelque chose qui n'est pas une date."""
        path = self.course.path("submitted", student, self.name) / "timestamp.txt"
        return path.is_file() and bool(path.read_bytes().strip()) and self.timestamp(student) is None

    def file(self, student: str) -> Path:
        """Le carnet corrigé d'un étudiant."""
        return self.course.path("autograded", student, self.name) / f"{self.name}.ipynb"

    def save(self, student: str, text: str, found: Entries) -> None:
        """Écrit le carnet corrigé, puis la base. Lève `RecordError` si l'un des deux est impossible."""
        self.write_files(student, text)
        self.write_rows(student, found)

    def write_files(self, student: str, text: str) -> None:
        """Le carnet corrigé, entier ou pas du tout, et les fichiers qui l'accompagnent."""
        path = self.file(student)
        try:
            write_atomically(path, text.encode())
            for other in path.parent.rglob("*"):
                if other.is_file() and other != path:
                    other.unlink()
            BaseConverter.init_assignment(self.converter, self.name, student)
            for file in self.extra_files:
                write_atomically(path.parent / file.relative_to(self.source_folder), file.read_bytes())
            self.converter.set_permissions(self.name, student)
        except OSError as error:
            raise RecordError(
                f"La copie corrigée de {student} ne peut pas être écrite dans {path.parent} ({error.strerror}). "
                "Libérez de la place ou rendez ce dossier inscriptible, puis relancez la même commande\u00a0: "
                "les copies déjà corrigées ne seront pas reprises."
            ) from error

    def write_rows(self, student: str, found: Entries) -> None:
        """La base seule."""
        self.write(student, found, self.timestamp(student))


def read_graded(path: Path) -> NotebookNode | None:
    """Un carnet corrigé ; None s'il est absent ou illisible."""
    try:
        return reads_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
