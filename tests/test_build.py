"""Construire un chapitre : lecture, règles, carnets, paquet, `--check`, `--execute`, ligne de commande."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from safetensors.torch import load, save

from atelier import paths
from grader import __main__ as command_line
from grader.authoring import build, packing
from grader.authoring.chapters import Chapter, chapter_names, load_chapter
from grader.authoring.rules import STUB, distinctive_lines

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT.parent / "shared" / "exercises.md"
# Le catalogue précède les chapitres : exercices nouveaux, changés de signature ou retirés, pas encore écrits ici.
A_VENIR: dict[str, frozenset[str]] = {
    name: frozenset(ids.split())
    for name, ids in {
        "ch1_rappel_gpt2": "sampling_probs",
        "ch2_flops_6nd": "decode_seconds",
        "ch3_quantification": "gptq_quantize mse_scale layer_inputs quantize_linears mx_quantize",
        "ch4_distillation": "distill_step topk_kl",
        "ch5_elagage": "fisher_importance block_influence",
        "ch6_finetuning": "train_step chat_labels",
        "ch8_lora": "lora_delta dpo_loss batched_lora QLoRALinear dora_weight",
    }.items()
}
NAME = "ch3_quantification"

CHAPTER = '''\
# %% [markdown]
# # Chapitre 3 · Quantification
#
# Deux exercices.

# %% tags=["setup"]
import torch


def check(exercise):
    print("vu :", exercise.__name__)


def quiz(name):
    print("quiz :", name)


def show(figure, alt):
    print("figure :", alt)


# %% [markdown]
# Une question.
#
# ??? q="steps"      # après la préparation
#
# La suite.

# %% [markdown]
# ### ✎ double


# %% exercise="double"
def double(x: torch.Tensor, times: int = 2) -> torch.Tensor:
    """Le tenseur x multiplié par times. Lève ValueError si times < 0."""
    ### BEGIN SOLUTION
    if times < 0:
        raise ValueError("times est négatif")
    scaled_copy = x * float(times)
    ### END SOLUTION
    return scaled_copy


# %%
demonstration_was_run = True
show("courbe", alt="Une courbe qui monte.")

# %% [markdown]
# ### ✎ Shift

# %% exercise="Shift"
class Shift(torch.nn.Module):
    """Ajoute `amount`, qui part de 1."""

    def __init__(self, size: int, amount: float = 1.0) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.amount = torch.nn.Parameter(torch.full((size,), amount))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ### BEGIN SOLUTION
        return x + self.amount
        ### END SOLUTION


# %%
print("fin")
'''

DOUBLE = """\
import torch

from atelier.judging.exercise import Draw, Exercise, Tolerance


def draw_double(rng: Draw, group: str) -> dict:
    if group == "refus":
        return {"x": rng.normal(2), "times": -1 - rng.index}
    return {"x": rng.normal(2, 3), "times": rng.integer(3, 5)}


exercise = Exercise(
    points=1.5,
    minutes=5,
    hints=["Combien de fois ?", "Multipliez."],
    groups={"courant": 0.7, "refus": 0.3},
    draw=draw_double,
    examples=[{"x": torch.tensor([1.0, -2.0])}],
    tolerance=Tolerance(rtol=1e-6, why="une multiplication"),
)

misconceptions = '''
adds   x * float(times) → x + times
    Multiplier n'est pas ajouter.

never_refuses   times < 0 → False
    Un nombre de fois négatif a-t-il un sens ?

always_two   = twice
    Et si times vaut 3 ?
'''


def twice(x, times=2):
    return x * 2


styles = [torch.mul, torch.mul, torch.mul]
"""

SHIFT = """\
from atelier.judging.exercise import Draw, Exercise


def draw_shift(rng: Draw, group: str) -> dict:
    weights = {"amount": rng.normal(4)}
    return {"init": {"size": 4}, "x": rng.normal(2, 4), "weights": weights, "out_grad": rng.normal(2, 4)}


