"""check, hint, progress, quiz : ce que l'étudiant lit, dans un carnet comme ailleurs."""

from __future__ import annotations

import contextlib
import json
import linecache
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

import atelier
from atelier import checker, journal, packs, paths, quizzes
from atelier import state as store
from atelier.checker import CheckFailed, check, explain_error, explain_unknown_name, passed
from atelier.journal import hint, progress
from atelier.judging import calls
from atelier.judging.codec import encode
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.probes import run_case, without_source
from atelier.limits import time_limit
from atelier.quizzes import quiz

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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
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


@pytest.fixture(autouse=True)
def course(built, tmp_path, monkeypatch):
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


# --- check -----------------------------------------------------------------------------------------------------------


def test_all_passes_and_says_what_comes_next(capsys):
    assert check(peak) is None
    out = capsys.readouterr().out
    assert out == "✔ peak\u00a0: 5 cas sur 5\n   1 exercice sur 4. À suivre\u00a0: count (1 point).\n"
    check(count)
    check(square)
    check(Doubler)
    assert "Tous les exercices du chapitre passent." in capsys.readouterr().out
    assert state()["exercises"]["ch3_quantification/peak"] == {"tries": 1, "passed": True}


def test_the_first_failing_case_reads_as_in_the_design():
    def peak(r, bits=8):
        return r.abs().max() / (2**bits - 1)

    text = failure(peak)
    assert text.splitlines() == [
        "✗ peak, cas 1 sur 5\u00a0: r = [0,5\u00a0; −2,54\u00a0; 1] (float32)",
        "   attendu\u00a0: 0,02      obtenu\u00a0: 0,009961",
        "   Piste\u00a0: Combien d'entiers positifs compte une plage signée sur b bits\u202f?",
        "   Un indice\u202f? Dans une cellule à vous (bouton +)\u00a0: hint(peak)   (0 ouvert sur 3)",
    ]
    assert state()["exercises"]["ch3_quantification/peak"] == {"tries": 1, "passed": False}


def test_an_exercise_passed_once_stays_passed():
    check(peak)
    failure(named("peak", lambda r, bits=8: r))
    assert state()["exercises"]["ch3_quantification/peak"] == {"tries": 2, "passed": True}


def test_in_a_long_list_the_failing_item_is_shown():
    text = failure(named("square", lambda n, k: n**k if n < 13 else 0))
    assert "cas 1 sur 1\u00a0: square(13, 2)\n   attendu\u00a0: 169      obtenu\u00a0: 0" in text


def test_in_a_long_list_the_item_that_crashes_is_shown():
    text = failure(named("square", lambda n, k: n**k if n < 13 else {}[n]))
    assert "cas 1 sur 1\u00a0: square(13, 2)\n   votre code s'arrête sur KeyError" in text


@pytest.mark.parametrize(
    ("inputs", "hexadecimal", "expected"),
    [
        ({"bits": 0x3C00, "e": 5, "f": 10}, ("bits",), "f(0x3C00, 5, 10)"),
        ({"bits": [0, 0x7F, 0x100], "e": 4}, ("bits",), "f([0x00, 0x7F, 0x0100], 4)"),
        ({"x": -0.0, "y": math.inf, "z": math.nan}, (), 'f(-0.0, float("inf"), float("nan"))'),
        ({"heads": (2,), "name": "c'est", "mask": None, "on": True}, (), """f((2,), "c'est", None, True)"""),
        ({"n": list(range(40))}, (), "n=[0 ; 1 ; 2 ; 3 ; 4 ; 5 ; 6 ; 7 ; … 40 éléments]"),
        ({"x": torch.zeros(7, 2), "bits": 4}, (), "x de forme (7, 2), float32, bits=4"),
    ],
)
def test_a_case_is_the_call_that_a_student_would_type(inputs, hexadecimal, expected):
    text = calls.case_text("f", "call", inputs, hexadecimal).replace("\u00a0", " ")
    assert text == expected
    if text.startswith("f("):  # et cet appel, recopié, donne les mêmes valeurs
        given = eval(text, {"f": lambda *values: values})
        assert [repr(v) for v in given] == [repr(v) for v in inputs.values()]


