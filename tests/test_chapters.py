"""Les vrais chapitres : à jour, conformes au catalogue, sans fuite."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest
from scratch_chapter import ROOT

from grader.authoring import build
from grader.authoring.chapters import Chapter, chapter_names, load_chapter
from grader.authoring.rules import distinctive_lines

CATALOGUE = ROOT.parent / "shared" / "exercises.md"
# Le catalogue précède les chapitres : exercices nouveaux, changés de signature ou retirés, pas encore écrits ici.
A_VENIR: dict[str, frozenset[str]] = {}


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
    """`check`, `hint`, `quiz` et les résultats enregistrés retrouvent ce qu'on leur demande par son seul nom."""
    chapters = [load_chapter(name, ROOT) for name in chapter_names(ROOT)]
    experiments = [[cell.id for cell in c.cells if cell.kind == "experiment"] for c in chapters]
    for names in ([*c.sources] for c in chapters), ([*c.quizzes] for c in chapters), experiments:
        flat = [name for found in names for name in found]
        assert len(flat) == len(set(flat))


def test_the_right_answer_of_a_quiz_is_not_given_away_by_its_length() -> None:
    """Choisir toujours la plus longue réponse, ou la plus courte, ne doit pas valoir mieux que le hasard."""
    quizzes = [q for name in chapter_names(ROOT) for q in load_chapter(name, ROOT).quizzes.values()]
    chance = sum(1 / len(q.choices) for q in quizzes)
    for choose in (max, min):
        found = sum(choose(q.choices, key=lambda c: len(c.text)).correct for q in quizzes)
        assert found <= 1.25 * chance, f"{found} bonnes réponses sur {len(quizzes)}, {chance:.0f} au hasard"


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="le catalogue ../shared/exercises.md n'est pas sur cette machine")
def test_refusals_are_those_of_the_catalogue(chapter: Chapter) -> None:
    """Un refus est demandé là où la ligne du catalogue le dit, et là seulement ; il vaut au plus un dixième."""
    rows = {m[1]: line for line in CATALOGUE.read_text().splitlines() if (m := re.match(r"\| `(?:class )?(\w+)", line))}
    asked = {id for id in chapter.sources if "ValueError" in chapter.sources[id].partition("### BEGIN")[0]}
    assert asked == {id for id in chapter.sources if "ValueError" in rows.get(id, "")}
    for id, exercise in chapter.exercises.items():
        assert sum(share for group, share in exercise.groups.items() if group.startswith("refus")) <= 0.1, id
