"""Les expériences : mesurées ici quand les exercices passent, sinon celles de l'auteur ; rien ne s'y perd."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from atelier import bets, experiments, hardware, paths
from atelier.evidence import Gap, paired
from atelier.experiments import Result, experiment, load, save
from grader import __main__ as command_line


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Un dossier de cours, où tout exercice nommé « fait… » passe son check."""
    paths.course.cache_clear()
    (tmp_path / "course.toml").write_text('[[chapters]]\nname = "ch1_x"\ntitle = "X"\n', encoding="utf-8")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr("atelier.passed", lambda f: f.__name__.startswith("done"))
    yield tmp_path
    paths.course.cache_clear()


def done(x):
    return x


def todo(x):
    return x


def make(needs, full=None):
    @experiment(needs=needs, full=full)
    def sweep(bits=(8, 4), seeds=(0,)):
        """Un balayage."""
        return {b: [b * 10 + s for s in seeds] for b in bits}

    return sweep


def test_an_experiment_runs_here_when_its_exercises_pass(course, capsys):
    sweep = make([done])
    assert sweep() == {8: [80], 4: [40]} and sweep(bits=(2,)) == {2: [20]}
    assert "Mesuré ici" in capsys.readouterr().out and sweep.__doc__ == "Un balayage."


def test_until_then_the_authors_result_stands_in_and_says_so(course, capsys):
    make([], {"seeds": range(3)}).record("ch1_x")
    assert make([done, todo])() == {8: [80, 81, 82], 4: [40, 41, 42]}
    said = capsys.readouterr().out
    assert "Résultat de l'auteur" in said and "`todo` passera son check" in said and "done" not in said
    assert make([todo])(bits=(2,)) == {8: [80, 81, 82], 4: [40, 41, 42]}
    assert "sans votre bits" in capsys.readouterr().out, "ce que l'on a changé ne change pas le résultat de l'auteur"


def test_a_cell_run_again_sees_the_exercise_as_it_is_now(course, monkeypatch):
    """L'exercice réécrit après l'expérience : sa cellule n'est pas à relancer."""
    make([]).record("ch1_x")
    sweep = make([todo])
    assert sweep() == {8: [80], 4: [40]}
    monkeypatch.setitem(globals(), "todo", done)
    assert sweep(bits=(2,)) == {2: [20]}
    monkeypatch.setitem(globals(), "todo", 0.5)
    monkeypatch.setattr("atelier.passed", callable)
    assert sweep(bits=(2,)) == {8: [80], 4: [40]}, "une variable a pris le nom de l'exercice"


def test_without_either_it_says_what_it_waits_for(course):
    with pytest.raises(LookupError, match="sweep attend todo"):
        make([todo])()
    path, _ = make([]).record("ch1_x")
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(LookupError, match="abîmé"):
        make([todo])()


VALUES = [
    {1: 0.5, (2, "a"): None, "b": [True, (1, 2)]},
    {"poids": torch.arange(6).reshape(2, 3).float(), "codes": torch.tensor([1, 2], dtype=torch.int8)},
    [math.inf, -0.0, 10**30],
    {},
    {"suites": ["[ deux  espaces,", "fin ]"], "b": [["à", "é"], [1.5, 2]]},
]


@pytest.mark.parametrize("value", VALUES)
def test_a_result_comes_back_as_it_was(course, value):
    path = paths.asset("results", "ch1_x", "r.json")
    save(path, Result(value, {"bits": (8, 4), "seeds": range(2)}, "cpu", "une machine", "2026-11-30", 1.5, "abc"))
    found = load(path)
    assert found.arguments == {"bits": (8, 4), "seeds": [0, 1]} and (found.scale, found.seconds) == ("cpu", 1.5)
    for a, b in zip(flat(value), flat(found.value), strict=True):
        assert (
            torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b and type(a) is type(b)
        )
    assert path.with_suffix(".safetensors").is_file() == any(isinstance(v, torch.Tensor) for v in flat(value))


def flat(value):
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in (k, *flat(v))]
    return [x for v in value for x in flat(v)] if isinstance(value, (list, tuple)) else [value]