def test_large_inputs_are_summed_up():
    def peak(r, bits=8):
        return r.abs().max() / (2 ** (bits - 1) - 1) if r.ndim == 1 else r.sum()

    text = failure(peak)
    assert text.startswith("✗ peak, cas 2 sur 5\u00a0: r de forme (4, 5), float32, bits=4\n")


def test_strided_inputs_are_said_to_be_so():
    text = failure(named("peak", lambda r, bits=8: r.view(-1).abs().max() / (2 ** (bits - 1) - 1) if bits > 1 else r))
    assert "cas 5" in text  # une colonne se relit d'un trait
    assert calls.describe_inputs({"r": torch.ones(8, 2)[:, 1:]}) == "r de forme (8, 1), float32, non contigu"


def test_a_stub_is_to_be_written_and_not_counted():
    def peak(r, bits=8):
        raise NotImplementedError("Écrivez peak.")

    text = failure(peak)
    assert text.splitlines()[:2] == ["○ peak reste à écrire (2 points, environ 10 minutes).", "   Écrivez peak."]
    assert not (store.folder() / journal.FILE).exists()


def test_a_crash_shows_the_students_line_in_french_and_none_of_ours():
    def peak(r, bits=8):
        return r @ torch.ones(7, 7)

    text = failure(peak)
    assert "votre code s'arrête sur RuntimeError" in text
    assert re.search(r"ligne \d+\u00a0: return r @ torch.ones\(7, 7\)", text)
    assert "Autrement dit\u00a0: les dimensions" in text
    assert "probes.py" not in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("absent + 1", "sans avoir été défini"),
        ("1 / 0", "division par zéro"),
        ("r.absent", "ni attribut ni méthode"),
        ("[1][3]", "sort des bornes"),
        ("{}['a']", "clé"),
        ("r + None", "vaut None"),
        ("r + 'a'", "types incompatibles"),
        ("r(3)", "parenthèses de trop"),
        ("f()", "signature attendue est f(r, bits)"),
        ("f(r)", "s'appelle elle-même"),
        ("torch.ones(2, 3) + torch.ones(4, 3)", "ne s'alignent pas"),
        ("torch.ones(2, 3) @ torch.ones(2, 3)", "dimensions intérieures"),
        ("torch.ones(2, 3).t().view(-1)", "contigu"),
        ("torch.ones(2, 3).reshape(4, 2)", "autant d'éléments"),
        ("1 if torch.ones(3) > 0 else 2", "un seul booléen"),
        ("torch.ones(2, 2) @ torch.ones(2, 2).double()", "types différents"),
        ("__import__('absent_de_partout')", "n'est pas installé"),
        ("(_ for _ in ()).throw(SystemExit)", "arrêt du programme"),
    ],
)
def test_common_errors_are_glossed(code, words):
    space = {"torch": torch}
    exec(f"def f(r):\n    return {code}", space)
    outcome = run_case("call", space["f"], {"r": torch.ones(3)})
    assert outcome["status"] == "raised"
    assert words in explain_error(outcome, "f(r, bits)"), outcome["message"]


def test_an_unknown_error_is_left_as_it_is():
    assert explain_error({"error": "CustomError", "message": "x"}) == ""


def test_damage_is_seen():
    def peak(r, bits=8):
        if bits < 2:
            raise ValueError
        found = r.abs().max() / (2 ** (bits - 1) - 1)
        r.zero_()
        return found

    text = failure(peak)
    assert "a modifié r" in text and "ses données abîmées" in text.replace("\n" + " " * 11, " ")


@pytest.mark.parametrize("change", [torch.tensor, "int64", "float32"])
def test_a_right_integer_of_another_kind_is_told_by_its_kind(change):
    import numpy

    make = change if callable(change) else getattr(numpy, change)
    text = failure(named("count", lambda n, d: make(n * d)))
    assert "un entier" in text and "int(…)" in text and "unité" not in text


