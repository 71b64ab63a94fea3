"""Hors du dépôt : un carnet seul, un cours dont le dépôt est parti, une commande tapée d'ailleurs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT, plain

from atelier.launch import environment
from grader.classroom.course import CONFIG, CONFIG_TEXT

DRIVER = """
import json, re, sys, nbformat
from nbclient import NotebookClient

def answered(notebook):  # à chaque exercice, une réponse qui ne rend rien
    for cell in notebook.cells:
        cell.source = re.sub(r"raise NotImplementedError\\(.*\\)", "pass", cell.source)
    return notebook

def run(notebook, folder):
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return notebook

path, folder = sys.argv[1:]
nbformat.write(run(answered(nbformat.read(path, as_version=4)), folder), path)
code = '''import os
os.chdir("/")
from atelier import journal, paths, state
print(paths.root(), state.folder(), sum(e["tries"] for e in journal.read()["exercises"].values()), sep=chr(10))'''
again = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), folder)
print(again.cells[0].outputs[0].text)
"""
"""Exécute un carnet de haut en bas, puis, dans un noyau neuf, dit où est l'atelier et ce qu'il a retenu."""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Le Python d'un autre environnement : les bibliothèques d'ici, et l'atelier par `pip install ADRESSE`."""
    folder = tmp_path_factory.mktemp("ailleurs") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (environment.packages_of(folder) / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    python = environment.python_of(folder)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    pip += ["--no-index", "--no-build-isolation"]  # sans réseau : hatchling est déjà là
    subprocess.run([*pip, ROOT], check=True)
    return python


@pytest.mark.parametrize("chapter", [pytest.param("ch1_rappel_gpt2", marks=pytest.mark.lent), "ch3_quantification"])
def test_a_notebook_alone_in_an_empty_folder_works_and_survives_a_restart(elsewhere, tmp_path, chapter):
    shutil.copy(ROOT / "notebooks" / f"{chapter}.ipynb", tmp_path / "copie.ipynb")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_", "PYTHONPATH"))}
    env |= {"COURS_ECHELLE": "essai", "OMP_NUM_THREADS": "1"}
    line = [elsewhere, "-c", DRIVER, tmp_path / "copie.ipynb", str(tmp_path)]
    done = subprocess.run(line, cwd="/", env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    where, kept, tries = done.stdout.split("\n")[:3]
    assert Path(where).is_relative_to(elsewhere.parent.parent) and kept == str(tmp_path / ".atelier")
    notebook = json.loads((tmp_path / "copie.ipynb").read_text(encoding="utf-8"))
    asked = [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    assert int(tries) == len(asked) > 5
    wrong = {o["ename"] for c in notebook["cells"] if c not in asked for o in c.get("outputs", []) if "ename" in o}
    assert not wrong, "seul un exercice pas encore écrit s'arrête"


ALONE = """
import copy, shlex, sys, nbformat
from nbclient import NotebookClient
path, address = sys.argv[1:]
notebook = nbformat.read(path, as_version=4)
first, second = notebook.cells[1:3]
if address:
    magic = f"install -q {shlex.quote(address)}"
    install = f"get_ipython().run_line_magic('pip', {magic!r})"
    first.source = first.source.split("is None:")[0] + "is None: " + install
notebook.cells = [first, copy.deepcopy(first), second]  # exécutée, puis exécutée de nouveau
for _ in range(2):  # puis dans un noyau neuf
    NotebookClient(notebook, timeout=300, allow_errors=True).execute()
    errors = [o.traceback for cell in notebook.cells for o in cell.outputs if o.output_type == "error"]
    print(errors[0][0] if errors else "rien")
"""


def test_a_notebook_opened_where_nothing_is_installed(tmp_path):
    """Sans adresse, une phrase avant tout ModuleNotFoundError ; avec une adresse, le cours s'installe, une fois."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_", "PYTHONPATH"))}
    env |= {"COURS_ECHELLE": "essai", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1"}
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (environment.packages_of(folder) / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    python = environment.python_of(folder)
    shutil.copy(ROOT / "notebooks" / "ch3_quantification.ipynb", tmp_path / "copie.ipynb")
    said = {}
    for address in ("", str(ROOT)):
        line = [python, "-c", ALONE, "copie.ipynb", address]
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        said[address] = plain(done.stdout)
    assert said[""].startswith("L'atelier du cours n'est pas installé ici. Demandez son adresse")
    assert said[str(ROOT)] == "rien\nrien\n"


CONFIG_DRIVER = """
import json, sys
from traitlets.config.loader import PyFileConfigLoader
config = PyFileConfigLoader("nbgrader_config.py", path=sys.argv[1]).load_config()
import atelier
print(json.dumps([config.Autograde, config.CourseDirectory.course_id, atelier.__file__]))
"""


@pytest.mark.parametrize("case", ["ici", "parti", "sans course.toml", "course.toml illisible", "COURS_RACINE fausse"])
def test_the_config_of_a_course_warns_and_never_stops(elsewhere, tmp_path, case):
    """Le fichier que lit le serveur Jupyter d'un enseignant, là où l'atelier est installé et le dépôt ailleurs."""
    root, variables = ROOT, {}
    if case == "parti":
        root = tmp_path / "parti"
    elif case == "COURS_RACINE fausse":
        variables = {"COURS_RACINE": str(tmp_path / "nulle part")}
    elif case != "ici":
        root = tmp_path / "dépôt"
        for name in ("atelier", "grader"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        if case == "course.toml illisible":
            (root / "course.toml").write_bytes(b"\xff title = ")
    (tmp_path / CONFIG).write_text(CONFIG_TEXT.format(root=str(root), course_id="essai"), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_", "PYTHONPATH"))} | variables
    line = [elsewhere, "-c", CONFIG_DRIVER, str(tmp_path)]
    done = subprocess.run(line, cwd="/", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    autograde, name, beside = json.loads(done.stdout)
    assert name == "essai" and autograde["exporter_class"] == "grader.classroom.nbglue.TolerantExporter"
    if case == "parti":
        assert f"encore dans {root}" in plain(done.stderr) and CONFIG in done.stderr
        assert Path(beside).is_relative_to(elsewhere.parent.parent)
    else:
        assert not done.stderr and "grader.classroom.nbglue.GradeCells" in autograde["autograde_preprocessors"]
        assert Path(beside).is_relative_to(root), "l'atelier d'à côté, non celui de la roue"


@pytest.mark.parametrize("cwd", ["/", "atelier", "grader/classroom"])
def test_the_teacher_s_command_works_from_anywhere(cwd):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_", "PYTHONPATH"))}
    line = [sys.executable, "-m", "grader", "build", "ch3_inconnu"]
    done = subprocess.run(line, cwd=ROOT / cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "Chapitre inconnu" in plain(done.stderr), done.stderr


def test_a_wrong_course_folder_is_a_sentence(tmp_path):
    line = [sys.executable, "-m", "grader", "build", "--check"]
    env = {**os.environ, "COURS_RACINE": str(tmp_path / "nulle part")}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "COURS_RACINE" in done.stderr
    (tmp_path / "course.toml").write_text("title =", encoding="utf-8")
    env["COURS_RACINE"] = str(tmp_path)
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "course.toml ne se lit pas" in plain(done.stderr)
