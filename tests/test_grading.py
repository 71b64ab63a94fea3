"""Noter une copie : points, verdicts, retour."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from essai import SOLVED, as_bytes, cell_of, filled

from atelier.judging.codec import dumps
from grader.classroom.grading import Result, draw, earned, fresh_seed, is_constant
from grader.classroom.nbglue import Assignment, grade_notebook, points_of, write_results
from grader.classroom.submission import KEY, plan, read_notebook, repair
from grader.jail.outside.sandbox import Sandbox

LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="regarde dans /proc, absent de ce système")
POINTS = {"scale_up": 2.0, "count_true": 1.0, "spread": 3.0}


def grade(essai: Assignment, sandbox: Sandbox, notebook, seed: int | None = None) -> dict[str, Result]:
    """Note un carnet comme s'il venait d'être rendu."""
    repaired, notes = repair(read_notebook(as_bytes(notebook)), essai.template)
    repaired.metadata[KEY] = {"notes": notes}
    results = grade_notebook(repaired, essai, points_of(repaired, essai.template), sandbox, seed)
    return {r.exercise: r for r in results}


def answered(essai: Assignment, **answers: str):
    return filled(essai.template, SOLVED | {k: textwrap.dedent(v) for k, v in answers.items()})


def scores(results: dict[str, Result]) -> dict[str, float]:
    return {k: r.score for k, r in results.items()}


# --- verdicts et points -----------------------------------------------------------------------------------------------

ANSWERS = {
    "correct": (SOLVED["scale_up"], 2.0, "correct", None),
    "misconception": ("def scale_up(x, factor):\n    return x + factor", 0.0, "misconception", "adds"),
    "partial, no refusal": ("def scale_up(x, factor):\n    return x * factor", 1.4, "misconception", "no_check"),
    "refuses everything": ("def scale_up(x, factor):\n    raise ValueError", 0.0, "error", None),
    "constant": ("def scale_up(x, factor):\n    return x * 0", 0.0, "misconception", None),
    "wrong value": (
        "import torch\ndef scale_up(x, factor):\n"
        "    if factor <= 0: raise ValueError\n    return x.abs().sqrt() * factor",  # juste sur aucun tirage
        0.0,
        "incorrect",
        None,
    ),
    "fails on zeros only": (
        "def scale_up(x, factor):\n    if factor <= 0: raise ValueError\n    assert x.any()\n    return x * factor",
        1.6,
        "partial",
        None,
    ),
    "runtime error": ("def scale_up(x, factor):\n    return x / undefined_name", 0.0, "error", None),
    "syntax error": ("def scale_up(x, factor:\n    return x", 0.0, "error", None),
    "other name": ("def scale(x, factor):\n    return x * factor", 0.0, "error", None),
    "empty": ("", 0.0, "missing", None),
    "still to do": ("def scale_up(x, factor):\n    raise NotImplementedError('bientôt')", 0.0, "missing", None),
    "endless": ("def scale_up(x, factor):\n    while True: pass", 0.0, "timeout", None),
    "endless cell": ("while True: pass", 0.0, "timeout", None),
    "kills python": ("import os\ndef scale_up(x, factor):\n    os._exit(0)", 0.0, "error", None),
    "returns a numpy array": ("def scale_up(x, factor):\n    return (x * factor).numpy()", 0.0, "incorrect", None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_each_answer_has_its_score_and_verdict_and_costs_only_itself(essai, sandbox, case):
    source, score, verdict, misconception = ANSWERS[case]
    results = grade(essai, sandbox, answered(essai, scale_up=source))
    found = results["scale_up"]
    if case == "constant":  # quelle idée fausse est nommée dépend des règles génériques ; le zéro, non
        assert found.score == 0 and found.verdict in ("misconception", "incorrect")
    else:
        assert (found.score, found.verdict, found.misconception) == (score, verdict, misconception), found.message
    assert found.message.strip() and found.exercise in found.feedback
    assert [results[k].verdict for k in ("count_true", "spread")] == ["correct", "correct"]
    assert [results[k].score for k in ("count_true", "spread")] == [1.0, 3.0]


def test_untouched_notebook_is_missing_everywhere(essai, sandbox):
    results = grade(essai, sandbox, essai.template.blank())
    assert {r.verdict for r in results.values()} == {"missing"}
    assert sum(scores(results).values()) == 0


def test_a_group_of_errors_or_constants_counts_only_after_the_typical_group(essai, sandbox):
    refuses = "def scale_up(x, factor):\n    if factor <= 0 or x.any(): raise ValueError\n    return x"
    result = grade(essai, sandbox, answered(essai, scale_up=refuses))["scale_up"]
    by_name = {g.name: g for g in result.groups}
    assert by_name["zéro"].full and by_name["refus"].full
    assert not by_name["zéro"].counted and not by_name["refus"].counted
    assert result.score == 0
    assert "comptés seulement si le premier groupe passe" in result.feedback
    assert "parce que «\u00a0courant\u00a0» ne passe pas en entier, et que les autres" in result.feedback


def test_constant_groups():
    def value(v):
        return {"status": "value", "value": v, "modified": []}

    error = {"status": "raised", "error": "ValueError", "mro": ["ValueError"], "message": ""}
    assert is_constant([value(3), value(3)]) and is_constant([error, error])
    assert is_constant([value(torch.zeros(2)), value(torch.zeros(2))])
    assert not is_constant([value(3), value(4)])
    assert not is_constant([value(torch.zeros(2)), value(torch.zeros(3))])
    assert not is_constant([error, value(3)]) and not is_constant([value(3), error])


def test_points_are_shares_of_full_groups_rounded(essai):
    from grader.classroom.grading import GroupScore

    groups = [
        GroupScore("a", 1 / 3, 4, 4, True),
        GroupScore("b", 1 / 3, 3, 4, True),
        GroupScore("c", 1 / 3, 4, 4, False),
    ]
    assert earned(groups, 2) == 0.67


def test_seeds_are_fresh_and_replayable(essai, sandbox):
    wrong = answered(essai, scale_up="def scale_up(x, factor):\n    return x + factor")
    first = grade(essai, sandbox, wrong)
    second = grade(essai, sandbox, wrong)
    seeds = [{r.seed for r in results.values()} for results in (first, second)]
    assert [len(s) for s in seeds] == [1, 1] and not seeds[0] & seeds[1]
    assert first["scale_up"].feedback != second["scale_up"].feedback
    replayed = grade(essai, sandbox, wrong, seed=int(first["scale_up"].seed))
    assert replayed["scale_up"].feedback == first["scale_up"].feedback
    assert first["scale_up"].seed in first["scale_up"].feedback


def test_correct_answers_keep_full_marks_whatever_the_seed(essai, sandbox):
    for _ in range(10):
        assert scores(grade(essai, sandbox, answered(essai))) == POINTS


def test_drawn_cases_do_not_repeat_from_one_grading_to_the_next(essai):
    one, other = draw(essai.chapter, fresh_seed())[0], draw(essai.chapter, fresh_seed())[0]
    assert not torch.equal(one.cases[0][1]["x"].sum(), other.cases[0][1]["x"].sum())


IN_PLACE = "def scale_up(x, factor):\n    if factor <= 0: raise ValueError\n    return x.mul_(factor)"


def test_one_grading_gives_every_copy_the_same_subject_that_no_copy_spoils(essai, sandbox):
    """Une bonne, une fausse, une qui écrit dans ses entrées : le sujet et ses réponses en sortent intacts."""
    seed = fresh_seed()
    subject = essai.subject(seed)
    content = [dumps({"inputs": d.cases, "expected": d.expected, "wrong": d.wrong}) for d in subject]
    answers = [SOLVED["scale_up"], "def scale_up(x, factor):\n    return x + factor", IN_PLACE]
    first, second = ([grade(essai, sandbox, answered(essai, scale_up=a), seed) for a in answers] for _ in range(2))
    assert essai.subject(seed) is subject
    assert [dumps({"inputs": d.cases, "expected": d.expected, "wrong": d.wrong}) for d in subject] == content
    assert first == second and [r["scale_up"].verdict for r in first[:2]] == ["correct", "misconception"]
    assert first[2]["scale_up"].misconception == "in_place"


def test_record_has_exactly_the_agreed_keys(essai, sandbox):
    record = grade(essai, sandbox, answered(essai))["spread"].record("zoe", "ch1_essai")
    assert list(record) == [
        "student",
        "assignment",
        "exercise",
        "score",
        "max_score",
        "verdict",
        "misconception",
        "message",
    ]


def test_feedback_explains_partial_credit_in_french(essai, sandbox):
    result = grade(essai, sandbox, answered(essai, scale_up="def scale_up(x, factor):\n    return x * factor"))[
        "scale_up"
    ]
    text = result.feedback
    assert "parce que «\u00a0courant\u00a0» et «\u00a0zéro\u00a0» passent en entier (70\u00a0% des points)" in text
    assert f"et «\u00a0refus\u00a0» non (cas tirés avec la graine {result.seed}, rejouables à l'identique)." in text
    assert "✔ courant" in text and "✗ refus" in text and "Piste" in text
    assert "Un groupe rapporte sa part" in text and "check était complet" in text
    assert "1,4 / 2" in text


def test_results_go_through_nbgrader_own_reading(essai, sandbox):
    from nbgrader.utils import determine_grade

    notebook = answered(essai, scale_up="def scale_up(x, factor):\n    return x * factor")
    repaired, notes = repair(read_notebook(as_bytes(notebook)), essai.template)
    repaired.metadata[KEY] = {"notes": notes}
    results = grade_notebook(repaired, essai, POINTS, sandbox)
    write_results(repaired, results)
    assert {id: determine_grade(cell_of(repaired, f"test_{id}"))[0] for id in POINTS} == {
        "scale_up": 1.4,
        "count_true": 1.0,
        "spread": 3.0,
    }


# --- ce qui est exécuté -----------------------------------------------------------------------------------------------


def add_cell(notebook, source: str, before: str):
    import nbformat

    index = next(i for i, c in enumerate(notebook.cells) if c.metadata.get("nbgrader", {}).get("grade_id") == before)
    notebook.cells.insert(index, nbformat.v4.new_code_cell(source))
    return notebook


def test_only_what_matters_runs(essai):
    notebook, _ = repair(read_notebook(as_bytes(answered(essai))), essai.template)
    cells = plan(notebook, essai.template).cells
    assert [c.kind for c in cells] == ["setup", "solution", "solution", "solution"]


def test_helper_in_another_cell_magics_and_failing_scribbles(essai, sandbox):
    notebook = answered(essai, spread="%time\ndef spread(x):\n    return helper(x, 1) + helper(x, -1)\n")
    add_cell(notebook, "def helper(x, sign):\n    return (sign * x).max()", "spread")
    add_cell(notebook, "1 / 0", "spread")
    add_cell(notebook, "%matplotlib inline\ncheck(spread)\ninput()", "spread")
    assert scores(grade(essai, sandbox, notebook)) == POINTS


def test_the_author_setup_runs_whatever_the_student_did_to_it(essai, sandbox):
    notebook = answered(essai)
    index = next(i for i, c in enumerate(notebook.cells) if "SHIFT = 3" in c.source)
    notebook.cells[index].source = "import torch\nraise RuntimeError('cassé')"
    assert scores(grade(essai, sandbox, notebook)) == POINTS
    del notebook.cells[index]
    assert scores(grade(essai, sandbox, notebook)) == POINTS


def test_what_the_notebook_leaves_is_graded_and_said(essai, sandbox):
    notebook = add_cell(answered(essai), "def scale_up(x, factor):\n    return None", "test_spread")
    result = grade(essai, sandbox, notebook)["scale_up"]
    assert result.score == 0 and "deux versions différentes" in result.feedback


def test_an_answer_written_in_a_new_cell_is_found(essai, sandbox):
    notebook = filled(essai.template, {k: v for k, v in SOLVED.items() if k != "spread"})
    assert grade(essai, sandbox, add_cell(notebook, SOLVED["spread"], "test_spread"))["spread"].verdict == "correct"


def test_two_answers_in_one_cell_are_both_found(essai, sandbox):
    notebook = filled(
        essai.template,
        {"scale_up": SOLVED["scale_up"], "count_true": SOLVED["count_true"] + SOLVED["spread"]},
    )
    assert scores(grade(essai, sandbox, notebook)) == POINTS


SHARED = {
    "flag": ("seen = []\n", "    seen.append(1)\n", "    if seen: return -1\n"),
    "exit later": ("seen = []\n", "    seen.append(1)\n", "    if seen: os._exit(1)\n"),
    "slow later": ("seen = []\n", "    seen.append(1)\n", "    while seen: pass\n"),
    "library": ("import textwrap\n", "    textwrap.dedent = len\n", "    if textwrap.dedent is len: raise OSError\n"),
}


@pytest.mark.parametrize("how", SHARED)
def test_what_one_exercise_leaves_behind_never_costs_another(essai, sandbox, how):
    """scale_up passe le premier ; ce qu'il laisse trompe count_true, qui est juste quand il est seul."""
    setup, leaves, suffers = SHARED[how]
    head, body = SOLVED["scale_up"].strip().split("\n", 1)
    harmed, rest = SOLVED["count_true"].strip().split("\n", 1)
    found = grade(
        essai,
        sandbox,
        answered(
            essai,
            scale_up=f"import os\n{setup}{head}\n{leaves}{body}",
            count_true=f"{harmed}\n{suffers}{rest}",
        ),
    )
    assert scores(found) == POINTS and {r.verdict for r in found.values()} == {"correct"}
