"""check : ce que l'étudiant lit quand il essaie une réponse."""

from __future__ import annotations

import contextlib
import linecache
import math
import re
import shutil
import signal
import threading
import time

import pytest
import torch
from small_course import (  # noqa: F401
    Doubler,
    Tripler,
    _forget,
    built_fixture,
    count,
    course_fixture,
    failure,
    named,
    peak,
    peak_levels,
    square,
    state,
)

from atelier import checker, journal
from atelier import state as store
from atelier.checker import CheckFailed, check, explain_error, passed
from atelier.journal import hint, progress
from atelier.judging import calls
from atelier.judging.probes import run_case
from atelier.limits import time_limit
from atelier.quizzes import quiz

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

    before = signal.getsignal(signal.SIGINT)
    for delay in (0.0, 0.001, 0.01):
        for _ in range(20):
            with contextlib.suppress(Bell), time_limit(delay, Bell):
                time.sleep(delay)
    time.sleep(0.05)
    assert signal.getsignal(signal.SIGINT) is before


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
