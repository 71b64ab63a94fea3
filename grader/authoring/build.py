"""`python -m grader build` : d'un chapitre écrit dans solutions/ à ses trois produits.

- `notebooks/<chapitre>.ipynb`, que l'étudiant ouvre : solutions remplacées par une phrase, sorties effacées ;
- `solutions/<chapitre>/<chapitre>.ipynb`, résolu, et exécuté avec `--execute` : c'est aussi, avec ses marques BEGIN et
  END SOLUTION, ses points et ses cellules verrouillées, le carnet « source » que nbgrader attend ;
- `assets/packs/<chapitre>.json` et `.safetensors`, que lit `check`.

Tout est déterministe, identifiants de cellules compris ; un fichier n'est écrit que si son contenu change.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from atelier import paths
from atelier.text import number, plural
from grader import UserError
from grader.authoring import bootstrap
from grader.authoring.chapters import Cell, Chapter, ChapterError, Problem, chapter_names, load_chapter
from grader.authoring.claims import check_claims
from grader.authoring.rules import check_shared_lines, check_structure, strip_solutions
from grader.cli import FrenchParser

CELL_SECONDS = 600
"""Temps laissé à une cellule du carnet résolu."""
GOES_ON = "raises-exception"
"""Étiquette que JupyterLab et nbclient connaissent : une erreur de cette cellule n'arrête pas les suivantes."""


@dataclass
class Products:
    """Ce que la construction d'un chapitre a donné. Avec des erreurs, seul `chapter` l'est aussi."""

    name: str
    problems: list[Problem]
    chapter: Chapter | None = None
    student: NotebookNode | None = None
    solved: NotebookNode | None = None
    pack: tuple[str, bytes] = ("", b"")
    points: float = 0
    bonus: float = 0
    exercises: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    """Identifiant de cellule → ligne de chapter.py, pour situer une erreur d'exécution."""

    @property
    def errors(self) -> list[Problem]:
        return [p for p in self.problems if not p.warning]


def main(argv: list[str]) -> int:
    parser = FrenchParser(
        "python -m grader build",
        "Construit les carnets et les paquets des chapitres (tous, si aucun n'est nommé).",
    )
    parser.add_argument("chapters", nargs="*", metavar="CHAPITRE", help="par exemple ch3_quantification")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--execute", action="store_true", help="exécuter aussi le carnet résolu, et garder ses sorties")
    parser.add_argument(
        "--cells",
        nargs="+",
        default=[],
        metavar="CELLULE",
        help="avec --execute : celles-là et ce qu'il leur faut (nom d'exercice ou d'expérience, ligne de chapter.py)",
    )
    mode.add_argument("--check", action="store_true", help="ne rien écrire : dire si les fichiers archivés sont à jour")
    options = parser.parse_args(argv)
    if options.cells and (not options.execute or len(options.chapters) != 1):
        raise UserError("--cells va avec --execute et un seul chapitre : build --execute CHAPITRE --cells CELLULE…")
    root = paths.root()
    known = declared_chapters(root)
    names = options.chapters or known
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"Chapitre inconnu : {', '.join(unknown)}. Chapitres écrits : {', '.join(known) or 'aucun'}.")
    built = [build_chapter(name, root) for name in names]
    sound = [products for products in built if not products.errors]
    errors = [problem for products in built for problem in products.errors]
    errors += check_shared_lines([products.chapter for products in sound if products.chapter], root)
    stale: list[str] = []
    for products in sound:
        if options.check:
            stale += differences(products, root)
        else:
            errors += write(products, root, options.execute, options.cells)
            print(summary(products, root))
    for line in [*stale, *sorted(str(p) for products in built for p in products.problems if p.warning)]:
        print(line)
    if errors:
        raise ChapterError(errors)
    if options.check:
        print("Reconstruisez : python -m grader build" if stale else "Les fichiers construits sont à jour.")
    return 1 if stale else 0


def declared_chapters(root: Path) -> list[str]:
    """Les chapitres écrits. Lève `ChapterError` si l'un d'eux n'est pas dans course.toml."""
    known = chapter_names(root)
    strays = sorted(p.parent.name for p in (root / "solutions").glob("*/chapter.py") if p.parent.name not in known)
    if strays:
        message = "ce chapitre n'est pas dans course.toml : ajoutez-le, à sa place dans le cours."
        raise ChapterError([Problem(f"solutions/{name}/chapter.py", 0, "", message) for name in strays])
    return known


