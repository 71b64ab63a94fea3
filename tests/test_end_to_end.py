"""D'un bout à l'autre sur un vrai chapitre : init, publish, copies, collect, grade, retours, export, report."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from essai import as_bytes, filled

from atelier import paths
from grader import UserError
from grader.__main__ import main
from grader.authoring.chapters import load_chapter
from grader.authoring.declarations import Swap
from grader.authoring.publish import publish
from grader.authoring.rules import distinctive_lines
from grader.classroom.course import Course
from grader.classroom.nbglue import assignment

CHAPTER = "ch3_quantification"
EXERCISE, MISCONCEPTION = "absmax_scale", "no_abs"
HALF = ("decode_float", "sqnr_db", "pack_int4")


def wrong_source(chapter, exercise: str, name: str) -> str:
    """Le code d'une idée fausse déclarée comme un remplacement dans la solution."""
    found = next(m for m in chapter.exercises[exercise].misconceptions if m.name == name)
    assert isinstance(found.wrong, Swap)
    return found.wrong.apply(chapter.sources[exercise])


def nbgrader(folder: Path, *arguments: str) -> str:
    """Une commande nbgrader tapée dans le dossier du cours."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory):
    """Tout le parcours, une fois ; chaque test en regarde une étape."""
    folder = tmp_path_factory.mktemp("parcours")
    course, bundle = folder / "cours", folder / "publié é"
    assert main(["init", str(course), CHAPTER]) == 0
    assert main(["publish", "--to", str(bundle)]) == 0
    installed = folder / "installé é"
    zipfile.ZipFile(next(bundle.glob("atelier-*.whl"))).extractall(installed)
    given = assignment(CHAPTER)
    chapter = given.chapter
    right = dict(chapter.sources)
    answers = {
        "Zoé Ødegård_4711": right,
        "Bob Martin_4712": {**right, EXERCISE: wrong_source(chapter, EXERCISE, MISCONCEPTION)},
        "Vide Vide_4713": {},
        "Ève Moitié_4714": {k: right[k] for k in HALF},
    }
    archive = folder / "depot.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for person, written in answers.items():
            copy = as_bytes(filled(given.template, written))
            out.writestr(f"{person}_assignsubmission_file_/tp1 (1).ipynb", copy)
        out.writestr("Zoé Ødegård_4711_assignsubmission_file_/notes.pdf", b"%PDF")
        out.writestr("../../etc/Pirate Nom_4715_assignsubmission_file_/tp1.ipynb", b'{"cells": [')
    assert main(["collect", str(archive), "--course", str(course)]) == 0
    records = folder / "notes.json"
    status = main(["grade", CHAPTER, "--course", str(course), "--json", str(records)])
    assert main(["report", CHAPTER, "--course", str(course)]) == 0
    nbgrader(course, "generate_feedback", CHAPTER)
    assert main(["feedback", CHAPTER, "--course", str(course)]) == 0  # plus rien à refaire, ou à dire
    nbgrader(course, "export")
    return SimpleNamespace(
        folder=folder,
        course=course,
        bundle=bundle,
        installed=installed,
        chapter=chapter,
        status=status,
        records=json.loads(records.read_text(encoding="utf-8")),
        points=Course(course).points(CHAPTER),
    )


def totals(records: list[dict]) -> dict[str, float]:
    found: dict[str, float] = {}
    for r in records:
        found[r["student"]] = found.get(r["student"], 0) + r["score"]
    return found


def exported(course: Path) -> dict[str, float]:
    rows = csv.DictReader(io.StringIO((course / "grades.csv").read_text(encoding="utf-8")))
    return {row["student_id"]: float(row["score"]) for row in rows if row["assignment"] == CHAPTER}


def by_student(story) -> dict[str, float]:
    """Ce que valent les réponses de chacun, bonus compris et sans plafond."""
    worth = {id: float(e.points) for id, e in story.chapter.exercises.items()}
    full = sum(worth.values())
    half = sum(worth[k] for k in HALF)
    wrong = next(r for r in story.records if r["student"] == "bob-martin" and r["exercise"] == EXERCISE)
    return {
        "zoe-odegard": full,
        "bob-martin": full - worth[EXERCISE] + wrong["score"],
        "vide-vide": 0.0,
        "eve-moitie": half,
        "pirate-nom": 0.0,
    }


def capped(story) -> dict[str, float]:
    """Les notes : un bonus ne fait pas passer le maximum."""
    return {student: min(value, sum(story.points.values())) for student, value in by_student(story).items()}


def test_the_course_folder_is_ready(story):
    release = story.course / "release" / CHAPTER / f"{CHAPTER}.ipynb"
    ours = nbformat.read(paths.root() / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    assert [c.source for c in nbformat.read(release, as_version=4).cells] == [c.source for c in ours.cells]
    source = (story.course / "source" / CHAPTER / f"{CHAPTER}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" in source
    assert story.points == {id: float(e.required) for id, e in story.chapter.exercises.items()}


def test_marks_and_verdicts(story):
    assert story.status == 1  # une copie est refusée : quelqu'un doit la regarder
    assert totals(story.records) == pytest.approx(by_student(story))
    assert len(story.records) == 5 * len(story.points)
    found = {(r["student"], r["exercise"]): r for r in story.records}
    assert found["bob-martin", EXERCISE]["verdict"] == "misconception"
    assert found["bob-martin", EXERCISE]["misconception"] == MISCONCEPTION
    assert found["bob-martin", EXERCISE]["score"] < story.points[EXERCISE]
    assert {r["verdict"] for r in story.records if r["student"] == "zoe-odegard"} == {"correct"}
    assert {r["verdict"] for r in story.records if r["student"] == "vide-vide"} == {"missing"}
    assert {r["verdict"] for r in story.records if r["student"] == "eve-moitie"} == {"correct", "missing"}
    refused = [r for r in story.records if r["student"] == "pirate-nom"]
    assert {r["verdict"] for r in refused} == {"refused"} and "abîmé" in refused[0]["message"]


def test_nbgrader_exports_the_same_marks(story):
    assert exported(story.course) == pytest.approx(capped(story))


def test_nothing_was_written_outside(story):
    assert not (story.folder.parent / "etc").exists() and not (story.folder / "etc").exists()
    assert {p.name for p in (story.course / "submitted").iterdir()} == set(by_student(story))


def test_the_feedback_pages_tell_the_student(story):
    page = (story.course / "feedback" / "bob-martin" / CHAPTER / f"{CHAPTER}.html").read_text(encoding="utf-8")
    sentence = next(m.message for m in story.chapter.exercises[EXERCISE].misconceptions if m.name == MISCONCEPTION)
    assert sentence.split("\u00a0")[0][:40] in page
    assert "Un groupe rapporte sa part des points" in page and "cas tirés avec la graine" in page
    assert 'lang="fr"' in page and "Test cell" not in page and "Score:" not in page
    for line in distinctive_lines(story.chapter.sources["gptq_quantize"]):
        blank = (story.course / "feedback" / "vide-vide" / CHAPTER / f"{CHAPTER}.html").read_text(encoding="utf-8")
        assert line not in blank


def test_the_report_lists_marks_for_spreadsheets_and_moodle(story):
    folder = story.course / "bilans" / CHAPTER
    moodle = list(csv.reader(io.StringIO((folder / "moodle.csv").read_text(encoding="utf-8-sig"))))
    assert moodle[0][0] == "Identifiant" and ["Participant4711", "Zoé Ødegård", "20,00"] == moodle[-1][:3]
    marks = (folder / "notes.csv").read_text(encoding="utf-8-sig").splitlines()
    assert marks[0].startswith("étudiant;nom;points;barème;note sur 20;decode_float")
    text = (folder / "bilan.txt").read_text(encoding="utf-8")
    assert f"{EXERCISE}, {MISCONCEPTION}\u00a0: 1 copie sur 4" in text and "pirate-nom" in text


def test_a_worksheet_from_moodle_is_filled_in_place(story, tmp_path, capsys):
    sheet = tmp_path / "feuille.csv"
    sheet.write_text(
        "\ufeffIdentifier,Full name,Status,Grade,Maximum Grade,Last modified (grade),Feedback comments\n"
        'Participant 4711,Zoé Ødegård,Submitted,,"20,00",-,\nParticipant 9999,Absent,,,"20,00",-,\n',
        encoding="utf-8",
    )
    assert main(["report", CHAPTER, "--course", str(story.course), "--worksheet", str(sheet)]) == 0
    rows = list(csv.reader(io.StringIO((story.course / "bilans" / CHAPTER / "moodle.csv").read_text("utf-8-sig"))))
    assert rows[1][3] == "20,00" and rows[2][3] == "" and rows[0][0] == "Identifier"
    sheet.write_text("a,b\n1,2\n", encoding="utf-8")
    assert main(["report", CHAPTER, "--course", str(story.course), "--worksheet", str(sheet)]) == 2
    assert "feuille d'évaluation" in capsys.readouterr().err


def test_autograde_typed_by_hand_gives_the_same_marks(story):
    copy = story.folder / "cours-à-la-main"
    shutil.copytree(story.course, copy)
    database = copy / "gradebook.db"
    before = exported(copy)
    said = nbgrader(copy, "autograde", CHAPTER, "--force")
    assert "error processing" not in said
    nbgrader(copy, "export")
    assert exported(copy) == pytest.approx(before) and database.is_file()


def test_regrading_with_a_recorded_seed_is_the_same_text(story):
    from essai import results_in

    from grader.classroom.marking import mark

    course = Course(story.course)
    path = course.path("autograded", "bob-martin", CHAPTER) / f"{CHAPTER}.ipynb"
    first = next(r for r in results_in(path) if r.exercise == EXERCISE)
    again = mark(course, CHAPTER, seed=int(first.seed))
    replayed = next(r for r in again.results["bob-martin"] if r.exercise == EXERCISE)
    assert replayed.feedback == first.feedback and replayed.score == first.score


def test_the_bundle_holds_no_answer(story):
    names = {p.name for p in story.bundle.iterdir()}
    (roue,) = story.bundle.glob("atelier-*.whl")
    recipe = {"constraints.txt", "environment.yml"}
    assert names == {"notebooks", roue.name, "cours.py", "README.md", "AGENTS.md", "LICENSE", ".devcontainer"} | recipe
    space = json.loads((story.bundle / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (story.bundle / space["postCreateCommand"].split()[1]).is_file()
    assert f"- ./{roue.name}[lab]\n" in (story.bundle / "environment.yml").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in story.bundle.rglob("*")) < 45_000_000
    assert {path.name for path in story.installed.iterdir()} == {"atelier", "atelier-0.1.0.dist-info"}
    texts = {}
    for path in (*story.bundle.rglob("*"), *story.installed.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".ipynb", ".md", ".toml", ".json", ".txt"):
            texts[path] = path.read_text(encoding="utf-8")
    for id, source in story.chapter.sources.items():
        for line in distinctive_lines(source):
            assert not [p for p, text in texts.items() if line in text], (id, line)
    assert not [p for p in story.installed.rglob("*") if p.name in ("exercises", "__pycache__", "grader", "solutions")]


def test_without_the_repository_nbgrader_runs_no_copy(story, tmp_path):
    """Le dépôt parti, « autograde » échoue : il n'exécute pas les copies sans les enfermer."""
    course, witness = tmp_path / "cours", tmp_path / "exécuté"
    shutil.copytree(story.course, course, ignore=shutil.ignore_patterns("autograded", "feedback"))
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8").replace(str(paths.root()), str(tmp_path / "parti")), "utf-8")
    copy = course / "submitted" / "vide-vide" / CHAPTER / f"{CHAPTER}.ipynb"
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"open({str(witness)!r}, 'w')"))
    nbformat.write(notebook, copy)
    # Sans site : ni .pth ni installation modifiable ne mènent plus à grader.
    line = [sys.executable, "-S", "-m", "nbgrader", "autograde", CHAPTER, "--student=vide-vide"]
    env = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(line, cwd=course, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode and "TolerantExporter' could not be imported" in done.stderr
    assert not witness.exists() and not (course / "autograded").exists()


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """Une copie du cours sans ses gros fichiers, que personne d'autre ne modifie."""
    root = tmp_path / "racine"
    heavy = (".git", ".venv", "__pycache__", ".donnees", "corpora", "colibri", "tests", "images")
    shutil.copytree(paths.root(), root, ignore=shutil.ignore_patterns(*heavy))
    return root


def test_publishing_twice_gives_the_same_files_and_forgets_the_old_ones(frozen, tmp_path):
    target = tmp_path / "sortie"
    publish(frozen, target)
    before = {p.relative_to(target): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    (target / "atelier").mkdir()  # une publication d'avant la roue
    (target / "atelier" / "vieux.py").write_text("x = 1\n", encoding="utf-8")
    (target / "atelier-0.0.1-py3-none-any.whl").touch()
    (target / ".git").mkdir()
    publish(frozen, target)
    after = {p.relative_to(target): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert after == before and (target / ".git").is_dir()


def test_solved_chapters_are_published_when_named_and_only_those(frozen, tmp_path):
    target = tmp_path / "sortie"
    publish(frozen, target, [CHAPTER])
    (path,) = (target / "corriges").iterdir()
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert path.name == f"{CHAPTER}.ipynb" and "SOLUTION" not in text and "nbgrader" not in text
    assert distinctive_lines(load_chapter(CHAPTER).sources["gptq_quantize"])[0] in "\n".join(
        c.source for c in notebook.cells
    )
    with pytest.raises(UserError, match="Chapitre inconnu"):
        publish(frozen, target, ["ch3_inconnu"])
    publish(frozen, target)
    assert not (target / "corriges").exists()


def test_the_wheel_works_alone(story, tmp_path):
    code = (
        "import atelier, sys\nfrom atelier import paths\n"
        "assert 'torch' not in sys.modules\n"
        f"assert paths.root() == paths.Path({str(story.installed / 'atelier')!r}).resolve()\n"
        "assert paths.course()['language'] == 'fr'\n"
        "assert len(atelier.load_tokenizer('colibri')('Bonjour')['input_ids']) > 0\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COURS_")}
    environment["PYTHONPATH"] = str(story.installed)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_leak_stops_the_publication(frozen, tmp_path):
    line = distinctive_lines(load_chapter(CHAPTER).sources["gptq_quantize"])[0]
    (frozen / "atelier" / "astuce.py").write_text(f"def f():\n    {line}\n", encoding="utf-8")
    (frozen / "atelier" / "pont.py").write_text(
        "from grader.authoring.chapters import load_chapter\n", encoding="utf-8"
    )
    with pytest.raises(UserError) as error:
        publish(frozen, tmp_path / "sortie")
    assert "gptq_quantize" in str(error.value) and "importe grader" in str(error.value)
    assert not (tmp_path / "sortie").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "COURS", "ch4_inconnu"], "Chapitre inconnu"),
        (["init", "COURS[2026]"], "nbgrader ne sait pas lire"),
        (["grade", CHAPTER, "--course", "nulle-part"], "python -m grader init"),
        (["collect", "absent.zip", "--course", "COURS"], "n'existe pas"),
        (["grade", "ch4_inconnu", "--course", "COURS"], "n'est pas dans ce cours"),
        (["report", "ch4_inconnu", "--course", "COURS"], "n'est pas dans ce cours"),
        (["publish", "--to", "COURS"], "choisissez un dossier vide"),
        (["grade", CHAPTER, "--course", "COURS", "--json", "absent/x.json"], "n'existe pas"),
    ],
)
def test_mistakes_are_explained_in_french(story, capsys, arguments, words):
    assert main([a.replace("COURS", str(story.course)) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
