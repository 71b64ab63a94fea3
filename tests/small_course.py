"""Un petit cours, son paquet écrit à la main : de quoi éprouver `check`, `hint`, `progress` et `quiz`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from atelier import checker, journal, paths
from atelier import state as store
from atelier.checker import CheckFailed, check
from atelier.judging.codec import encode
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.probes import run_case, without_source

ROOT = Path(__file__).resolve().parent.parent


# --- Un petit cours, son paquet écrit à la main ----------------------------------------------------------------------


def peak(r, bits=8):
    if bits < 2:
        raise ValueError("bits < 2")
    return r.abs().max() / (2 ** (bits - 1) - 1)


def peak_no_abs(r, bits=8):
    return r.max() / (2 ** (bits - 1) - 1)


def peak_levels(r, bits=8):
    return r.abs().max() / (2**bits - 1)


def count(n, d):
    return n * d


def square(n, k):
    return n**k


class Doubler(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return 2 * self.a * x


class Tripler(Doubler):
    def forward(self, x):
        return 3 * self.a * x


G = torch.Generator().manual_seed(1)
PEAK_INPUTS = [
    {"r": torch.tensor([0.5, -2.54, 1.0])},
    {"r": torch.randn(4, 5, generator=G), "bits": 4},
    {"r": -torch.rand(3, 3, 3, generator=G), "bits": 8},
    {"r": torch.randn(8, 2, generator=G)[:, 1:], "bits": 6},
    {"r": torch.ones(2), "bits": 1},
]
MODULE_INPUTS = [
    {"init": {"d": 3}, "x": torch.ones(2, 3), "weights": {"a": torch.arange(3.0)}, "out_grad": torch.ones(2, 3)}
]


def exercise(reference, wrong, inputs, probe="call", tolerance=EXACT, points=2.0, hints=("un", "deux", "trois")):
    cases = [
        {
            "group": "courant",
            "inputs": given,
            "expected": without_source(run_case(probe, reference, given)),
            "wrong": {name: without_source(run_case(probe, f, given)) for name, (f, _) in wrong.items()},
        }
        for given in inputs
    ]
    declaration = {
        "points": points,
        "minutes": 10,
        "stars": 1,
        "hints": list(hints),
        "groups": {"courant": 1.0},
        "probe": probe,
        "tolerance": asdict(tolerance),
        "signature": f"{reference.__name__}(…)",
        "messages": {name: sentence for name, (_, sentence) in wrong.items()},
    }
    return declaration, cases


QUIZ = {
    "question": "Que vaut **deux** plus `deux`\u202f?",
    "choices": [
        {"text": "quatre", "why": "Deux et deux font `4`.", "correct": True},
        {"text": "cinq", "why": "Vous êtes allé trop loin.", "correct": False},
        {"text": "vingt-deux", "why": "Ce ne sont pas des chiffres à accoler.", "correct": False},
        {"text": "zéro", "why": "Vous avez soustrait.", "correct": False},
    ],
}


def write_pack(folder, chapter, exercises, quizzes_):
    tree, tensors = encode({name: cases for name, (_, cases) in exercises.items()})
    pack = {
        "chapter": chapter,
        "title": "Quantification",
        "exercises": {name: declaration for name, (declaration, _) in exercises.items()},
        "quizzes": quizzes_,
        "cases": tree,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{chapter}.json").write_text(json.dumps(pack), encoding="utf-8")
    (folder / f"{chapter}.safetensors").write_bytes(save(tensors))


@pytest.fixture(name="built", scope="module")
def built_fixture(tmp_path_factory):
    root = tmp_path_factory.mktemp("Cours d'été")
    shutil.copy(ROOT / "course.toml", root / "course.toml")
    wrong = {
        "no_abs": (peak_no_abs, "Testez sur un tenseur dont le plus grand écart à zéro est négatif."),
        "levels": (peak_levels, "Combien d'entiers positifs compte une plage signée sur b bits\u202f?"),
    }
    close = Tolerance(rtol=1e-6)
    exercises = {
        "peak": exercise(peak, wrong, PEAK_INPUTS, tolerance=close),
        "count": exercise(count, {}, [{"n": 3, "d": 4}, {"n": 5, "d": 6}], points=1.0),
        "square": exercise(square, {}, [{"n": list(range(20)), "k": 2}], "call_many"),
        "Doubler": exercise(Doubler, {"tripler": (Tripler, "Trois n'est pas deux.")}, MODULE_INPUTS, "module", close),
    }
    packs_folder = root / "assets" / "packs"
    write_pack(packs_folder, "ch3_quantification", exercises, {"outliers": QUIZ, "unique": QUIZ})
    write_pack(packs_folder, "ch4_distillation", {}, {"outliers": QUIZ})
    return root


@pytest.fixture(name="course", autouse=True)
def course_fixture(built, tmp_path, monkeypatch):
    """Le petit cours, avec un état vide, comme dans un noyau qui vient de démarrer."""
    monkeypatch.setenv("COURS_RACINE", str(built))
    monkeypatch.setenv("COURS_ETAT", str(tmp_path / "état"))
    monkeypatch.delenv("COURS_ENREGISTRER", raising=False)
    _forget(monkeypatch)
    yield built
    paths.root.cache_clear()
    paths.course.cache_clear()


def _forget(monkeypatch):
    paths.root.cache_clear()
    paths.course.cache_clear()
    monkeypatch.setattr(store, "_pending", {})
    monkeypatch.setattr(store, "_said", set())
    monkeypatch.setattr(checker, "_known", {})


def failure(fn):
    with pytest.raises(CheckFailed) as caught:
        check(fn)
    return str(caught.value)


def named(name, fn):
    fn.__name__ = name
    return fn


def state():
    return json.loads((store.folder() / journal.FILE).read_text(encoding="utf-8"))