def test_wrong_dtype_is_told_before_the_value():
    text = failure(named("peak", lambda r, bits=8: torch.tensor(9.0, dtype=torch.float64)))
    assert "float32" in text and "float64" in text and "0,02" not in text


def test_an_answer_right_only_on_the_example_is_told():
    text = failure(named("peak", lambda r, bits=8: torch.tensor(0.02)))
    assert "cas 2 sur 5" in text and "Votre réponse ne bouge pas" in text


def test_a_missing_refusal_is_told():
    text = failure(named("peak", lambda r, bits=8: r.abs().max() / max(1, 2 ** (bits - 1) - 1)))
    assert "cas 5 sur 5" in text and "une erreur ValueError" in text and "entrée interdite" in text


def test_prints_are_kept_apart(capsys):
    def peak(r, bits=8):
        print("r vaut", r.shape)
        return r.max()

    text = failure(peak)
    assert text.splitlines()[-2:] == ["   Affiché par votre code (cas 1)\u00a0:", "   | r vaut torch.Size([3])"]
    assert capsys.readouterr().out == ""


def test_prints_of_a_right_answer_come_after_the_tick(capsys):
    def count(n, d):
        print("\n".join("abcdefghijkl"))
        return n * d

    check(count)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✔") and "   | a" in lines and "   …" in lines and "   | l" not in lines


def test_a_class_is_checked_too(capsys):
    check(Doubler)
    assert "✔ Doubler\u00a0: 1 cas sur 1" in capsys.readouterr().out
    bad = type("Doubler", (Tripler,), {})
    assert "Trois n'est pas deux." in failure(bad)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: named("paek", lambda r: r), "Vouliez-vous dire peak"),
        (lambda: named("rien_de_tel", lambda r: r), "n'est pas un exercice"),
        (lambda: "peak", "sans guillemets"),
        (lambda: "paek", "Vouliez-vous dire peak"),
        (lambda: torch.ones(2), "la fonction elle-même"),
        (lambda: None, "la fonction elle-même"),
    ],
)
def test_what_is_not_an_exercise(given, words):
    assert words in failure(given())


class Peak:
    def __call__(self, r, bits=8):
        return peak(r, bits)

    def method(self, r, bits=8):
        return peak(r, bits)


def logged(fn):
    def wrapper(*args):
        return fn(*args)

    return wrapper


@pytest.mark.parametrize(
    "bound",
    [
        pytest.param("lambda r, bits=8: base(r, bits)", id="lambda"),
        pytest.param("functools.partial(base)", id="partial"),
        pytest.param("base", id="autre nom"),
        pytest.param("logged(base)", id="décorée sans wraps"),
        pytest.param("functools.cache(base)", id="cache"),
        pytest.param("torch.no_grad()(base)", id="no_grad"),
        pytest.param("Peak()", id="objet"),
        pytest.param("Peak().method", id="méthode"),
        pytest.param("numpy.vectorize(base, signature='(n),()->()')", id="sans __name__ à soi"),
    ],
)
@pytest.mark.parametrize("right", [True, False])
def test_an_answer_is_what_its_name_is_bound_to(bound, right, capsys, course):
    """Comme à la correction : le nom du carnet décide, et non celui que l'objet se donne."""
    import functools

    import numpy

    tools = {"functools": functools, "torch": torch, "numpy": numpy, "Peak": Peak, "logged": logged}
    space = tools | {"base": named("ma_version", lambda r, bits=8: (peak if right else peak_levels)(r, bits))}
    space |= {"check": check, "passed": passed, "hint": hint}
    if "Peak" in bound and not right:
        space["Peak"] = type("Peak", (), {"__call__": lambda self, r, bits=8: 0 * r.sum(), "method": peak_levels})
        bound = bound.replace("Peak().method", "Peak.method")
    exec(f"peak = {bound}", space)
    if "vectorize" in bound:  # elle rend des tableaux : c'est le nom qui importe ici
        with pytest.raises(CheckFailed, match="✗ peak"):
            exec("check(peak)", space)
        return
    exec("seen = passed(peak)", space)
    assert space["seen"] is right
    if right:
        exec("check(peak)", space)
        assert "✔ peak" in capsys.readouterr().out
    else:
        with pytest.raises(CheckFailed, match="✗ peak"):
            exec("check(peak)", space)
    exec("hint(peak)", space)
    assert "peak, indice 1" in capsys.readouterr().out


