"""Un dossier de cours nbgrader : le préparer, l'ouvrir, y lancer les étapes de nbgrader dans ce processus."""

from __future__ import annotations

import glob
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from atelier import paths, talk
from atelier.paths import write_atomically
from grader import UserError
from grader.authoring.chapters import chapter_names, load_chapter
from grader.authoring.rules import STUB

CONFIG = "nbgrader_config.py"

CONFIG_TEXT = """\
# Dossier de cours préparé par « python -m grader init ». Lu par toutes les commandes nbgrader tapées ici, et par les
# serveurs Jupyter qui y commencent : ce qui manque est dit, et n'arrête rien d'autre que la correction.
import sys
import warnings
from pathlib import Path

c = get_config()

# Le dépôt du cours : il contient la correction (grader/) et les solutions. À changer si vous le déplacez.
RACINE = Path({root!r})

# Déjà dit ici : sans le dépôt, « autograde » échoue, au lieu d'exécuter les copies sans les enfermer.
c.Autograde.exporter_class = "grader.classroom.nbglue.TolerantExporter"
try:
    if (RACINE / "grader").is_dir():
        sys.path.insert(0, str(RACINE))
    from grader.classroom.course import configure

    configure(c, Path(__file__).resolve().parent)
except Exception as error:
    warnings.warn(
        f"La correction du cours n'est pas utilisable ({{error}}). Le dépôt du cours est-il encore dans {{RACINE}} ? "
        f"Sinon, corrigez RACINE dans {{__file__}}.",
        stacklevel=1,
    )

c.CourseDirectory.course_id = {course_id!r}
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
# Une autre base que gradebook.db (PostgreSQL, par exemple) :
# c.CourseDirectory.db_url = "postgresql+psycopg://utilisateur@machine/base"
"""

VALIDATOR_TEXTS = {
    "failed_warning": "Cellules de vérification qui échouent\u00a0: {num_failed}. "
    "Rendu ainsi, le carnet n'aura pas tous les points.\n",
    "passed_warning": "Cellules de vérification qui passent\u00a0: {num_passed}.\n",
    "changed_warning": "Cellules de vérification modifiées\u00a0: {num_changed}. "
    "Ce qui passe ici peut échouer à la correction.\n",
    "type_changed_warning": "Cellules dont le genre a changé\u00a0: {num_changed}. "
    "Ce qui passe ici peut échouer à la correction.\n",
}
"""Ce que dit le bouton Validate."""

STEPS = "nbgrader.preprocessors"
TEMPLATES = Path(__file__).resolve().parent.parent / "report" / "templates"
"""Les gabarits de nos pages."""