def test_a_better_result_is_not_replaced_unasked(course, monkeypatch):
    path, kept = make([]).record("ch1_x")
    assert kept is None and make([]).record("ch1_x")[1] is None, "même échelle, même machine : refait"
    better = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"scale": "gpu"}, {"machine": "une autre"}):
        path.write_text(json.dumps(better | change), encoding="utf-8")
        before = path.read_bytes()
        assert make([]).record("ch1_x")[1] is not None and path.read_bytes() == before
        assert make([]).record("ch1_x", redo=True)[1] is None and path.read_bytes() != before
    path.write_text(json.dumps(better | {"machine": better["machine"].replace(" ", "\u00a0")}), encoding="utf-8")
    assert make([]).record("ch1_x")[1] is None, "une espace insécable ne fait pas une autre machine"
    monkeypatch.setenv("COURS_ECHELLE", "cpu")
    monkeypatch.setattr(hardware, "machine", lambda: better["machine"])
    path.write_text(json.dumps(better | {"scale": "essai"}), encoding="utf-8")
    assert make([]).record("ch1_x")[1] is None, "une plus grande échelle remplace une plus petite"
    assert experiments.result_path("sweep") == path and experiments.result_path("autre") is None


CHAPTER = '''\
# %% [markdown]
# # Chapitre

# %% tags=["setup"]
from atelier import experiment

# %%
start = 3

# %%
raise SystemExit("une démonstration dont l'expérience n'a pas besoin")

# %% experiment="counting"
@experiment(full={"seeds": range(4)})
def counting(seeds=(0,)):
    """Compte."""
    return {s: start + s for s in seeds}

# %%
print(counting())
'''


def test_the_command_records_what_a_cell_measures(course, capsys):
    folder = course / "solutions" / "ch1_x"
    folder.mkdir(parents=True)
    (folder / "chapter.py").write_text(CHAPTER, encoding="utf-8")
    assert command_line.main(["mesures", "ch1_x"]) == 0
    path = course / "assets" / "results" / "ch1_x" / "counting.json"
    assert load(path).value == {0: 3, 1: 4, 2: 5, 3: 6} and load(path).arguments == {"seeds": [0, 1, 2, 3]}
    assert "COURS_ENREGISTRER" not in os.environ
    assert command_line.main(["mesures", "ch1_x", "autre"]) == 2
    assert "Celles du chapitre" in capsys.readouterr().err


def test_without_names_only_what_changed_is_measured_again(course, capsys):
    folder = course / "solutions" / "ch1_x"
    folder.mkdir(parents=True)
    path = course / "assets" / "results" / "ch1_x" / "counting.json"
    other = """
# %% experiment="other"
@experiment()
def other(x=1):
    return x
"""
    (folder / "chapter.py").write_text(CHAPTER + other, encoding="utf-8")

    def measured(*options: str) -> list[str]:
        assert command_line.main(["mesures", "ch1_x", *options]) == 0
        return [line[:-1] for line in capsys.readouterr().out.splitlines() if line.endswith("…")]

    assert measured() == ["counting", "other"] and measured() == []
    assert measured("other") == ["other"] and measured("--redo") == ["counting", "other"]
    commented = CHAPTER.replace('"""Compte."""', '"""Compte tout."""  # de zéro')
    (folder / "chapter.py").write_text(commented + other, encoding="utf-8")
    assert measured() == [], "ni titre, ni commentaire, ni mise en page"
    (folder / "chapter.py").write_text(CHAPTER.replace("start + s", "start + 2 * s") + other, encoding="utf-8")
    assert measured() == ["counting"] and load(path).value == {0: 3, 1: 5, 2: 7, 3: 9}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda path: path.unlink(), 2, "aucun résultat n'est enregistré : python cours.py mesures ch1_x counting"),
        (lambda path: path.write_text("{", encoding="utf-8"), 2, "ne se lit pas"),
        (lambda path: path.rename(path.with_name("older.json")), 2, "older.json : aucune expérience"),
        (lambda path: None, 0, "avertissement : le résultat enregistré vient d'un autre texte"),
    ],
)
def test_build_says_what_became_of_a_result(course, capsys, change, code, words):
    claimed(
        course, CLAIMED.replace(" <!-- claim: four_values -->", "").replace("va quatre fois plus loin", "finit"), ""
    )
    change(course / "assets/results/ch1_x/counting.json")
    assert command_line.main(["build"]) == code
    out, err = capsys.readouterr()
    assert words in (out + err).replace("\u00a0", " ")


BAD = [
    ("def counting", "def count", "ne définit pas d'expérience `counting`"),
    ('@experiment(full={"seeds": range(4)})\n', "", "ne définit pas d'expérience"),
    ('    """Compte."""\n', '    """Compte."""\n' + "    start\n" * 20, "lignes, 18 au plus"),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD)