def build_chapter(name: str, root: Path) -> Products:
    """Lit, vérifie et construit un chapitre en mémoire. Les défauts sont rendus, jamais levés."""
    from grader.authoring import packing

    try:
        chapter = load_chapter(name, root)
    except ChapterError as error:
        return Products(name, error.problems)
    products = Products(name, [*check_structure(chapter), *check_claims(chapter, root)], chapter)
    cases, found = packing.build_cases(chapter)
    already = {(p.cell, p.line) for p in products.problems}
    products.problems += [p for p in found if not p.line or (p.cell, p.line) not in already]
    if products.errors:
        return products
    products.pack = packing.render_pack(chapter, cases)
    if (size := sum(map(len, products.pack))) > packing.MAX_BYTES:
        heaviest = max(cases, key=lambda id: sum(map(len, packing.render_pack(chapter, {id: cases[id]}))))
        message = f"le paquet pèse {size // 1000} ko (limite {packing.MAX_BYTES // 1000}) : c'est ici le plus lourd."
        products.problems.append(chapter.problem(heaviest, message))
        return products
    products.solved, products.lines = source_notebook(chapter)
    products.student = student_notebook(products.solved)
    products.exercises = len(cases)
    products.points = sum(chapter.exercises[id].required for id in cases)
    products.bonus = sum(chapter.exercises[id].bonus for id in cases)
    return products


# --- Les deux carnets ------------------------------------------------------------------------------------------------


def source_notebook(chapter: Chapter) -> tuple[NotebookNode, dict[str, int]]:
    """Le carnet résolu, sans sorties, et la ligne de chapter.py d'où vient chaque cellule."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
            "lang": "fr",
            "title": chapter.title,
        }
    )
    notebook.metadata |= nbformat.from_dict(bootstrap.COLAB)
    course = paths.read_course(chapter.folder.parent.parent)
    lines: dict[str, int] = {}
    ranks: Counter[str] = Counter()

    def add(kind: str, source: str, id: str, line: int, **metadata: Any) -> None:
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        notebook.cells.append(make(source, id=id, metadata=nbformat.from_dict(metadata)))
        lines[id] = line

    for cell in chapter.cells:
        metadata = {"tags": list(cell.tags)} if cell.tags else {}
        if cell.kind == "exercise":
            points = chapter.exercises[cell.id].required
            add("code", cell.source, cell.id, cell.line, nbgrader=_grading(cell.id, solution=True), **metadata)
            test = _grading(f"test_{cell.id}", grade=True, locked=True, points=points)
            # « Exécuter tout » passe outre un exercice qui reste à écrire.
            add("code", f"check({cell.id})", f"test_{cell.id}", cell.line, nbgrader=test, tags=[GOES_ON])
        elif cell.kind == "experiment":
            add("code", cell.source, cell.id, cell.line, **metadata)
        else:
            add(cell.kind, cell.source, _cell_id(chapter.name, cell, ranks), cell.line, **metadata)
        if len(notebook.cells) == 1:  # après le titre
            link = bootstrap.badge(course, chapter.name)
            notebook.cells[0].source += f"\n\n{link}" if link else ""
            add("code", bootstrap.first_cell(course), bootstrap.ID, cell.line)
    return notebook, lines


def student_notebook(source: NotebookNode) -> NotebookNode:
    """Ce que `nbgrader generate_assignment` tire du carnet source, au caractère près (un test le vérifie)."""
    from nbgrader.utils import compute_checksum

    notebook = nbformat.from_dict(source)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        grading = cell.metadata.get("nbgrader")
        if grading is None:
            continue
        cell.source = strip_solutions(cell.source)
        cell.metadata.deletable = False
        if grading.grade:
            cell.metadata.editable = False
        grading.checksum = compute_checksum(cell)
        grading.cell_type = cell.cell_type
    return notebook


def _grading(grade_id: str, **given: Any) -> dict[str, Any]:
    """Métadonnées nbgrader d'une cellule (schéma 3)."""
    plain = {"grade": False, "locked": False, "schema_version": 3, "solution": False, "task": False}
    return plain | {"grade_id": grade_id} | given


def _cell_id(chapter: str, cell: Cell, ranks: Counter[str]) -> str:
    """Identifiant stable : une empreinte du texte, et son rang parmi les cellules de même texte."""
    text = f"{chapter}\n{cell.kind}\n{cell.source}"
    ranks[text] += 1
    return hashlib.sha256(f"{text}\n{ranks[text]}".encode()).hexdigest()[:12]


