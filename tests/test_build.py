"""Construire un chapitre : lecture, carnets, paquet, `--check`, `--execute`."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT, plain
from safetensors.torch import load, save
from scratch_chapter import (
    CHAPTER,
    NAME,
    course_fixture,  # noqa: F401
    edit,
    products,
    run,
    sources,
)

from grader.authoring import build, packing
from grader.authoring.chapters import chapter_names, load_chapter
from grader.authoring.rules import STUB

# --- Lire ------------------------------------------------------------------------------------------------------------


def test_cells_are_read_with_their_kind_and_line(course: Path) -> None:
    chapter = load_chapter(NAME, course)
    asked = ["markdown", "setup", "markdown", "quiz", "markdown"]
    kinds = [*asked, "markdown", "exercise", "code", "markdown", "exercise", "code"]
    assert [cell.kind for cell in chapter.cells] == kinds
    assert plain(chapter.cells[5].source) == "### ✎ Exercice : `double` · 1,5 point · 5 minutes"
    assert chapter.title == "Chapitre 3 · Quantification"
    assert [cell.id for cell in chapter.cells if cell.id] == ["steps", "double", "Shift"]
    assert chapter.cells[1].tags == ("setup",)
    assert [cell.source for cell in chapter.cells[2:5]] == ["Une question.", 'quiz("steps")', "La suite."]
    lines = CHAPTER.splitlines()
    for cell in chapter.cells:
        first = f'??? q="{cell.id}"' if cell.kind == "quiz" else cell.source.splitlines()[0]
        assert first in lines[cell.line - 1] or "✎" in lines[cell.line - 1]


def test_reference_runs_setup_and_exercises_but_no_demonstration(course: Path) -> None:
    chapter = load_chapter(NAME, course)
    assert torch.equal(chapter.reference("double")(torch.ones(2), 3), torch.full((2,), 3.0))
    assert chapter.reference("double") is chapter.reference("double")
    assert "demonstration_was_run" not in chapter.namespace
    assert inspect.getsource(chapter.reference("double")).rstrip() == chapter.sources["double"]
    assert inspect.getsource(chapter.reference("Shift")).rstrip() == chapter.sources["Shift"]


def test_misconceptions_are_the_reference_with_a_replacement_or_a_function(course: Path) -> None:
    chapter = load_chapter(NAME, course)
    x = torch.ones(2)
    assert torch.equal(chapter.wrong("double", "adds")(x, 3), torch.full((2,), 4.0))
    assert torch.equal(chapter.wrong("double", "always_two")(x, 3), torch.full((2,), 2.0))
    assert torch.equal(chapter.wrong("Shift", "minus")(2)(x), torch.zeros(2))
    assert torch.equal(chapter.reference("double")(x, 3), torch.full((2,), 3.0))
    assert "x + times" in inspect.getsource(chapter.wrong("double", "adds"))


def test_a_misconception_of_one_exercise_leaves_the_others_alone(course: Path) -> None:
    edit(course, "chapter.py", ("        return x + self.amount", "        return double(x, 1) + self.amount"))
    edit(course, "exercises/Shift.py", ("x - self.amount", "double(x, 1) - self.amount"))
    chapter = load_chapter(NAME, course)
    chapter.wrong("double", "adds")
    assert torch.equal(chapter.reference("Shift")(2)(torch.ones(2)), torch.full((2,), 2.0))


def test_signatures_of_functions_and_classes(course: Path) -> None:
    chapter = load_chapter(NAME, course)
    assert chapter.signature("double") == "double(x, times=2)"
    assert chapter.signature("Shift") == "Shift(size, amount=1.0)"


def test_chapter_names_follow_the_course_and_keep_what_is_written(course: Path) -> None:
    toml = '[[chapters]]\nname = "ch4_distillation"\n[[chapters]]\nname = "ch3_quantification"\n'
    (course / "course.toml").write_text(toml, encoding="utf-8")
    assert chapter_names(course) == [NAME]


# --- Les carnets -----------------------------------------------------------------------------------------------------


def test_student_notebook_has_stubs_and_no_solution(course: Path) -> None:
    student = products(course).student
    text = nbformat.writes(student)
    assert "SOLUTION" not in text and "scaled_copy = x" not in text and "self.amount" not in text
    stub = sources(student)["double"]
    assert '"""Le tenseur x multiplié par times.' in stub and f"    {STUB}\n    return scaled_copy" in stub
    namespace: dict = {}
    exec("import torch\n" + stub, namespace)
    with pytest.raises(NotImplementedError, match="reste à écrire"):
        namespace["double"](torch.ones(1))
    assert sources(student)["Shift"].count(STUB) == 2