exercise = Exercise(
    points=2,
    hints=["Un paramètre.", "Une addition."],
    groups={"courant": 1.0},
    draw=draw_shift,
    probe="module",
)

misconceptions = '''
minus   x + self.amount → x - self.amount
    Quel est le signe ?
'''

styles = ["un", "deux", "trois"]
"""

QUIZ = """\
# Quiz

## steps
Combien ?

- [x] Un
  Un seul suffit.
- [ ] Deux
  C'est un de trop.
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Un cours d'un chapitre, correct, dans un dossier au nom accentué."""
    root = tmp_path / "le cours d'été"
    folder = root / "solutions" / NAME
    folder.mkdir(parents=True)
    (root / "course.toml").write_text(f'[[chapters]]\nname = "{NAME}"\ntitle = "Quantification"\n', encoding="utf-8")
    (folder / "chapter.py").write_text(CHAPTER, encoding="utf-8")
    (folder / "quiz.md").write_text(QUIZ, encoding="utf-8")
    (folder / "exercises").mkdir()
    for file, text in (("double", DOUBLE), ("Shift", SHIFT)):
        (folder / "exercises" / f"{file}.py").write_text(text, encoding="utf-8")
    return root


def edit(course: Path, file: str, *pairs: tuple[str, str]) -> None:
    path = course / "solutions" / NAME / file
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def run(course: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python -m grader build …` dans ce cours."""
    monkeypatch.setattr(paths, "root", lambda: course)
    return command_line.main(["build", *arguments])


def products(course: Path) -> build.Products:
    built = build.build_chapter(NAME, course)
    assert not built.problems, "\n".join(map(str, built.problems))
    return built


def sources(notebook: nbformat.NotebookNode) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


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
    assert "2 cellules, 0 exercice, 0 point" in capsys.readouterr().out
    pack = json.loads((course / "assets/packs" / f"{NAME}.json").read_text(encoding="utf-8"))
    assert pack["title"] == "Accueil" and pack["exercises"] == {} and pack["quizzes"] == {}
    assert run(course, monkeypatch, "--check") == 0


def test_summary_line(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch) == 0
    expected = r"notebooks/ch3_quantification\.ipynb\s: 13 cellules, 2 exercices, 3,5 points\s; paquet \d+ ko\n"
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


# --- Les défauts d'un chapitre ---------------------------------------------------------------------------------------

END = 'print("fin")'
DOUBLE_FILE, QUIZ_FILE = "exercises/double.py", "quiz.md"
ILL_WRITTEN = [
    ("chapter.py", ('exercise="double"', 'exercise="triple"'), "def double( (triple)", "n'est pas déclaré"),
    ("chapter.py", ('exercise="double"', 'exercise="triple"'), "(double)", "ne le montre nulle part"),
    ("chapter.py", ('exercise="Shift"', 'exercise="double"'), "class Shift (double)", "deux cellules portent le nom"),
    (
        "chapter.py",
        ("    ### END SOLUTION\n    return scaled", "    return scaled"),
        "### BEGIN",
        "sans « END SOLUTION »",
    ),
    ("chapter.py", ("    ### BEGIN SOLUTION\n    if times", "    if times"), "### END", "sans « BEGIN SOLUTION »"),
    ("chapter.py", ("    scaled_copy =", "    # BEGIN SOLUTION\n    scaled_copy ="), "    # BEGIN", "déjà ouverte"),
    ("chapter.py", ("# La suite.", "# ### BEGIN SOLUTION"), "# ### BEGIN", "hors d'une cellule d'exercice"),
    ("chapter.py", (END, "print('BEGIN SOLUTION')"), "print('BEGIN", "hors d'une cellule d'exercice"),
    ("chapter.py", ('    """Ajoute `amount`, qui part de 1."""\n', ""), "class Shift (Shift)", "docstring"),
    ("chapter.py", ("def double(", "def doubled("), "def doubled( (double)", "ne définit"),
    ("chapter.py", (', alt="Une courbe qui monte."', ""), 'show("courbe"', "sans texte de remplacement"),
    ("chapter.py", ("Une courbe qui monte.", ""), 'show("courbe"', "sans texte de remplacement"),
    ("chapter.py", ('show("courbe", alt="Une courbe qui monte.")', "plt.show()"), "plt.show()", "plt.show()"),
    ("chapter.py", ("# La suite.", "# Voici :\n# ![](image.png)"), "# ![]", "image sans texte de remplacement"),
    ("chapter.py", ("# La suite.", '# <img src="image.png">'), "# <img", "image sans texte de remplacement"),
    ("chapter.py", ('q="steps"', 'q="stops"'), "# ??? (stops)", "n'est pas dans"),
    ("chapter.py", ('q="steps"', 'q="stops"'), "(steps)", "ne le montre nulle part"),
    ("chapter.py", ('q="steps"', "steps"), "# ???", "ligne de quiz illisible"),
    ("chapter.py", (END, 'quiz("steps")'), 'quiz("steps")', "se montre par une ligne"),
    ("chapter.py", (END, "# lisez solutions/ch3"), "# lisez", "« solutions/ » resterait"),
    ("chapter.py", ("# La suite.", "# Voir le grader."), "# Voir", "« grader » resterait"),
    (
        "chapter.py",
        (END, "print(scaled_copy := x * float(times))\nscaled_copy = x * float(times)"),
        "print(sc",
        "de `double`",
    ),
    ("chapter.py", (END, "x = 1\nété = 1"), "été = 1", "l'identifiant « été »"),
    ("chapter.py", (END, "%matplotlib inline"), "%matplotlib", "pas du Python"),
    ("chapter.py", ("### ✎ double", "### Exercice : `double` · 2 points"), "# ### Exer", "écrivez « ### ✎ nom »"),
    ("chapter.py", ("### ✎ double", "### ✎ triple"), "# ### ✎ triple", "écrivez « ### ✎ nom »"),
    ("chapter.py", ("### ✎ double", "### Doubler"), "def double( (double)", "aucun titre"),
    ("chapter.py", ("# La suite.", "# La suite.\n# ### ✎ double"), "(markdown)", "est déjà annoncé"),
    ("chapter.py", ("# La suite.", "# La suite..."), "# La suite", "trois points"),
    ("chapter.py", ("# La suite.", "# Une «suite»."), "# Une «", "il manque une espace"),
    ("chapter.py", ("# La suite.", "# La suite\u202f!"), "# La suite", "une espace insécable est tapée"),
    ("chapter.py", ("# La suite.", "# La suite" + " encore" * 20), "# La suite", "colonnes, 120 au plus"),
    ("chapter.py", (END, "ch3.no_such_figure()"), "ch3.no", "`ch3.no_such_figure` n'existe pas"),
    ("chapter.py", ("import torch\n\n\ndef check", "import torche\n\n\ndef check"), "import torche", "torche"),
    (DOUBLE_FILE, ("points=1.5", "points=0"), "(double)", "vaut plus de 0 point"),
    (DOUBLE_FILE, ("x * float(times)", "x ** float(times)"), "adds (double)", "« x ** float(times) » n'est pas"),
    (DOUBLE_FILE, ("→ False", "→ 0 > times"), "never_refuses (double)", "`never_refuses` de la référence"),
    (DOUBLE_FILE, ('"times": -1 - rng.index', '"times": "a"'), "(double)", "la référence échoue"),
    ("chapter.py", ("x * float(times)", "x.mul_(float(times))"), "(double)", "la référence rate un cas"),
    (DOUBLE_FILE, ('"x": rng.normal(2, 3)', '"x": rng.normal(2, "a")'), "(double)", "le tirage des cas échoue"),
    ("exercises/Shift.py", ('probe="module"', 'probe="modul"'), "(Shift)", "la sonde « modul » n'existe pas"),
    (DOUBLE_FILE, ("  = twice", "  x * float(times) → times + x"), "always_two (double)", "partout"),
    (DOUBLE_FILE, ('"Multipliez."', '"Multipliez"'), "(double)", "n'a pas de point"),
    (DOUBLE_FILE, ("un sens ?", "un sens"), "never_refuses (double)", "n'a pas de point"),
    (DOUBLE_FILE, ('"Multipliez."', '"scaled_copy = x * float(times)."'), "(double)", "un indice ou un message"),
    (DOUBLE_FILE, ("\nadds", "\najouté"), "(double)", "lettres ASCII"),
    (DOUBLE_FILE, ("\nalways_two", "\nadds"), "(double)", "2 idées fausses portent"),
    (DOUBLE_FILE, ("= twice", "= thrice"), "always_two (double)", "que ce fichier ne définit pas"),
    (DOUBLE_FILE, ("   = twice", ""), "always_two (double)", "remplace du texte, ou désigne une fonction"),
    (DOUBLE_FILE, ("    Et si times vaut 3 ?\n", ""), "always_two (double)", "n'a pas de phrase"),
    (DOUBLE_FILE, ("x * float(times) → x + times", "x * float(times)"), "adds (double)", "n'est remplacé par rien"),
    (DOUBLE_FILE, ("torch.mul, torch.mul]", "torch.mul]"), "(double)", "il en faut 3"),
    (DOUBLE_FILE, ("exercise = Exercise(", "exercice = Exercise("), "(double)", "exercise = Exercise(…)"),
    (DOUBLE_FILE, ("def twice", "1 / 0\n\n\ndef twice"), "1 / 0 (double)", "ZeroDivisionError"),
    (QUIZ_FILE, ("Un seul suffit.", "Oui : un seul."), "## steps (steps)", "que le quiz dit déjà"),
    (QUIZ_FILE, ("- [x]", "- [ ]"), "## steps", "exactement une bonne réponse"),
    (QUIZ_FILE, ("- [ ] Deux", "Deux"), "Deux", "attendu « - [ ] réponse »"),
    (QUIZ_FILE, ("## steps", "## steps\n\n## steps"), "## steps", "bonne réponse"),
]


@pytest.mark.parametrize(("file", "change", "where", "what"), ILL_WRITTEN)
def test_an_ill_written_chapter_is_refused(
    course: Path, monkeypatch, capsys, file: str, change: tuple[str, str], where: str, what: str
) -> None:
    """where : un morceau de la ligne fautive, puis la cellule entre parenthèses."""
    edit(course, file, change)
    assert run(course, monkeypatch) == 2
    text, cell = re.fullmatch(r"(.*?) ?(\(\w+\))?", where).groups()
    lines = (course / "solutions" / NAME / file).read_text(encoding="utf-8").splitlines()
    place = f"{file}:{next(i for i, line in enumerate(lines, 1) if text in line)} " if text else ".py"
    errors = [plain(line) for line in capsys.readouterr().err.splitlines()]
    assert [e for e in errors if place in e and (cell or "") in e and what in e], (place, errors)
    assert not (course / "notebooks").exists()


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def test_all_errors_are_reported_at_once(course: Path, monkeypatch, capsys) -> None:
    edit(course, "chapter.py", ("# La suite.", "# ![](a.png)"), (', alt="Une courbe qui monte."', ""))
    edit(course, "exercises/Shift.py", ("points=2", "points=0"))
    edit(course, DOUBLE_FILE, ("→ False", "→ 0 > times"))
    assert run(course, monkeypatch) == 2
    error = capsys.readouterr().err
    for what in ("image sans texte", "figure", "plus de 0 point", "never_refuses"):
        assert what in error


def test_misconceptions_that_only_hidden_cases_tell_apart_are_a_warning(course: Path, monkeypatch, capsys) -> None:
    rare = "rare   x * float(times) → x + (times if times < 6 else 0)"
    edit(course, DOUBLE_FILE, ("always_two   = twice", rare), ("rng.integer(3, 5)", "3 + rng.index"))
    assert run(course, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "avertissement" in out and "`adds` et `rare`" in out


def test_a_new_exercise_builds_at_once(course: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(paths, "root", lambda: course)
    assert command_line.main(["exercise", "new", NAME, "triple"]) == 0
    assert run(course, monkeypatch) == 0
    assert "3 exercices, 4,5 points" in plain(capsys.readouterr().out)
    chapter = load_chapter(NAME, course)
    assert list(chapter.exercises) == ["double", "Shift", "triple"]
    assert [answer(4.0) for answer in (chapter.reference("triple"), *chapter.styles("triple"))] == [8.0] * 4
    for name in ("triple", "double", "été", "def", "_x", "a b"):
        assert command_line.main(["exercise", "new", NAME, name]) == 2
    assert command_line.main(["exercise", "new", "ch9", "x"]) == 2
    assert "déjà un exercice de ch3_quantification" in capsys.readouterr().err


def test_unknown_and_undeclared_chapters(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch, "ch3") == 2
    assert plain(capsys.readouterr().err) == "Chapitre inconnu : ch3. Chapitres écrits : ch3_quantification.\n"
    stray = course / "solutions" / "ch10_moe"
    stray.mkdir()
    (stray / "chapter.py").write_text("# %%\n1\n", encoding="utf-8")
    assert run(course, monkeypatch) == 2
    assert "solutions/ch10_moe/chapter.py" in capsys.readouterr().err


# --- La ligne de commande --------------------------------------------------------------------------------------------


def test_help_lists_every_command_without_loading_any() -> None:
    code = "import sys, grader.__main__ as m; m.main([]); print([x for x in ('torch', 'nbgrader') if x in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.startswith("Usage") and out.endswith("[]\n")
    for command in ("build", "init", "publish", "collect", "grade", "report", "corpus", "colibri"):
        assert re.search(rf"^  {command} ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["buidl"], "Commande inconnue : buidl."),
        (["build", "--vite"], "mots inconnus : --vite"),
        (["build", "--check", "--execute"], "ne vont pas ensemble"),
    ],
)
def test_command_line_errors_are_french(capsys, arguments: list[str], expected: str) -> None:
    try:
        code = command_line.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and expected in plain(capsys.readouterr().err)


def test_a_missing_file_is_one_sentence(monkeypatch, capsys) -> None:
    def missing(arguments: list[str]) -> int:
        return len(Path(arguments[0]).read_bytes())

    monkeypatch.setattr(build, "main", missing)
    assert command_line.main(["build", "absent.toml"]) == 2
    assert (
        plain(capsys.readouterr().err) == "absent.toml : ce fichier ou ce dossier n'existe pas. Vérifiez le chemin.\n"
    )


# --- Les vrais chapitres ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=chapter_names(ROOT))
def chapter(request: pytest.FixtureRequest) -> Chapter:
    return load_chapter(request.param, ROOT)


def catalogue() -> dict[str, dict[str, str]]:
    """Chapitre → exercice → signature, lus dans les tableaux de ../shared/exercises.md."""
    found: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in CATALOGUE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## (ch\d\w*)", line):
            rows = found.setdefault(heading[1], {})
        elif line.startswith("| `"):
            codes = re.findall(r"`([^`]+)`", line.split(" | ")[0])
            owner = re.match(r"class (\w+)", codes[0])
            for code in codes:
                if definition := re.fullmatch(r"(\w+)\((.*)\)", code):
                    name = owner[1] if owner else definition[1]
                    rows[name] = f"{name}({without_annotations(definition[2])})"
    return found


def without_annotations(parameters: str) -> str:
    arguments = ast.parse(f"def f({parameters}): ...").body[0].args
    for argument in arguments.args:
        argument.annotation = None
    return ast.unparse(arguments)


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="le catalogue ../shared/exercises.md n'est pas sur cette machine")
def test_ids_and_signatures_are_those_of_the_catalogue(chapter: Chapter) -> None:
    """Ce qui est écrit est au catalogue, sous sa signature ; ce qui manque est ce que A_VENIR annonce."""
    written = {id: chapter.signature(id) for id in chapter.sources}
    listed = catalogue().get(chapter.name, {})
    coming = A_VENIR.get(chapter.name, frozenset())
    assert {id for id in written.keys() | listed.keys() if written.get(id) != listed.get(id)} == coming


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="le catalogue ../shared/exercises.md n'est pas sur cette machine")
def test_the_catalogue_is_read_whole() -> None:
    found = catalogue()
    assert found["ch3_quantification"]["unpack_int4"] == "unpack_int4(p, n)"
    assert len(found["ch3_quantification"]) == 15
    assert found["ch8_lora"]["LoRALinear"] == "LoRALinear(base, rank, alpha)"
    assert found["ch7_adapters"]["Adapter"] == "Adapter(d_model, bottleneck)"
    assert sum(map(len, found.values())) >= 50