def configure(c: Any, folder: Path) -> None:
    """Règle nbgrader pour le cours de ce dossier ; appelé par son nbgrader_config.py.

    Les classes sont données par leur nom : seules les commandes qui corrigent chargent torch.
    """
    c.Autograde.exporter_class = "grader.classroom.nbglue.TolerantExporter"
    # Première passe : l'exporteur a déjà réparé la copie ; les sorties de l'étudiant sont gardées.
    c.Autograde.sanitize_preprocessors = [
        f"{STEPS}.OverwriteKernelspec",
        f"{STEPS}.OverwriteCells",
        f"{STEPS}.CheckCellMetadata",
    ]
    # Seconde passe : noter au lieu d'exécuter, puis tout le reste de nbgrader.
    c.Autograde.autograde_preprocessors = [
        "grader.classroom.nbglue.GradeCells",
        "grader.classroom.nbglue.SaveGrades",
        f"{STEPS}.CheckCellMetadata",
    ]
    # Un retour dit aussi ce qui sépare la note de la correction automatique.
    c.GenerateFeedback.preprocessors = [
        "grader.report.feedback.FeedbackGrades",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    c.ClearSolutions.code_stub = {"python": STUB}
    for name, text in VALIDATOR_TEXTS.items():
        c.Validator[name] = text
    # Un greffon de nbgrader (retard, export) posé à côté de nbgrader_config.py se trouve d'où que l'on tape.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    # Pour les retours seulement : formgrader a le sien. Celui d'un enseignant est dans gabarits/, sous un autre nom.
    pages = c.GenerateFeedback.HTMLExporter
    pages.template_name = "feedback"
    pages.extra_template_basedirs = [str(TEMPLATES), str(folder / "gabarits")]
    pages.filters = {"markdown2html": "atelier.export.markdown2html"}  # les formules, lisibles sans réseau


class Course:
    """Un dossier de cours ouvert."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if not (self.folder / CONFIG).is_file():
            raise UserError(
                f"{self.folder} n'est pas un dossier de cours\u00a0: il n'y a pas de {CONFIG}. "
                f"Préparez-en un avec «\u00a0python -m grader init {folder}\u00a0», ou donnez le bon avec --course."
            )
        find_alembic()
        self.reload()

    def reload(self) -> None:
        """Lit (ou relit) les réglages du cours."""
        try:
            self.config: Config = PyFileConfigLoader(CONFIG, path=str(self.folder)).load_config()
        except SystemExit as error:
            raise UserError(str(error)) from None
        self.config.CourseDirectory.root = str(self.folder)
        self.directory = CourseDirectory(config=self.config)

    @contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        with Gradebook(self.directory.db_url, self.directory.course_id) as book:
            yield book

    def path(self, step: str, student: str = "", assignment: str = "") -> Path:
        """`submitted/<étudiant>/<devoir>`, selon la disposition que nbgrader connaît."""
        directory = getattr(self.directory, f"{step}_directory")
        return Path(self.directory.format_path(directory, student or ".", assignment or "."))

    def assignments(self) -> list[str]:
        """Les devoirs inscrits dans la base."""
        with self.gradebook() as book:
            return [a.name for a in book.assignments]

    def points(self, assignment: str) -> dict[str, float]:
        """Barème d'un devoir, par exercice ou critère. Lève `UserError` s'il n'est pas inscrit."""
        with self.gradebook() as book:
            try:
                notebook = book.find_notebook(assignment, assignment)
            except MissingEntry:
                known = ", ".join(a.name for a in book.assignments) or "aucun"
                raise UserError(
                    f"Le devoir «\u00a0{assignment}\u00a0» n'est pas dans ce cours (devoirs\u00a0: {known}). "
                    f"Ajoutez-le avec «\u00a0python -m grader init {self.folder}\u00a0»."
                ) from None
            cells = (*notebook.grade_cells, *notebook.task_cells)
            return {cell.name.removeprefix("test_"): cell.max_score for cell in cells}

    def students(self, assignment: str, step: str = "submitted") -> list[str]:
        """Les étudiants qui ont un dossier pour ce devoir dans submitted/ (ou à une autre étape)."""
        pattern = self.directory.format_path(getattr(self.directory, f"{step}_directory"), "*", assignment)
        return sorted(Path(p).parent.name for p in glob.glob(pattern) if Path(p).is_dir())

    def autograde(self, assignment: str, student: str, graded: str = "") -> str:
        """L'étape « autograde » de nbgrader pour une copie. Rend "" ou, en une phrase, ce qui l'a empêchée.

        graded : son carnet déjà corrigé ; rien n'est alors exécuté (`nbglue`).
        """
        return self.run_step(Autograde, assignment, student, graded=graded)

    def generate(self, assignment: str) -> str:
        """L'étape « generate_assignment »."""
        return self.run_step(GenerateAssignment, assignment, ".")

    def run_step(self, step: type, assignment: str, student: str, **settings: Any) -> str:
        """Une étape de nbgrader, pour un étudiant ou pour tous ("*"). Rend "" ou ce qui l'a empêchée, en une phrase."""
        self.directory.assignment_id = assignment
        self.directory.student_id = student if student == "*" else glob.escape(student)
        converter = step(coursedir=self.directory, config=self.config)
        for key, value in {"force": True, **settings}.items():
            setattr(converter, key, value)
        with captured(converter.log) as log, warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # nbgrader en lève à chaque copie nouvelle, sans conséquence
            try:
                converter.start()
            except NbGraderException as error:
                return last_error(log.getvalue()) or str(error)
            except SystemExit as error:
                return str(error)
        return ""


def known_assignments(root: Path) -> list[str]:
    """Ce qui peut être un devoir : les chapitres écrits, et l'exposé."""
    return [*chapter_names(root), talk.ASSIGNMENT]


def title_of(assignment: str) -> str:
    """Le titre d'un devoir, tel qu'une page le montre."""
    return {**paths.chapter_titles(), talk.ASSIGNMENT: talk.TITLE}.get(assignment, assignment)


@contextmanager
def captured(log: logging.Logger) -> Iterator[io.StringIO]:
    """Les avertissements de nbgrader, gardés au lieu d'être affichés un par copie."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.WARNING)
    try:
        yield text
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def last_error(log: str) -> str:
    """La ligne d'un journal qui dit la cause : la dernière exception, sinon la dernière ligne."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    causes = [line for line in lines if "Error: " in line or "Exception: " in line]
    return (causes or lines or [""])[-1][:300]


def find_alembic() -> None:
    """nbgrader appelle `alembic` par son nom : le dossier de ce Python doit être dans PATH."""
    if shutil.which("alembic") is None:
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


# ---------------------------------------------------------------------------------------------- préparer


def prepare(folder: Path, only: Sequence[str] = ()) -> list[tuple[str, int, float]]:
    """Prépare (ou met à jour) un dossier de cours : tous les chapitres notés, ou ceux de `only`.

    L'exposé (`atelier.talk`), que tous ne demandent pas, se nomme.
    Rend (devoir, exercices, points) pour chacun.
    """
    root = paths.root()
    if found := [c for c in "*?[" if c in str(folder.resolve())]:
        raise UserError(f"nbgrader ne sait pas lire un chemin qui contient «\u00a0{found[0]}\u00a0»\u00a0: {folder}")
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} existe et contient autre chose qu'un cours nbgrader\u00a0: choisissez un autre dossier."
        )
    known = chapter_names(root)
    if unknown := [name for name in only if name not in known_assignments(root)]:
        raise UserError(f"Chapitre inconnu\u00a0: {', '.join(unknown)}. Chapitres écrits\u00a0: {', '.join(known)}.")
    chapters = [n for n in only or known if n == talk.ASSIGNMENT or load_chapter(n, root).exercises]
    if not chapters:
        raise UserError("Aucun de ces chapitres n'a d'exercice à noter.")
    sources = {name: given_notebook(name, root) for name in chapters}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        text = CONFIG_TEXT.format(root=str(root), course_id=folder.resolve().name)
        write_atomically(folder / CONFIG, text.encode())
    course = Course(folder)
    done = []
    for name, notebook in sources.items():
        write_source(name, notebook, course.path("source", assignment=name))
        if problem := course.generate(name):
            raise UserError(
                f"nbgrader n'a pas pu préparer {name}\u00a0: {problem}\n"
                "Si des copies sont déjà corrigées, ses exercices ne peuvent plus être ajoutés ni retirés."
            )
        points = course.points(name)
        done.append((name, len(points), sum(points.values())))
    return done


def given_notebook(name: str, root: Path) -> NotebookNode:
    """La version de l'enseignant d'un devoir : le carnet résolu d'un chapitre, ou l'exposé, vide.

    Lève `UserError` si les carnets du chapitre ne sont pas construits.
    """
    if name == talk.ASSIGNMENT:
        return nbformat.from_dict(talk.template(talk.TITLE))
    for path in (root / "solutions" / name / f"{name}.ipynb", root / "notebooks" / f"{name}.ipynb"):
        if not path.is_file():
            raise UserError(
                f"Il manque {path.relative_to(root)}\u00a0: lancez d'abord «\u00a0python -m grader build\u00a0»."
            )
    return nbformat.read(root / "solutions" / name / f"{name}.ipynb", as_version=4)


def write_source(name: str, notebook: NotebookNode, folder: Path) -> None:
    """Écrit ce carnet, sans ses sorties, là où nbgrader cherche la version de l'enseignant."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