def test_check_cell_follows_its_exercise_and_is_locked(course: Path) -> None:
    cells = products(course).student.cells
    ids = [cell.id for cell in cells]
    for id, points in (("double", 1.5), ("Shift", 2)):
        test = cells[ids.index(id) + 1]
        assert test.id == f"test_{id}" and test.source == f"check({id})"
        assert test.metadata.tags == ["raises-exception"], "« Exécuter tout » doit passer outre un exercice non fait"
        assert test.metadata.nbgrader.points == points
        assert test.metadata.editable is False and test.metadata.deletable is False
        assert cells[ids.index(id)].metadata.deletable is False
        assert "editable" not in cells[ids.index(id)].metadata
    plain = [cell for cell in cells if "nbgrader" not in cell.metadata]
    assert [dict(cell.metadata) for cell in plain if cell.metadata] == [{"tags": ["setup"]}]


@pytest.mark.parametrize(
    ("published", "link", "installed"),
    [
        ("", False, None),
        ('repository = "https://github.com/ecole/cours"\n', True, "git+https://github.com/ecole/cours"),
        ('repository = "https://forge.ecole.fr/cours"\n', False, "git+https://forge.ecole.fr/cours"),
        ('repository = "https://github.com/ecole/cours"\nwheel = "https://x.fr/a.whl"\n', True, "https://x.fr/a.whl"),
    ],
)
def test_a_notebook_opened_alone_installs_the_course_or_says_what_is_missing(
    course: Path, published: str, link: bool, installed: str | None
) -> None:
    toml = (course / "course.toml").read_text(encoding="utf-8")
    (course / "course.toml").write_text(published + toml.replace("repository =", "depot ="), encoding="utf-8")
    student = products(course).student
    title, first = student.cells[:2]
    assert ("colab.research.google.com/github/ecole/cours/blob/main/notebooks/" in title.source) == link
    assert student.metadata.accelerator == "GPU" and student.metadata.colab.toc_visible
    asked = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, text: asked.append((name, text)))
    code = first.source.replace('find_spec("atelier")', 'find_spec("atelier_absent")')
    if installed:
        exec(code, {"get_ipython": lambda: shell})
        assert asked == [("pip", f"install -q {installed}")]
    else:
        with pytest.raises(Exception, match="n'est pas installé ici") as error:
            exec(code, {})
        assert error.value._render_traceback_() == [str(error.value)]
    exec(first.source, {})  # ici, l'atelier est là


def test_nbgrader_accepts_both_notebooks(course: Path) -> None:
    from nbgrader.nbgraderformat import MetadataValidator

    built = products(course)
    for notebook in (built.student, built.solved):
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
        grading = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
        assert {meta.schema_version for meta in grading} == {3}
        assert [meta.grade_id for meta in grading] == ["double", "test_double", "Shift", "test_Shift"]