def test_one_object_under_two_names_is_the_one_written(tmp_path, capsys):
    """`square = count` : check(square) juge square, et passed prend le nom de la définition."""
    code = "def count(n, d):\n    return n * d\n\n\nsquare = count\ncheck(count)\ncheck(\n    square\n)\n"
    path = tmp_path / "carnet.py"
    path.write_text(code, encoding="utf-8")
    space = {"check": check, "passed": passed}
    with pytest.raises(CheckFailed, match="✗ square"):
        exec(compile(code, str(path), "exec"), space)
    assert "✔ count" in capsys.readouterr().out
    exec("alias = square\nseen = passed(alias)", space)
    assert space["seen"]


def test_an_answer_redefined_is_the_one_the_name_now_means():
    space = {"check": check}
    exec("def peak(r, bits=8):\n    return 0 * r.sum()\nmine = lambda r, bits=8: r\nother = peak\npeak = mine", space)
    with pytest.raises(CheckFailed, match="✗ peak"):
        exec("check(mine)", space)


def test_passed_does_not_remember_what_it_cannot_read():
    """Un objet appelable ou un `partial` change sans que son code change."""

    class Count:
        wrong = 0

        def __call__(self, n, d):
            return n * d + self.wrong

    answer = Count()
    answer.__name__ = "count"
    assert passed(answer)
    answer.wrong = 1
    assert not passed(answer)


def test_an_exercise_whose_name_a_variable_took_says_so():
    space = {"check": check, "count": 0.5}
    with pytest.raises(CheckFailed, match="count.* désigne maintenant 0,5"):
        cell = "check(count)"
        linecache.cache["<cellule>"] = (len(cell), None, [cell], "<cellule>")
        exec(compile(cell, "<cellule>", "exec"), space)


def test_without_packs_the_message_says_what_to_do(course, monkeypatch, tmp_path):
    empty = tmp_path / "vide"
    empty.mkdir()
    shutil.copy(course / "course.toml", empty)
    monkeypatch.setenv("COURS_RACINE", str(empty))
    _forget(monkeypatch)
    assert "téléchargez" in failure(peak)
    hint("peak")
    progress()
    quiz("outliers")


def test_a_check_writes_only_its_state(course, tmp_path, capsys):
    """Ce qu'il dure se mesure par `python cours.py bench check`."""

    def snapshot():
        return {p: p.stat().st_mtime_ns for p in course.rglob("*")}

    check(peak)
    before = snapshot()
    check(peak)
    assert snapshot() == before
    assert {p.name for p in store.folder().iterdir()} == {journal.FILE, "progression.precedente.json", store.LOCK}


# --- Le temps --------------------------------------------------------------------------------------------------------


def test_an_endless_loop_is_stopped_and_its_line_shown(monkeypatch):
    monkeypatch.setattr(checker, "SECONDS", 0.3)
    before = signal.getsignal(signal.SIGINT)

    def peak(r, bits=8):
        while True:
            bits += 1

    text = failure(peak)
    assert "pas de réponse en 0,3 secondes" in text and re.search(r"ligne \d+\u00a0: (while|bits)", text)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loop_that_swallows_everything_is_stopped_too(monkeypatch):
    monkeypatch.setattr(checker, "SECONDS", 0.2)

    def peak(r, bits=8):
        for _ in range(3):
            try:
                while True:
                    pass
            except:  # noqa: E722
                pass
        return r.abs().max() / 127

    assert "pas de réponse" in failure(peak)


def test_no_interruption_is_left_behind():
    class Bell(BaseException):
        pass

    for delay in (0.0, 0.001, 0.01):
        for _ in range(20):
            with contextlib.suppress(Bell), time_limit(delay, Bell):
                time.sleep(delay)
    time.sleep(0.05)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_not_taken_for_the_limit():
    class Bell(BaseException):
        pass

    with pytest.raises(KeyboardInterrupt), time_limit(30, Bell):
        signal.raise_signal(signal.SIGINT)