# --- Écrire, exécuter, comparer --------------------------------------------------------------------------------------


def write(products: Products, root: Path, execute: bool, cells: Sequence[str] = ()) -> list[Problem]:
    """Écrit ce qui a changé, et rend les erreurs de l'exécution s'il y en a eu. cells : n'exécuter que celles-là."""
    student, solved, pack_json, pack_tensors = product_paths(products.name, root)
    assert products.student is not None and products.solved is not None
    problems: list[Problem] = []
    if _pack_difference(products, root):
        _write_if_changed(pack_json, products.pack[0].encode())
        _write_if_changed(pack_tensors, products.pack[1])
    _write_if_changed(student, _notebook_bytes(products.student))
    if cells or not execute:
        _keep_outputs(solved, products.solved)
    if execute:
        problems = _execute(products, root, cells)
    if not problems:
        _number(products.solved)
        _write_if_changed(solved, _notebook_bytes(products.solved))
    return problems


def product_paths(name: str, root: Path) -> tuple[Path, Path, Path, Path]:
    """Carnet de l'étudiant, carnet résolu, paquet (JSON, safetensors)."""
    pack = root / "assets" / "packs" / name
    solved = root / "solutions" / name / f"{name}.ipynb"
    return root / "notebooks" / f"{name}.ipynb", solved, pack.with_suffix(".json"), pack.with_suffix(".safetensors")


def differences(products: Products, root: Path) -> list[str]:
    """Ce qui diffère entre les fichiers archivés et ce que l'on vient de construire, sorties mises à part."""
    student, solved, pack_json, _ = product_paths(products.name, root)
    found: list[str] = []
    for path, expected in ((student, products.student), (solved, products.solved)):
        found += [f"{path.relative_to(root).as_posix()} : {what}" for what in _notebook_differences(path, expected)]
    if place := _pack_difference(products, root):
        name = pack_json.with_suffix("").relative_to(root).as_posix()
        found.append(f"{name}.* : le paquet n'est pas à jour ({place}).")
    return found


def summary(products: Products, root: Path) -> str:
    """« notebooks/ch3_quantification.ipynb : 61 cellules, 11 exercices, 24 points ; paquet 210 ko ».

    Suivi, s'il y en a, du nombre de cellules du carnet résolu qui attendent d'être exécutées.
    """
    assert products.student is not None and products.solved is not None
    student, *_ = product_paths(products.name, root)
    size = max(1, round(sum(map(len, products.pack)) / 1000))
    bonus = f" et {number(products.bonus)} de bonus" if products.bonus else ""
    line = (
        f"{student.relative_to(root).as_posix()} : {plural(len(products.student.cells), 'cellule')}, "
        f"{plural(products.exercises, 'exercice')}, {plural(products.points, 'point')}{bonus} ; paquet {size} ko"
    )
    code = [c for c in products.solved.cells if c.cell_type == "code" and c.id != bootstrap.ID]
    waiting = sum(cell.execution_count is None for cell in code)
    if waiting:
        line += f"\n  {plural(waiting, 'cellule')} du carnet résolu sans sortie : ajoutez --execute."
    return line


def _pack_difference(products: Products, root: Path) -> str:
    from grader.authoring import packing

    *_, pack_json, pack_tensors = product_paths(products.name, root)
    return packing.pack_difference(pack_json, pack_tensors, *products.pack)


def _notebook_differences(path: Path, expected: NotebookNode | None) -> list[str]:
    assert expected is not None
    if not path.is_file():
        return ["ce fichier n'a pas été construit."]
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        old_cells = [_without_outputs(cell) for cell in old.pop("cells")]
    except (ValueError, LookupError, AttributeError, TypeError):
        return ["ce fichier n'est pas un carnet lisible."]
    new = json.loads(nbformat.writes(expected))
    new_cells = [_without_outputs(cell) for cell in new.pop("cells")]
    if old_cells == new_cells:
        return [] if old == new else ["les métadonnées du carnet diffèrent."]
    if [c.get("id") for c in old_cells] == [c.get("id") for c in new_cells]:
        names = [c["id"] for c, d in zip(new_cells, old_cells, strict=True) if c != d]
        return [f"cellules différentes : {', '.join(names)}."]
    added = len({c.get("id") for c in new_cells} - {c.get("id") for c in old_cells})
    removed = len({c.get("id") for c in old_cells} - {c.get("id") for c in new_cells})
    return [f"{plural(added, 'cellule')} à ajouter, {plural(removed, 'cellule')} à retirer (ou un autre ordre)."]


