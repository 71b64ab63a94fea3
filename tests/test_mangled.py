"""Des copies abîmées de toutes les façons : chacune a une note ou une raison, et les honnêtes ont la leur."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from essai import NAME, SOLVED, as_bytes, build_root, cell_of, course_root, filled, load_assignment, results_in
from nbformat import NotebookNode

from grader.classroom.course import Course, prepare
from grader.classroom.marking import Marked, mark
from grader.classroom.submission import Template

FULL = {"scale_up": 2.0, "count_true": 1.0, "spread": 3.0}
LOST = FULL | {"spread": 0.0}
NOTHING = dict.fromkeys(FULL, 0.0)


def index_of(notebook: NotebookNode, grade_id: str) -> int:
    return notebook.cells.index(cell_of(notebook, grade_id))


def deleted(nb: NotebookNode) -> NotebookNode:
    del nb.cells[index_of(nb, "spread")]
    return nb


def deleted_test_cell(nb: NotebookNode) -> NotebookNode:
    del nb.cells[index_of(nb, "test_spread")]
    return nb


def everything_deleted_but_the_answers(nb: NotebookNode) -> NotebookNode:
    nb.cells = [c for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")]
    return nb


def duplicated(nb: NotebookNode) -> NotebookNode:
    nb.cells.append(nbformat.from_dict(json.loads(json.dumps(cell_of(nb, "spread")))))
    return nb


def duplicated_as_draft(nb: NotebookNode) -> NotebookNode:
    """Copier-coller de la cellule pour un brouillon : la copie garde l'identifiant mais définit autre chose."""
    draft = nbformat.from_dict(json.loads(json.dumps(cell_of(nb, "spread"))))
    draft.source = "essai = 3"
    nb.cells.append(draft)
    return nb


def duplicated_stub(nb: NotebookNode) -> NotebookNode:
    """La réponse d'abord, puis l'énoncé recollé dessous : c'est la réponse qui compte."""
    stub = nbformat.from_dict(json.loads(json.dumps(cell_of(TEMPLATE.blank(), "spread"))))
    nb.cells.append(stub)
    return nb


def moved(nb: NotebookNode) -> NotebookNode:
    nb.cells = nb.cells[::-1]
    return nb


def retyped_as_markdown(nb: NotebookNode) -> NotebookNode:
    cell = cell_of(nb, "spread")
    new = nbformat.v4.new_markdown_cell(cell.source, metadata=cell.metadata)
    nb.cells[index_of(nb, "spread")] = new
    return nb


def metadata_stripped(nb: NotebookNode) -> NotebookNode:
    for cell in nb.cells:
        cell.metadata = {}
    nb.metadata = {}
    return nb


def metadata_hostile(nb: NotebookNode) -> NotebookNode:
    for cell in nb.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata["nbgrader"] |= {"points": 1000, "schema_version": 99, "locked": "oui", "grade": "peut-être"}
    nb.metadata["atelier"] = {"results": [{"exercise": "spread", "score": 99}], "refused": "", "notes": 3}
    return nb


def forged_test_cell(nb: NotebookNode) -> NotebookNode:
    cell = cell_of(nb, "test_spread")
    cell.source = "99"
    cell.outputs = [nbformat.v4.new_output("execute_result", data={"text/plain": "99"}, execution_count=1)]
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    return nb


def other_kernel(nb: NotebookNode) -> NotebookNode:
    nb.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    nb.metadata["language_info"] = {"name": "R"}
    return nb


def fifty_megabytes_of_output(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").outputs = [nbformat.v4.new_output("stream", text="a" * 79 + "\n") for _ in range(10)] + [
        nbformat.v4.new_output("stream", text=("b" * 79 + "\n") * 650_000)
    ]
    return nb


