"""Le serveur d'une école : ce que `python -m grader hub` écrit est lu, et l'échange de nbgrader y va de bout en bout.

Le parcours dans un navigateur, avec un hub en marche, est trop long pour la suite : docs/jupyterhub.md dit ce qui en a
été vu.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, plain, python_for
from essai import NAME, SOLVED, build_root, cell_of, course_root, exported
from traitlets.config.loader import PyFileConfigLoader

from atelier.launch.hub import FOLDER, FORMGRADER, WELCOME
from grader import UserError
from grader.classroom import hub
from grader.classroom.course import Course, prepare
from grader.classroom.marking import mark
from grader.jail.outside import seal
from grader.report.feedback import Feedback

pwd = pytest.importorskip("pwd", reason="un hub tourne sous Linux ou macOS, et lit les comptes de la machine")
TEACHER, STUDENTS = "daemon", ("games", "nobody")
"""Des comptes que tout Linux a : aucun n'est créé."""


@dataclass(frozen=True)
class School:
    """Un cours d'essai, et ce que `hub` a écrit pour lui. home : les dossiers personnels."""

    course: Course
    prefix: Path
    exchange: Path
    home: Path

    @property
    def config(self) -> Path:
        return self.prefix / "etc" / "jupyterhub" / "jupyterhub_config.py"

    def jupyter_path(self, *more: str) -> str:
        """JUPYTER_CONFIG_PATH, comme si `prefix` était l'environnement du hub."""
        return os.pathsep.join([*more, str(self.prefix / "etc" / "jupyter")])


@pytest.fixture(scope="module")
def school() -> Iterator[School]:
    """Écrit une fois ; le cours est fermé aux autres comptes, le reste leur est ouvert."""
    if os.geteuid() not in {account.pw_uid for account in pwd.getpwall()}:
        pytest.skip("le compte qui lance les essais n'a pas de nom\u00a0: le hub n'en ferait pas un enseignant")
    place = Path(tempfile.mkdtemp(prefix="ecole-"))
    place.chmod(0o755)
    private = place / "prof"
    private.mkdir(mode=0o700)
    try:
        with course_root(build_root(private / "depot")) as root:
            shutil.copy(ROOT / "notebooks" / WELCOME, root / "notebooks")
            prepare(private / "cours")
            if os.geteuid() == 0:
                shutil.chown(private / "cours", TEACHER)
            (place / "home").mkdir()
            found = School(Course(private / "cours"), place / "hub", place / "echange", place / "home")
            hub.write(found.course, found.prefix, found.exchange, 8765)
            yield found
    finally:
        shutil.rmtree(place, ignore_errors=True)


def settled(school: School, name: str) -> SimpleNamespace:
    """Le serveur que le hub ouvrirait à ce compte."""
    config = PyFileConfigLoader(school.config.name, path=str(school.config.parent)).load_config()
    assert config.JupyterHub.bind_url == "http://127.0.0.1:8765"
    spawner = SimpleNamespace(user=SimpleNamespace(name=name), environment={"DE_L_ECOLE": "1"})
    config.Spawner.pre_spawn_hook(spawner)
    return spawner


