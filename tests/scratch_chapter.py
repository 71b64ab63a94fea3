"""Un chapitre d'essai, correct, à abîmer."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from atelier import paths
from grader import __main__ as command_line
from grader.authoring import build

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.fixture(name="course")
def course_fixture(tmp_path: Path) -> Path:
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