def test_build_refuses_an_experiment_that_is_not_one(course, capsys, old, new, words):
    folder = course / "solutions" / "ch1_x"
    folder.mkdir(parents=True)
    assert old in CHAPTER
    (folder / "chapter.py").write_text(CHAPTER.replace(old, new), encoding="utf-8")
    assert command_line.main(["build"]) == 2
    said = capsys.readouterr().err.replace("\u00a0", " ")
    assert words in said and "chapter.py:1" in said


CLAIMED = (
    CHAPTER.replace('raise SystemExit("', 'print("')
    + """
# %% [markdown]
# Le compte va quatre fois plus loin. <!-- claim: four_values -->
#
# Une autre phrase.
"""
)
CLAIMS = "def four_values(results):\n    return len(results('counting')) == 4\n"


def claimed(course: Path, chapter: str = CLAIMED, claims: str = CLAIMS) -> None:
    folder = course / "solutions" / "ch1_x"
    folder.mkdir(parents=True)
    (folder / "chapter.py").write_text(chapter, encoding="utf-8")
    (folder / "claims.py").write_text(claims, encoding="utf-8")
    save(
        course / "assets/results/ch1_x/counting.json",
        Result({0: 3, 1: 4, 2: 5, 3: 6}, {}, "cpu", "une machine", "2026-11-30", 1.0, "abc"),
    )


def test_a_claim_that_holds_leaves_no_mark_in_the_notebook(course):
    claimed(course)
    assert command_line.main(["build"]) == 0
    text = (course / "notebooks" / "ch1_x.ipynb").read_text(encoding="utf-8")
    assert "quatre fois plus loin." in text and "claim" not in text


NEXT = """
# %%
found = counting()
print(found)

# %%
print(found[0])

# %% [markdown]
# Voici le résultat.
#
# Il double toujours.
"""
SAFE = ["# # Titre\n#\n# Il double toujours.", "# Voici.\n#\n# Double-t-il toujours ?", "# Voici.\n\n# %%\n1\n"]


@pytest.mark.parametrize("text", SAFE)
def test_a_title_a_question_and_what_comes_later_need_no_claim(course, text):
    claimed(course, CLAIMED + NEXT.partition("# Voici")[0] + text)
    assert command_line.main(["build"]) == 0


WRONG_CLAIMS = [
    (CLAIMED + NEXT, CLAIMS, "(« toujours »)"),
    (CLAIMED, CLAIMS.replace("== 4", "== 5"), "chapter.py:23 (four_values) : cette affirmation est fausse"),
    (CLAIMED, CLAIMS.replace("'counting'", "'other'"), "mesures ch1_x other"),
    (CLAIMED, CLAIMS.replace("len(", "1 / 0 + len("), "le prédicat échoue : ZeroDivisionError"),
    (CLAIMED, CLAIMS + "def other(results):\n    return True\n", "claims.py:3 (other) : aucune phrase ne la dit"),
    (CLAIMED.replace("claim: four", "claim: five"), CLAIMS, "`five_values` n'est pas dans"),
    (
        CLAIMED.replace(" <!-- claim: four_values -->", ""),
        CLAIMS,
        "ce paragraphe conclut d'une expérience (« fois ») : il y faut",
    ),
    (CLAIMED, "1 / 0\n", "claims.py:1 : l'exécution échoue"),
]


@pytest.mark.parametrize(("chapter", "claims", "words"), WRONG_CLAIMS)
def test_a_claim_that_its_results_do_not_bear_stops_the_build(course, capsys, chapter, claims, words):
    claimed(course, chapter, claims)
    assert command_line.main(["build"]) == 2
    assert words in capsys.readouterr().err.replace("\u00a0", " ")


def test_only_the_cells_asked_for_are_executed(course, capsys):
    claimed(course, CLAIMED.replace('print("une', 'raise SystemExit("une'))
    assert command_line.main(["build", "--execute"]) == 2
    assert command_line.main(["build", "--execute", "ch1_x", "--cells", "counting"]) == 0
    solved = json.loads((course / "solutions" / "ch1_x" / "ch1_x.ipynb").read_text(encoding="utf-8"))
    ran = {"".join(c["source"]): c["outputs"] for c in solved["cells"] if c.get("execution_count")}
    assert "{0: 3}" in json.dumps(ran["print(counting())"]) and not [text for text in ran if "SystemExit" in text]
    assert command_line.main(["build", "--execute", "ch1_x", "--cells", "20"]) == 0, "une ligne de chapter.py"
    for wrong in (["ch1_x", "--cells", "autre"], ["ch1_x", "--cells", "99"], ["--cells", "counting"]):
        assert command_line.main(["build", "--execute", *wrong]) == 2