def lab_settings(spawner: SimpleNamespace) -> dict:
    """Ce que JupyterLab lit dans l'environnement d'un serveur : parties cachées, réglages, parties du serveur."""
    code = """
import json
from jupyter_core.paths import jupyter_config_path
from jupyter_server.services.config import ConfigManager
from jupyterlab_server.config import get_page_config
read = lambda folder, name: ConfigManager(read_config_path=[p + folder for p in jupyter_config_path()]).get(name)
page = get_page_config([])
print(json.dumps({
    "hidden": page["disabledExtensions"],
    "lab": read("/labconfig", "default_setting_overrides"),
    "server": read("", "jupyter_server_config")["ServerApp"],
}))
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")} | spawner.environment
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def hides(settings: dict, name: str) -> bool:
    return f"@jupyter/nbgrader:{name}" in settings["hidden"]


def owner_of(school: School) -> str:
    return TEACHER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def test_a_student_opens_on_the_welcome_page_with_nothing_that_grades(school):
    spawner = settled(school, "lea")
    assert spawner.default_url == f"/lab/tree/{WELCOME}" and spawner.notebook_dir == f"~/{FOLDER}"
    assert spawner.environment["DE_L_ECOLE"] == "1" and not any(k.startswith("COURS_") for k in spawner.environment)
    assert str(school.course.folder) not in str(vars(spawner)), "rien n'y mène au cours"
    settings = lab_settings(spawner)
    assert settings["lab"]["@jupyterlab/translation-extension:plugin"]["locale"] == "fr_FR"
    for name in ("formgrader", "create-assignment", "course-list"):
        assert hides(settings, name)
    assert not hides(settings, "assignment-list") and not hides(settings, "menu")
    assert settings["server"]["jpserver_extensions"]["nbgrader.server_extensions.formgrader"] is False


def test_the_teacher_has_formgrader_in_a_tab_and_the_grader_at_hand(school):
    spawner = settled(school, owner_of(school))
    assert spawner.notebook_dir == str(school.course.folder.parent)
    assert "grader" in os.listdir(spawner.environment["PYTHONPATH"])
    settings = lab_settings(spawner)
    assert settings["server"]["jpserver_extensions"]["nbgrader.server_extensions.formgrader"] is True
    menus = settings["lab"]["@jupyterlab/mainmenu-extension:plugin"]["menus"]
    assert [item["args"]["url"] for menu in menus for item in menu["items"]] == [FORMGRADER]
    assert hides(settings, "formgrader"), "dans Lab, il n'afficherait que « refused to connect »"


def test_the_real_jupyterhub_reads_it(school):
    program = shutil.which("jupyterhub") or shutil.which("jupyterhub", path="/opt/hub/bin")
    if program is None:
        pytest.skip("ce test demande jupyterhub, qui n'est pas une dépendance du cours (docs/jupyterhub.md)")
    (school.config.parent / hub.MINE).write_text("c.LocalAuthenticator.allowed_groups = {'classe'}\n", encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "HOME": str(school.home), "PYTHONPATH": str(ROOT)}
    line = [program, "-f", school.config, "--show-config"]
    done = subprocess.run(line, env=env, cwd=school.home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    for said in (
        "pre_spawn_hook = <function configure",
        ".bind_url = 'http://127.0.0.1:8765'",
        "allowed_groups = {'classe'}",
    ):
        assert said in done.stdout, said


def test_it_refuses_where_answers_could_be_read(school, tmp_path):
    course = school.course.folder
    (course.parent).chmod(0o755)
    course.chmod(0o755)
    try:
        with pytest.raises(UserError, match=f"chmod o= {course}"):
            hub.check_closed(course)
    finally:
        (course.parent).chmod(0o700)
    hub.check_closed(course)
    assert hub.owner(course) == owner_of(school)
    with pytest.raises(UserError, match="chown -R COMPTE"):
        hub.owner(Path("/"))
    with pytest.raises(UserError, match="pip install -c constraints.txt jupyterhub"):
        hub.check_programs(tmp_path)


# --- l'échange, entre deux comptes ------------------------------------------------------------------------------------


def test_the_exchange_from_release_to_feedback(school):
    """Deux comptes ordinaires : récupérer, écrire, rendre ; l'enseignant relève, corrige, rend ; chacun lit le sien."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("ce test devient deux autres comptes : il demande d'être root, et le programme setpriv")
    nbgrader = ["-m", "nbgrader"]
    become = {n: ["setpriv", "--reuid", n, "--regid", str(pwd.getpwnam(n).pw_gid), "--clear-groups"] for n in STUDENTS}
    python, ordinary = python_for(become[STUDENTS[0]])

    def teacher(*line: str) -> None:
        env = os.environ | {"JUPYTER_CONFIG_PATH": school.jupyter_path(str(school.course.folder))}
        done = subprocess.run([sys.executable, *nbgrader, *line, NAME], cwd=school.course.folder, env=env, **TEXT)
        assert done.returncode == 0, done.stderr

    def student(name: str, *line: str) -> None:
        env = ordinary | {"HOME": str(school.home / name), "JUPYTER_CONFIG_PATH": school.jupyter_path()}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
        before = ["-m", "atelier.launch.hub", str(school.prefix / "etc" / "jupyterhub" / WELCOME)]
        done = subprocess.run(
            [*become[name], python, *before, python, *nbgrader, *line, NAME], env=env, cwd="/", **TEXT
        )
        assert done.returncode == 0, done.stderr

    answers = {"games": SOLVED, "nobody": {"spread": "def spread(x):\n    return x.max()"}}

    def work(name: str) -> None:
        (school.home / name).mkdir(mode=0o700)
        shutil.chown(school.home / name, name)
        student(name, "fetch_assignment")
        folder = school.home / name / FOLDER
        assert (folder / WELCOME).is_file() and (folder / WELCOME).owner() == name
        notebook = nbformat.read(folder / NAME / f"{NAME}.ipynb", as_version=4)
        for exercise, source in answers[name].items():
            cell_of(notebook, exercise).source = source
        (folder / NAME / f"{NAME}.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
        student(name, "submit")

    def read(name: str) -> tuple[str, str]:
        student(name, "fetch_feedback")
        (page,) = (school.home / name / FOLDER / NAME / "feedback").glob(f"*/{NAME}.html")
        return page.owner(), plain(page.read_text(encoding="utf-8"))

    teacher("release_assignment")
    with ThreadPoolExecutor() as together:
        list(together.map(work, STUDENTS))
    teacher("collect")
    with seal.unsealed():
        marked = mark(school.course, NAME, 1)
    assert not marked.refused and exported(school.course) == {"games": 6.0, "nobody": 0.0}
    Feedback(school.course, NAME).renew()
    teacher("release_feedback")
    with ThreadPoolExecutor() as together:
        pages = dict(together.map(read, STUDENTS))
    assert "<b>6 / 6</b>" in pages["games"] and "<b>0 / 6</b>" in pages["nobody"]
    advice = "Le plus petit n'est pas toujours nul."
    assert advice in pages["nobody"] and advice not in pages["games"]


TEXT = {"capture_output": True, "text": True, "timeout": 120}