def raises_at_top_level(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "class Oups:\n    1 / 0\n\n" + SOLVED["spread"]
    return nb


def import_that_does_not_exist(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "import module_qui_n_existe_pas\n" + SOLVED["spread"]
    return nb


def added_cells_that_break(nb: NotebookNode) -> NotebookNode:
    for source in ("1 / 0", "import os\nos._exit(1)", "!!!", "raise SystemExit"):
        nb.cells.insert(1, nbformat.v4.new_code_cell(source))
    return nb


def html_outputs(nb: NotebookNode) -> NotebookNode:
    data = {"text/html": "<script>alert(1)</script>", "text/plain": "<b>gras</b>", "image/svg+xml": "<svg/>"}
    cell_of(nb, "spread").outputs = [nbformat.v4.new_output("display_data", data=data)]
    return nb


def identity(nb: NotebookNode) -> NotebookNode:
    return nb


def dumped(nb: NotebookNode) -> bytes:
    return as_bytes(nb)


def format_3(nb: NotebookNode) -> bytes:
    return nbformat.writes(nb, version=3).encode()


def format_4_0(nb: NotebookNode) -> bytes:
    tree = json.loads(as_bytes(nb))
    tree["nbformat_minor"] = 0
    for cell in tree["cells"]:
        cell.pop("id", None)
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(tree).encode()


def utf_16(nb: NotebookNode) -> bytes:
    return as_bytes(nb).decode().encode("utf-16")


def with_mark_and_cr(nb: NotebookNode) -> bytes:
    return "\ufeff".encode() + json.dumps(nb, indent=1).replace("\n", "\r\n").encode()


def latin_1(nb: NotebookNode) -> bytes:
    return json.dumps(nb, ensure_ascii=False).encode("cp1252", errors="xmlcharrefreplace")


def cut(nb: NotebookNode) -> bytes:
    return as_bytes(nb)[:-400]


def empty(nb: NotebookNode) -> bytes:
    return b""


def not_a_notebook(nb: NotebookNode) -> bytes:
    return b'{"titre": "une recette de cuisine"}'


def a_list(nb: NotebookNode) -> bytes:
    return b"[" * 100_000


def another_notebook(nb: NotebookNode) -> bytes:
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('autre cours')")])
    return as_bytes(other)


def nulls(nb: NotebookNode) -> bytes:
    return b"\0" * 5000


# nom → (abîmer le carnet, en faire des octets, notes attendues, verdict attendu de spread)
MANGLED: dict[str, tuple[Callable, Callable, dict[str, float], str]] = {
    "honnete-1": (identity, dumped, FULL, "correct"),
    "cellule-supprimee": (deleted, dumped, LOST, "missing"),
    "verification-supprimee": (deleted_test_cell, dumped, FULL, "correct"),
    "reponses-seules": (everything_deleted_but_the_answers, dumped, FULL, "correct"),
    "cellule-dupliquee": (duplicated, dumped, FULL, "correct"),
    "brouillon-duplique": (duplicated_as_draft, dumped, FULL, "correct"),
    "enonce-recolle": (duplicated_stub, dumped, FULL, "correct"),
    "cellules-deplacees": (moved, dumped, FULL, "correct"),
    "devenue-texte": (retyped_as_markdown, dumped, LOST, "missing"),
    "sans-metadonnees": (metadata_stripped, dumped, FULL, "correct"),
    "metadonnees-folles": (metadata_hostile, dumped, FULL, "correct"),
    "verification-forgee": (forged_test_cell, dumped, LOST, "misconception"),
    "autre-noyau": (other_kernel, dumped, FULL, "correct"),
    "sorties-50-mo": (fifty_megabytes_of_output, dumped, FULL, "correct"),
    "classe-qui-leve": (raises_at_top_level, dumped, FULL, "correct"),
    "import-inexistant": (import_that_does_not_exist, dumped, FULL, "correct"),
    "cellules-ajoutees": (added_cells_that_break, dumped, FULL, "correct"),
    "sorties-html": (html_outputs, dumped, FULL, "correct"),
    "format-3": (identity, format_3, FULL, "correct"),
    "format-4-0": (identity, format_4_0, FULL, "correct"),
    "utf-16": (identity, utf_16, FULL, "correct"),
    "marque-et-retours-chariot": (identity, with_mark_and_cr, FULL, "correct"),
    "latin-1": (identity, latin_1, FULL, "correct"),
    "json-coupe": (identity, cut, NOTHING, "refused"),
    "fichier-vide": (identity, empty, NOTHING, "refused"),
    "pas-un-carnet": (identity, not_a_notebook, NOTHING, "refused"),
    "imbrique-sans-fin": (identity, a_list, NOTHING, "refused"),
    "autre-carnet": (identity, another_notebook, NOTHING, "refused"),
    "octets-nuls": (identity, nulls, NOTHING, "refused"),
    "honnete-2": (identity, dumped, FULL, "correct"),
}

TEMPLATE: Template


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory):
    """Toutes les copies abîmées, corrigées ensemble dans un même cours."""
    global TEMPLATE
    root = build_root(tmp_path_factory.mktemp("racine"))
    folder = tmp_path_factory.mktemp("cours") / "cours"
    with course_root(root):
        prepare(folder)
        TEMPLATE = load_assignment(root).template
        course = Course(folder)
        for student, (change, render, _, _) in MANGLED.items():
            path = course.path("submitted", student, NAME) / f"{NAME}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_bytes(render(change(filled(TEMPLATE, SOLVED))))
        renamed = course.path("submitted", "fichier-renomme", NAME)
        renamed.mkdir(parents=True)
        (renamed / "tp1 (1).ipynb").write_bytes(as_bytes(filled(TEMPLATE, SOLVED)))
        nothing = course.path("submitted", "sans-carnet", NAME)
        nothing.mkdir(parents=True)
        (nothing / "rapport.pdf").write_bytes(b"%PDF")
        linked = course.path("submitted", "lien", NAME)
        linked.mkdir(parents=True)
        (linked / f"{NAME}.ipynb").symlink_to(course.path("submitted", "honnete-1", NAME) / f"{NAME}.ipynb")
        before = {p: p.read_bytes() for p in (folder / "submitted").rglob("*.ipynb")}
        marked = mark(course, NAME)
        touched = [p for p, data in before.items() if p.read_bytes() != data]
        yield course, marked, touched


def scores(marked: Marked, student: str) -> dict[str, float]:
    return {r.exercise: r.score for r in marked.results[student]}


def verdict(marked: Marked, student: str, exercise: str = "spread") -> str:
    return next(r.verdict for r in marked.results[student] if r.exercise == exercise)


@pytest.mark.parametrize("student", MANGLED)
def test_each_has_its_mark_or_a_named_reason(batch, student):
    _, marked, _ = batch
    _, _, expected, spread = MANGLED[student]
    assert (scores(marked, student), verdict(marked, student)) == (expected, spread), marked.remarks.get(student)
    if spread == "refused":
        reasons = {r.message for r in marked.results[student]}
        assert len(reasons) == 1 and len(reasons.pop()) > 30
        assert any("refusée" in text for text in marked.remarks[student])


def test_there_are_enough_of_them():
    assert len(MANGLED) - 2 + 3 >= 20


def test_a_renamed_file_is_graded_and_said(batch):
    _, marked, _ = batch
    assert scores(marked, "fichier-renomme") == FULL
    assert any("tp1 (1).ipynb" in text for text in marked.remarks["fichier-renomme"])


def test_a_folder_without_notebook_and_a_link_are_refused(batch):
    _, marked, _ = batch
    for student, word in (("sans-carnet", "rapport.pdf"), ("lien", "fichier ordinaire")):
        assert verdict(marked, student) == "refused" and scores(marked, student) == NOTHING
        assert word in marked.results[student][0].message


def test_what_was_repaired_is_said(batch):
    _, marked, _ = batch
    for student, word in {
        "cellule-supprimee": "n'était plus dans la copie",
        "devenue-texte": "n'était plus une cellule de code",
        "sans-metadonnees": "avait perdu son identifiant",
        "classe-qui-leve": "ligne 1, «\u00a0class Oups:\u00a0», n'a pas été exécutée (ZeroDivisionError",
        "import-inexistant": "ligne 1, «\u00a0import module_qui_n_existe_pas\u00a0», n'a pas été exécutée",
        "enonce-recolle": "plusieurs cellules",
    }.items():
        assert any(word in text for text in marked.remarks[student]), student
        assert any(word in r.feedback for r in marked.results[student]), student


def test_nbgrader_alone_says_it_too(batch):
    course, _, _ = batch
    student = "import-inexistant"
    path = Path(course.path("autograded", student, NAME)) / f"{NAME}.ipynb"
    before = nbformat.read(path, as_version=4).metadata["atelier"]["notes"]
    assert course.autograde(NAME, student) == ""
    after = nbformat.read(path, as_version=4).metadata["atelier"]
    assert after["notes"] == before and "module_qui_n_existe_pas" in str(before)


def test_nothing_submitted_is_touched(batch):
    assert batch[2] == []


def test_the_gradebook_says_the_same_for_everyone(batch):
    course, marked, _ = batch
    assert marked.unsaved == []
    with course.gradebook() as book:
        for student in [*MANGLED, "fichier-renomme", "sans-carnet", "lien"]:
            submission = book.find_submission_notebook(NAME, NAME, student)
            grades = {g.name.removeprefix("test_"): g.score for g in submission.grades}
            assert grades == scores(marked, student), student
            assert not submission.needs_manual_grade
            assert submission.max_score == 6


def test_every_graded_notebook_is_valid_small_and_without_script(batch):
    course, marked, _ = batch
    for student in marked.results:
        path = Path(course.path("autograded", student, NAME)) / f"{NAME}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert path.stat().st_size < 1_000_000
        assert [r.exercise for r in results_in(path)] == list(FULL)
        assert "<script" not in path.read_text() and "text/html" not in path.read_text()


def test_what_the_student_printed_is_kept_within_reason(batch):
    course, _, _ = batch
    path = course.path("autograded", "sorties-50-mo", NAME) / f"{NAME}.ipynb"
    outputs = cell_of(nbformat.read(path, as_version=4), "spread").outputs
    assert outputs[0].text.startswith("aaa") and "coupée" in outputs[-1].text