@pytest.fixture
def reader(course, monkeypatch):
    """Un lecteur dont l'état est dans ce cours."""
    monkeypatch.setenv("COURS_ETAT", str(course / "etat"))
    monkeypatch.setenv("COURS_SANS_WIDGETS", "1")
    return course


def test_a_bet_is_kept_and_shown_beside_the_result(reader, capsys):
    bets.bet("four_bits", "De combien la perplexité monte-t-elle ?")
    assert 'bet("four_bits", guess=3.5)' in capsys.readouterr().out
    bets.settle("four_bits", 46.4)
    assert capsys.readouterr().out == "", "qui n'a pas parié n'apprend rien de lui"
    bets.bet("four_bits", guess=20)
    bets.settle("four_bits", 46.4)
    bets.bet("four_bits", "De combien ?")
    said = capsys.readouterr().out.replace("\u00a0", " ").replace("\u202f", " ")
    assert "Pari gardé : 20." in said and "Votre pari : 20." in said
    assert "Vous aviez parié 20 ; la mesure donne 46,4, 2,3 fois plus." in said


@pytest.mark.parametrize(
    ("kept", "measured", "words"),
    [
        (10, 10.2, "à 5\u00a0% près"), (10, 2.5, "4 fois moins"), (-1, 3.0, "la mesure donne 3."), (0, 3.0, "donne 3."),
        ("par canal", "par canal", "c'est bien ce qui se mesure"), ("par canal", "par groupe", "dit «\u00a0par groupe"),
    ],
)  # fmt: skip
def test_what_a_bet_was_worth(reader, capsys, kept, measured, words):
    bets.bet("b", guess=kept)
    bets.settle("b", measured)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(("guess", "options"), [(True, ()), (math.nan, ()), ([1], ()), ("ailleurs", ("ici", "là"))])
def test_a_guess_that_is_none_is_refused(reader, guess, options):
    with pytest.raises(ValueError, match="on parie ici"):
        bets.bet("b", options=options, guess=guess)
    assert bets.guessed("b") is None


def test_the_widget_keeps_what_is_typed_or_chosen(reader):
    import ipywidgets

    typed = bets.build_widget("b", "Combien ?", (), None, ipywidgets)
    field, button = typed.children[1].children
    field.value = 7.0
    button.click()
    assert bets.guessed("b") == 7.0 and "Votre pari" in typed.children[2].value
    picked = bets.build_widget("c", "Où ?", ("**ici**", "là"), None, ipywidgets)
    picked.children[1].value = "ici"
    assert bets.guessed("c") == "**ici**" and "aria-live" in picked.children[2].value


# --- Comparer ---------------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_truth_nineteen_times_in_twenty():
    generator = torch.Generator().manual_seed(1)
    for n in (5, 8, 20):
        drawn = [(torch.randn(n, generator=generator) + 0.3).tolist() for _ in range(1000)]
        held = [gap.low <= 0.3 <= gap.high for gap in (paired(a, [0.0] * n) for a in drawn)]
        assert 0.92 <= sum(held) / len(held) <= 0.98, n


def test_pairing_sees_a_small_difference_between_uneven_parts():
    parts = [2.0, 3.5, 1.0, 4.0, 2.5, 3.0]
    gap = paired([p + 0.1 + 0.001 * i for i, p in enumerate(parts)], parts)
    assert gap.told_apart and 0.0999 < gap.low < gap.mean < gap.high < 0.1051
    assert gap.as_ratio().replace("\u00a0", " ").replace("\u202f", " ").startswith("× 1,108 [1,105 ; 1,111]")
    assert not paired([1, -1, 2, -2, 0.5], [0.0] * 5).told_apart
    assert paired(parts, parts) == Gap(0.0, 0.0, 0.0) and not paired(parts, parts).told_apart
    for a, b in (([1.0] * 5, [1.0] * 6), ([1.0] * 4, [1.0] * 4)):
        with pytest.raises(ValueError, match="cinq valeurs"):
            paired(a, b)