def test_nbgrader_makes_the_same_student_notebook_from_the_source(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    built = products(course)
    folder = tmp_path / "nbgrader"
    source = folder / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(built.solved, source)
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.assignment_id = NAME
    config.CourseDirectory.db_url = f"sqlite:///{folder}/gradebook.db"
    config.ClearSolutions.code_stub = {"python": STUB}
    GenerateAssignment(coursedir=CourseDirectory(config=config), config=config).start()
    released = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    assert released.cells == built.student.cells
    assert released.metadata == built.student.metadata


def test_building_is_deterministic_and_rewrites_nothing(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(course, monkeypatch) == 0
    files = build.product_paths(NAME, course)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    assert all(content.endswith(b"\n") for content, _ in before[:3])
    assert run(course, monkeypatch) == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    for path in files:
        path.unlink()
    assert run(course, monkeypatch, NAME) == 0
    assert [path.read_bytes() for path in files] == [content for content, _ in before]


def test_cell_ids_do_not_depend_on_position(course: Path) -> None:
    before = sources(products(course).student)
    edit(course, "chapter.py", ('# %%\nprint("fin")', '# %%\nprint("fin")\n\n# %%\nprint("fin")'))
    edit(course, "chapter.py", ("# %% [markdown]\n# Une", '# %%\nprint("nouvelle")\n\n# %% [markdown]\n# Une'))
    after = sources(products(course).student)
    assert before.items() <= after.items() and len(after) == len(before) + 2


def test_a_chapter_without_exercises(course: Path, monkeypatch, capsys) -> None:
    folder = course / "solutions" / NAME
    shutil.rmtree(folder / "exercises")
    (folder / "quiz.md").unlink()
    (folder / "chapter.py").write_text("# %% [markdown]\n# # Accueil\n\n# %%\nprint('bonjour')\n", encoding="utf-8")
    assert run(course, monkeypatch) == 0
    assert "3 cellules, 0 exercice, 0 point" in capsys.readouterr().out
    pack = json.loads((course / "assets/packs" / f"{NAME}.json").read_text(encoding="utf-8"))
    assert pack["title"] == "Accueil" and pack["exercises"] == {} and pack["quizzes"] == {}
    assert run(course, monkeypatch, "--check") == 0


def test_summary_line(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch) == 0
    expected = r"notebooks/ch3_quantification\.ipynb\s: 14 cellules, 2 exercices, 3,5 points\s; paquet \d+ ko\n"
    expected += r"  8 cellules du carnet résolu sans sortie\s: .*\n"
    assert re.fullmatch(expected, capsys.readouterr().out)


# --- Le paquet -------------------------------------------------------------------------------------------------------


def test_pack_holds_visible_cases_and_declarations(course: Path, monkeypatch) -> None:
    from atelier.judging.codec import decode

    assert run(course, monkeypatch) == 0
    *_, json_path, tensors_path = build.product_paths(NAME, course)
    pack = json.loads(json_path.read_text(encoding="utf-8"))
    assert pack["chapter"] == NAME and list(pack["exercises"]) == ["double", "Shift"]
    declared = pack["exercises"]["double"]
    assert declared["points"] == 1.5 and declared["minutes"] == 5 and declared["probe"] == "call"
    assert declared["groups"] == {"courant": 0.7, "refus": 0.3} and declared["signature"] == "double(x, times=2)"
    assert declared["tolerance"]["rtol"] == 1e-6 and declared["messages"]["always_two"] == "Et si times vaut 3\u202f?"
    assert pack["quizzes"]["steps"]["choices"][0] == {"text": "Un", "why": "Un seul suffit.", "correct": True}
    cases = decode(pack["cases"], load(tensors_path.read_bytes()), ours=True)["double"]
    assert [case["group"] for case in cases] == ["courant"] * 3 + ["refus"] * 2
    first = cases[0]
    assert torch.equal(first["inputs"]["x"], torch.tensor([1.0, -2.0])) and "times" not in first["inputs"]
    assert torch.equal(first["expected"]["value"], torch.tensor([2.0, -4.0]))
    assert torch.equal(first["wrong"]["adds"]["value"], torch.tensor([3.0, 0.0]))
    refused = cases[-1]
    assert refused["expected"]["error"] == "ValueError" and refused["wrong"]["never_refuses"]["status"] == "value"
    assert "times est négatif" not in json_path.read_text(encoding="utf-8")


def test_a_pack_too_heavy_is_refused(course: Path, monkeypatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 2000)
    (problem,) = build.build_chapter(NAME, course).problems
    assert "limite 2" in problem.message and problem.cell == "double"


# --- --check ---------------------------------------------------------------------------------------------------------


def test_check_is_silent_about_outputs(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch) == 0
    solved = build.product_paths(NAME, course)[1]
    notebook = nbformat.read(solved, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="fin\n")]
    notebook.cells[-1].execution_count = 7
    nbformat.write(notebook, solved)
    capsys.readouterr()
    assert run(course, monkeypatch, "--check") == 0
    assert "à jour" in capsys.readouterr().out


@pytest.mark.parametrize("which", range(4))
def test_check_notices_a_missing_file(course: Path, monkeypatch, capsys, which: int) -> None:
    assert run(course, monkeypatch) == 0
    path = build.product_paths(NAME, course)[which]
    path.unlink()
    capsys.readouterr()
    assert run(course, monkeypatch, "--check") == 1
    assert path.stem in capsys.readouterr().out
    assert not path.exists()


def test_check_names_the_cells_that_differ(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch) == 0
    student, solved, *_ = build.product_paths(NAME, course)
    notebook = nbformat.read(student, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "test_double").metadata.nbgrader.points = 9
    nbformat.write(notebook, student)
    notebook = nbformat.read(solved, as_version=4)
    del notebook.cells[-1]
    nbformat.write(notebook, solved)
    capsys.readouterr()
    assert run(course, monkeypatch, "--check") == 1
    out = capsys.readouterr().out
    assert "notebooks/ch3_quantification.ipynb" in out and "test_double" in out and "1 cellule à ajouter" in out


@pytest.mark.parametrize(
    ("dtype", "change", "code"),
    [(torch.float32, 1e-6, 0), (torch.float32, 1e-2, 1), (torch.int64, 1, 1), (torch.float16, 1e-3, 0)],
)
def test_check_forgives_float_noise_only(
    course: Path, monkeypatch, dtype: torch.dtype, change: float, code: int
) -> None:
    example = "torch.tensor([1.0, -2.0]"
    edit(course, "exercises/double.py", (example, f"{example}, dtype={dtype}"))
    assert run(course, monkeypatch) == 0
    *_, tensors_path = build.product_paths(NAME, course)
    tensors = load(tensors_path.read_bytes())
    chosen = [key for key, x in tensors.items() if x.dtype == dtype]
    assert chosen
    for key in chosen:
        tensors[key] = (tensors[key] * (1 + change)).to(dtype) if dtype.is_floating_point else tensors[key] + change
    tensors_path.write_bytes(save(tensors))
    assert run(course, monkeypatch, "--check") == code


def test_a_pack_within_noise_is_left_alone(course: Path, monkeypatch) -> None:
    assert run(course, monkeypatch) == 0
    *_, tensors_path = build.product_paths(NAME, course)
    noisy = save(
        {k: v * (1 + 1e-6) if v.is_floating_point() else v for k, v in load(tensors_path.read_bytes()).items()}
    )
    tensors_path.write_bytes(noisy)
    assert run(course, monkeypatch) == 0
    assert tensors_path.read_bytes() == noisy


CANCELLING = "torch.tensor([4000.0, -0.25])"


@pytest.mark.parametrize(
    ("key", "index", "change", "code"),
    [
        ("expected", 1, 0.8, 0),  # 1/10 000 du plus grand : une somme dont les termes se compensent
        ("expected", 1, 40.0, 1),
        ("expected", 0, 0.8, 0),
        ("inputs", 1, 1e-5, 0),
        ("inputs", 1, 0.01, 1),  # une entrée est tirée, non calculée : élément par élément
    ],
)
def test_an_answer_is_compared_at_the_size_of_its_tensor(
    course: Path, monkeypatch, capsys, key: str, index: int, change: float, code: int
) -> None:
    edit(course, "exercises/double.py", ("torch.tensor([1.0, -2.0])", CANCELLING))
    assert run(course, monkeypatch) == 0
    *_, json_path, tensors_path = build.product_paths(NAME, course)
    case = json.loads(json_path.read_text(encoding="utf-8"))["cases"]["v"]["double"][0]["v"][key]
    (name,) = re.findall(r"\"tensor\", \"v\": \"(\w+)\"", json.dumps(case))
    tensors = load(tensors_path.read_bytes())
    tensors[name][index] += change
    tensors_path.write_bytes(save(tensors))
    capsys.readouterr()
    assert run(course, monkeypatch, "--check") == code
    out = capsys.readouterr().out
    assert ("double[0] → " + key in out) == bool(code), "l'endroit qui diffère est nommé"


# --- Exécuter --------------------------------------------------------------------------------------------------------


def test_execute_keeps_outputs_and_a_later_build_keeps_the_unchanged_ones(course: Path, monkeypatch, capsys) -> None:
    edit(course, "chapter.py", ('print("fin")', 'import os\nprint(os.environ["COURS_ENREGISTRER"], os.getcwd())'))
    assert run(course, monkeypatch, "--execute") == 0
    assert re.search(r"exécuté en \d+,\d s", capsys.readouterr().out)
    solved = build.product_paths(NAME, course)[1]
    executed = {c.id: c for c in nbformat.read(solved, as_version=4).cells if c.cell_type == "code"}
    assert executed["test_double"].outputs[0].text == "vu : double\n"
    assert not any("execution" in cell.metadata for cell in executed.values())
    recording, folder = list(executed.values())[-1].outputs[0].text.split(" ", 1)
    assert recording == "1" and not Path(folder.strip()).is_relative_to(course)
    assert run(course, monkeypatch, "--check") == 0
    edit(course, "chapter.py", ("Une courbe qui monte.", "Une courbe qui descend."))
    assert run(course, monkeypatch) == 0
    rebuilt = {c.id: c for c in nbformat.read(solved, as_version=4).cells if c.cell_type == "code"}
    assert rebuilt["test_double"].outputs == executed["test_double"].outputs
    changed = [c for c in rebuilt.values() if "descend" in c.source]
    assert len(changed) == 1 and changed[0].outputs == [] and changed[0].execution_count is None


def test_an_execution_error_is_located_and_overwrites_nothing(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch) == 0
    solved = build.product_paths(NAME, course)[1]
    before = solved.read_bytes()
    edit(course, "chapter.py", ('print("fin")', "1 / 0"))
    assert run(course, monkeypatch, "--execute") == 2
    line = CHAPTER.splitlines().index('print("fin")') + 1
    error = capsys.readouterr().err
    assert f"solutions/ch3_quantification/chapter.py:{line} " in error and "ZeroDivisionError" in error
    assert solved.read_bytes() == before


def test_a_check_that_fails_in_a_solved_notebook_is_an_execution_error(course: Path, monkeypatch, capsys) -> None:
    edit(course, "chapter.py", ("def check(exercise):", "def check(exercise):\n    raise ValueError('raté')"))
    assert run(course, monkeypatch, "--execute") == 2
    assert "(test_double)" in (error := capsys.readouterr().err) and "ValueError" in error


def test_run_all_goes_past_an_exercise_not_yet_written(course: Path) -> None:
    from nbclient import NotebookClient

    edit(course, "chapter.py", ("def check(exercise):", "def check(exercise):\n    raise ValueError('à écrire')"))
    student = products(course).student
    done = NotebookClient(student, kernel_name="python3", timeout=60).execute()
    code = [c for c in done.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code) and code[-1].outputs[0].text == "fin\n"
    failed = [c.metadata.nbgrader.grade_id for c in code if any(o.output_type == "error" for o in c.outputs)]
    assert failed == ["test_double", "test_Shift"]


def test_the_grader_starts_without_compiling_grammars_that_nobody_uses() -> None:
    """Trois secondes par processus : voir grader/__init__.py."""
    code = "import sys, grader.authoring.build, nbformat; nbformat.validate(nbformat.v4.new_notebook())"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'lark' not in sys.modules"], cwd=ROOT, check=True)


def test_cells_asked_for_bring_the_import_of_check_and_no_other_check(course: Path, monkeypatch, capsys) -> None:
    """Dans un vrai chapitre, `check` s'importe dans une cellule ordinaire."""
    own = 'def check(exercise):\n    print("vu :", exercise.__name__)\n\n\ndef quiz'
    edit(
        course,
        "chapter.py",
        (own, "def quiz"),
        ("# ### ✎ double", "# Voici.\n\n# %%\ncheck = print\n\n# %% [markdown]\n# ### ✎ double"),
    )
    assert run(course, monkeypatch, "--execute", NAME, "--cells", "double") == 0, capsys.readouterr().err
    solved = nbformat.read(build.product_paths(NAME, course)[1], as_version=4)
    ran = [c.id for c in solved.cells if c.cell_type == "code" and c.execution_count]
    assert {"double", "test_double"} <= set(ran) and "test_Shift" not in ran