def test_committed_files_are_up_to_date(chapter: Chapter) -> None:
    built = build.build_chapter(chapter.name, ROOT)
    assert not built.errors, "\n".join(map(str, built.errors))
    assert not build.differences(built, ROOT)


REPLAY = """
from atelier import packs, paths
from atelier.judging.compare import compare
from atelier.judging.exercise import Tolerance
from atelier.judging.probes import run_case
from grader.authoring import build
from grader.authoring.chapters import chapter_names, load_chapter

for name in chapter_names(paths.root()):
    built = build.build_chapter(name, paths.root())
    print(*built.errors, *build.differences(built, paths.root()), sep="\\n", end="")
    chapter = load_chapter(name)
    for id, declared in packs.load_packs()[name]["exercises"].items():
        for rank, case in enumerate(packs.load_cases(name, id)):
            got = run_case(declared["probe"], chapter.reference(id), case["inputs"])
            verdict = compare(case["expected"], got, case["inputs"], Tolerance(**declared["tolerance"]))
            if not verdict.ok:
                print(f"check refuse la référence de {id}, cas {rank} : {verdict.message}")
"""


@pytest.mark.lent
@pytest.mark.parametrize(
    "machine",
    [
        {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "4"},
    ],
    ids=["sans instructions vectorielles", "quatre fils"],
)
def test_committed_packs_hold_on_another_machine(machine: dict[str, str]) -> None:
    """D'autres instructions, d'autres fils : mêmes paquets, et `check` y accepte la référence."""
    environment = {**os.environ, "COURS_RACINE": str(ROOT), **machine}
    done = subprocess.run([sys.executable, "-c", REPLAY], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == ""


def test_no_line_of_a_solution_reaches_the_student(chapter: Chapter) -> None:
    secrets = [line for source in chapter.sources.values() for line in distinctive_lines(source)]
    student, _, pack, _ = build.product_paths(chapter.name, ROOT)
    notebook = nbformat.read(student, as_version=4)
    texts = {f"cellule {cell.id}": cell.source for cell in notebook.cells}
    texts |= {p.name: p.read_text(encoding="utf-8") for p in (pack, *(ROOT / "atelier").rglob("*.py"))}
    assert not [(where, line) for line in secrets for where, text in texts.items() if line in text]


def test_names_are_those_of_one_chapter_only() -> None:
    """`check`, `hint` et `quiz` retrouvent un exercice ou une question par son seul nom."""
    chapters = [load_chapter(name, ROOT) for name in chapter_names(ROOT)]
    for names in ([*c.sources] for c in chapters), ([*c.quizzes] for c in chapters):
        flat = [name for found in names for name in found]
        assert len(flat) == len(set(flat))


def test_the_right_answer_of_a_quiz_is_not_given_away_by_its_length() -> None:
    """Choisir toujours la plus longue réponse, ou la plus courte, ne doit pas valoir mieux que le hasard."""
    quizzes = [q for name in chapter_names(ROOT) for q in load_chapter(name, ROOT).quizzes.values()]
    chance = sum(1 / len(q.choices) for q in quizzes)
    for choose in (max, min):
        found = sum(choose(q.choices, key=lambda c: len(c.text)).correct for q in quizzes)
        assert found <= 1.25 * chance, f"{found} bonnes réponses sur {len(quizzes)}, {chance:.0f} au hasard"