def test_interrupting_the_cell_says_so():
    def peak(r, bits=8):
        signal.raise_signal(signal.SIGINT)

    assert "interrompu à votre demande" in failure(peak)


def test_outside_the_main_thread_there_is_no_limit_but_it_works(capsys):
    thread = threading.Thread(target=check, args=(peak,))
    thread.start()
    thread.join(10)
    assert "✔ peak" in capsys.readouterr().out


def test_slow_cases_after_the_first_failure_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(checker, "EXTRA_SECONDS", 0.2)
    waited = []

    def peak(r, bits=8):
        if r.ndim > 1:
            time.sleep(60)
            waited.append(r)
        return r.max() / (2 ** (bits - 1) - 1)

    text = failure(peak)
    assert not waited
    assert "cas 1 sur 5" in text and "écart à zéro est négatif" in text


# --- passed ----------------------------------------------------------------------------------------------------------


def test_passed_is_silent_and_remembers(capsys):
    calls = []

    def count(n, d):
        calls.append(n)
        print("bruit")
        return n * d

    assert passed(count) and passed(count)
    assert len(calls) == 2  # un appel par cas, une seule fois
    assert capsys.readouterr().out == ""
    assert not (store.folder() / journal.FILE).exists()


def test_passed_looks_again_when_the_code_or_a_helper_changes():
    space = {}
    exec("def product(n, d):\n    return n + d\n\ndef count(n, d):\n    return product(n, d)", space)
    count = space["count"]
    assert not passed(count)
    exec("def product(n, d):\n    return n * d", space)
    assert passed(count)
    exec("FACTOR = 1\ndef count(n, d):\n    return FACTOR * n * d", space)
    assert passed(space["count"])
    space["FACTOR"] = 2
    assert not passed(space["count"])


def test_passed_tells_numbers_apart_in_the_code():
    assert passed(named("count", lambda n, d: n * d))
    assert not passed(named("count", lambda n, d: 1.0 * n * d))
    assert passed(named("count", lambda n, d: 1 * n * d))


def test_passed_of_stubs_classes_and_other_functions():
    def stub(n, d):
        raise NotImplementedError("à écrire")

    assert not passed(named("count", stub))
    assert passed(Doubler) and not passed(type("Doubler", (Tripler,), {}))
    assert passed(lambda x: x)
    assert not passed(None)


# --- Dans IPython, dans un noyau, dans un script ---------------------------------------------------------------------


