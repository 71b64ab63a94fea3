"""passed, hint, progress, quiz, et ce que montrent un carnet, une page exportée ou un script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest
from small_course import (  # noqa: F401
    ROOT,
    Doubler,
    Tripler,
    _forget,
    built_fixture,
    course_fixture,
    failure,
    named,
    peak,
    peak_levels,
    state,
)

import atelier
from atelier import journal, packs, quizzes
from atelier import state as store
from atelier.checker import check, explain_unknown_name, passed
from atelier.journal import hint, progress
from atelier.quizzes import quiz

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