def _without_outputs(cell: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in cell.items() if k not in ("outputs", "execution_count")}


def _keep_outputs(path: Path, notebook: NotebookNode) -> None:
    """Reprend du carnet déjà exécuté les sorties des cellules dont le texte n'a pas changé."""
    try:
        old = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return
    executed = {(c.get("id"), c.source): c for c in old.cells if c.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and (before := executed.get((cell.id, cell.source))):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count


def _number(notebook: NotebookNode) -> None:
    """Numérote les cellules exécutées de haut en bas, même si elles l'ont été en plusieurs fois.

    La première, qui n'affiche rien et ne laisse rien, compte avec les autres.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    executed = [cell for cell in code if cell.execution_count or cell.id == bootstrap.ID]
    for rank, cell in enumerate(executed if len(executed) > 1 else (), 1):
        cell.execution_count = rank


def _asked(products: Products, root: Path, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Les cellules du carnet que désignent ces noms ou ces lignes, et celles qu'il faut exécuter pour les avoir."""
    from grader.authoring.recording import needed, read_names

    def is_named(cell: Cell, name: str) -> bool:
        if name.isdigit():
            return cell.line <= int(name) <= cell.line + cell.source.count("\n")
        return cell.id == name or (cell.kind == "code" and name in read_names(cell))

    chapter = load_chapter(products.name, root)
    wanted: set[int] = set()
    for name in names:
        found = {cell.line for cell in chapter.cells if cell.kind != "markdown" and is_named(cell, name)}
        if not found:
            raise UserError(f"Aucune cellule de code de {chapter.file} ne porte ce nom ni cette ligne : {name}.")
        wanted |= found
    run = {cell.line for cell in needed(chapter, lambda cell: cell.line in wanted, ["check"])}
    shown, executed = ({id for id, line in products.lines.items() if line in kept} for kept in (wanted, run))
    others = {f"test_{id}" for id in chapter.exercises} - shown  # un check que l'on ne montre pas ne sert à personne
    return shown, executed - others


def _execute(products: Products, root: Path, cells: Sequence[str] = ()) -> list[Problem]:
    """Exécute le carnet résolu (ou `cells`, et ce qu'il leur faut), dans un dossier neuf, et y met ses sorties."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    assert products.solved is not None
    running = nbformat.from_dict(products.solved)
    for cell in running.cells:  # dans un carnet résolu, un check qui échoue est une faute
        cell.metadata.pop("tags", None)
    shown = {cell.id for cell in running.cells}
    if cells:
        shown, executed = _asked(products, root, cells)
        running.cells = [cell for cell in running.cells if cell.id in executed]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cours-") as scratch:
        folder = Path(scratch, "notebooks")
        folder.mkdir()
        environment = {
            **os.environ,
            "COURS_ENREGISTRER": "1",
            "COURS_RACINE": str(root),
            "COURS_ETAT": str(Path(scratch, "etat")),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH")))),
        }
        client = NotebookClient(
            running,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return [_failure(products, running, error)]
    code = [cell for cell in running.cells if cell.cell_type == "code"]
    results = {cell.id: cell for cell in code if cell.id in shown or not cell.outputs}
    for cell in products.solved.cells:
        if result := results.get(cell.id):
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
    seconds = number(time.perf_counter() - start, decimals=1)
    print(f"solutions/{products.name}/{products.name}.ipynb : exécuté en {seconds} s")
    return []


def _failure(products: Products, running: NotebookNode, error: Exception) -> Problem:
    """L'erreur d'exécution, située dans chapter.py."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    begun = [c for c in running.cells if c.cell_type == "code" and c.execution_count is not None]
    failed = begun[-1] if begun else running.cells[0]
    if isinstance(error, CellTimeoutError):
        reason = f"plus de {CELL_SECONDS} s"
    elif isinstance(error, CellExecutionError):
        reason = f"{error.ename} : {error.evalue}"
    else:
        reason = "le noyau est mort, peut-être faute de mémoire"
    message = f"l'exécution du carnet résolu s'arrête ici : {reason}"
    return Problem(f"solutions/{products.name}/chapter.py", products.lines.get(failed.id, 0), failed.id, message)


def _notebook_bytes(notebook: NotebookNode) -> bytes:
    nbformat.validate(notebook)
    text: Callable[[NotebookNode], str] = nbformat.writes
    return (text(notebook).rstrip("\n") + "\n").encode()


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        paths.write_atomically(path, content)