def python(code, cwd, **env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def test_progress_hint_and_quiz_do_not_load_torch(course):
    code = """
        import sys, atelier
        atelier.progress(); atelier.hint("peak"); atelier.quiz("unique")
        assert not {"torch", "matplotlib"} & set(sys.modules)
    """
    done = python(code, course)
    assert done.returncode == 0, done.stderr


def test_in_a_script_the_exception_names_itself_and_its_message(course):
    done = python("from atelier import check\ndef peak(r, bits=8):\n    return 0.5\ncheck(peak)", course)
    assert done.returncode == 1
    assert "atelier.CheckFailed: ✗ peak, cas 1 sur 5" in done.stderr


@pytest.fixture(scope="module")
def kernel_outputs(built, tmp_path_factory):
    """Les sorties d'un vrai noyau, cellule par cellule."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        "from atelier import check, hint, quiz",
        "def peak(r, bits=8):\n    return r.max() / (2 ** (bits - 1) - 1)",
        "check(peak)",
        "check(count)  # pas encore",
        "check(paek)",
        "x = inconnu",
        "def counts(n, d):\n    return n * d",
        "check(count)  # renommée",
        "hint(Doubler)",
        "1 / 0",
        "quiz('unique')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    folder = tmp_path_factory.mktemp("carnet")
    kept = dict(os.environ)
    os.environ |= {"COURS_RACINE": str(built), "COURS_ETAT": str(folder / "état"), "PYTHONPATH": str(ROOT)}
    try:
        client = nbclient.NotebookClient(
            notebook,
            timeout=120,
            allow_errors=True,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return {cell.source: cell.outputs for cell in notebook.cells}


def _traceback(outputs):
    (error,) = [o for o in outputs if o.output_type == "error"]
    return "\n".join(error.traceback)


def test_in_a_notebook_only_the_message_is_shown(kernel_outputs):
    text = _traceback(kernel_outputs["check(peak)"])
    assert text.startswith("✗ peak, cas 1 sur 5") and text.endswith("(0 ouvert sur 3)")
    assert kernel_outputs["check(peak)"][0].ename == "CheckFailed"


def test_in_a_notebook_an_unknown_name_is_explained(kernel_outputs):
    text = _traceback(kernel_outputs["check(count)  # pas encore"])
    assert text.startswith("✗ count n'existe pas encore") and "renommée" not in text
    assert "Vous avez défini counts" in _traceback(kernel_outputs["check(count)  # renommée"])
    assert "Vouliez-vous dire peak" in _traceback(kernel_outputs["check(paek)"])
    assert "Doubler n'existe pas encore" in _traceback(kernel_outputs["hint(Doubler)"])
    for source in ("check(paek)", "hint(Doubler)"):
        assert "NameError" not in _traceback(kernel_outputs[source])


def test_in_a_notebook_other_errors_stay_as_they_are(kernel_outputs):
    assert "NameError" in _traceback(kernel_outputs["x = inconnu"])
    assert "Traceback" in _traceback(kernel_outputs["x = inconnu"])
    assert "ZeroDivisionError" in _traceback(kernel_outputs["1 / 0"])


def test_in_a_notebook_the_quiz_is_made_of_buttons(kernel_outputs):
    (data,) = [o.data for o in kernel_outputs["quiz('unique')"] if o.output_type == "display_data"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_in_an_exported_page_the_buttons_give_way_to_answers_to_unfold(kernel_outputs):
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert")
    cell = nbformat.v4.new_code_cell("quiz('unique')", outputs=kernel_outputs["quiz('unique')"])
    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "<summary>vingt-deux</summary>" in page and "VBox" not in page


@pytest.mark.parametrize(
    ("cell", "name", "known", "words"),
    [
        ("check(peak)", "peak", [], "exécutez d'abord la cellule"),
        ("check(peak)  # essai", "peak", ["peaks"], "Vous avez défini peaks"),
        ("atelier.check(paek)", "paek", [], "Vouliez-vous dire peak"),
        ("x = 1\nhint( peak )", "peak", [], "n'existe pas encore"),
        ("check(f(peak))", "peak", [], ""),
        ("print(peak)", "peak", [], ""),
        ("check(peak)", "other", [], ""),
    ],
)
def test_unknown_names_in_a_cell(cell, name, known, words):
    text = explain_unknown_name(cell, name, known)
    assert (words in text) if words else text == ""


# --- Progression -----------------------------------------------------------------------------------------------------


def test_hints_open_one_at_a_time_and_are_counted(capsys):
    hint(peak)
    assert capsys.readouterr().out == "peak, indice 1 sur 3\u00a0: un\n"
    hint("ch3/peak")
    assert "indice 2 sur 3\u00a0: deux" in capsys.readouterr().out
    hint("peak")
    hint("peak")
    assert capsys.readouterr().out.rstrip().endswith("C'était le dernier indice.")
    assert state()["exercises"]["ch3_quantification/peak"] == {"hints": 3}
    assert "(3 ouverts sur 3)" in failure(named("peak", peak_levels))


def test_hint_of_an_unknown_exercise(capsys):
    hint()
    assert "hint(absmax_scale)" in capsys.readouterr().out
    hint("paek")
    assert "Vouliez-vous dire peak" in capsys.readouterr().out


def test_progress_by_chapter_then_by_exercise(capsys):
    check(peak)
    hint("count")
    quiz("unique", "abcd"[_shown("unique").index("quatre")])
    capsys.readouterr()
    progress()
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("Quantification")]
    assert re.split(r"\s{2,}", line.strip()) == [
        "Quantification",
        "1 sur 4 ✔○○○",
        "2 sur 7",
        "1 sur 12",
        "1 sur 2",
    ]
    progress("ch3")
    out = capsys.readouterr().out
    assert "✔ peak" in out and "○ count" in out
    progress("ch42")
    assert "n'est pas un chapitre" in capsys.readouterr().out


# --- Quiz ------------------------------------------------------------------------------------------------------------


def _shown(name):
    (chapter, declaration), *_ = packs.find("quizzes", name)
    return quizzes._Question(chapter, name, name, declaration).labels


def test_without_buttons_a_question_is_asked_and_answered_by_letter(capsys):
    quiz("unique")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Que vaut deux plus deux\u202f?"
    assert "  a) " in out and 'quiz("unique", "a")' in out and "font" not in out
    letter = re.search(r"(\w)\) cinq", out).group(1)
    quiz("unique", letter)
    assert capsys.readouterr().out == "✗ Non. Vous êtes allé trop loin.\n"
    assert state()["quizzes"]["ch3_quantification/unique"] == {"tries": 1, "correct": False}
    quiz("unique", f" {re.search(r'(.). quatre', out).group(1).upper()} ")
    assert capsys.readouterr().out == "✔ Oui. Deux et deux font 4.\n"
    quiz("unique", letter)
    assert state()["quizzes"]["ch3_quantification/unique"] == {"tries": 3, "correct": True}


@pytest.mark.parametrize("letter", ["e", "ab", "1", "é"])
def test_a_letter_that_is_no_choice(letter, capsys):
    quiz("unique", letter)
    assert "a à d" in capsys.readouterr().out


def test_a_name_that_two_chapters_use(capsys):
    quiz("outliers")
    assert 'quiz("ch3/outliers") ou quiz("ch4/outliers")' in capsys.readouterr().out
    quiz("ch4/outliers", "a")
    assert list(state()["quizzes"]) == ["ch4_distillation/outliers"]
    quiz("ch3/inconnu")
    assert "n'est pas un quiz" in capsys.readouterr().out


def test_the_order_is_the_readers_own(monkeypatch):
    orders = set()
    for reader in range(12):
        monkeypatch.setattr(quizzes, "_reader", lambda reader=reader: str(reader))
        assert _shown("unique") == _shown("unique")
        orders.add(tuple(_shown("unique")))
    assert len(orders) > 4


def test_the_order_survives_the_session(monkeypatch):
    first = [_shown("unique"), _shown("outliers")]
    _forget(monkeypatch)
    assert [_shown("unique"), _shown("outliers")] == first


def test_an_exported_page_unfolds_each_answer(monkeypatch):
    shown = []
    monkeypatch.setenv("COURS_ENREGISTRER", "1")
    monkeypatch.setattr(quizzes, "_display", lambda markup, text: shown.append(markup))
    quiz("unique")
    assert shown[0].count("<details>") == 4 and "<code>4</code>" in shown[0] and "<strong>deux</strong>" in shown[0]
    assert not (store.folder() / journal.FILE).exists()


def test_buttons_answer_with_a_sentence_read_aloud():
    widgets = pytest.importorskip("ipywidgets")
    (chapter, declaration), *_ = packs.find("quizzes", "unique")
    question = quizzes._Question(chapter, "unique", "unique", declaration)
    _, buttons, said = quizzes.build_widget(question, widgets).children
    assert buttons.value is None and buttons.layout.width == "max-content"
    buttons.value = question.labels.index("cinq")
    assert 'aria-live="polite"' in said.value and "✗ Non. Vous êtes allé trop loin." in said.value
    buttons.value = question.labels.index("quatre")
    assert "✔ Oui. Deux et deux font <code>4</code>." in said.value
    assert state()["quizzes"]["ch3_quantification/unique"] == {"tries": 2, "correct": True}


def test_markup_is_escaped():
    assert quizzes.rich("a < b & `x<y`") == "a &lt; b &amp; <code>x&lt;y</code>"


def test_public_names_lead_here():
    assert (atelier.check, atelier.hint, atelier.quiz, atelier.passed) == (check, hint, quiz, passed)
