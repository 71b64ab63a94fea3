"""Le scellé, où que soit le cours et qui que l'on soit ; et le refus de corriger sans lui."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, python_for
from essai import NAME, SOLVED, as_bytes, build_root, course_root, filled, load_assignment, write_course
from sealed import HONEST, INPUTS

from grader import UserError
from grader.__main__ import main
from grader.authoring.build import build_chapter, write
from grader.classroom.course import Course, prepare
from grader.jail.outside import seal
from grader.jail.outside.dialogue import Task
from grader.jail.outside.sandbox import Sandbox, SandboxError

# --- root ou utilisateur ordinaire ------------------------------------------------------------------------------------

AS_USER = """
import json, os, sys
sys.path.insert(0, {root!r})
import torch
from grader.jail.outside.dialogue import CodeCell, Task
from grader.jail.outside.sandbox import Sandbox
source = "import os\\ndef f(x):\\n    s = open('/proc/1/status').read()\\n"
source += "    return [os.getuid(), len([p for p in os.listdir('/proc') if p.isdigit()]), s]"
with Sandbox() as box:
    report = box.run([CodeCell("a", source, "solution", "f")], [Task("f", "call", 5.0, [{{"x": torch.ones(1)}}])])
print(json.dumps(report.tasks["f"].outcomes[0]["value"]))
"""


@dataclass(frozen=True)
class User:
    """De quoi lancer un Python en utilisateur ordinaire."""

    prefix: list[str]
    python: str
    environment: dict[str, str]

    def run(self, *between: str) -> subprocess.CompletedProcess:
        command = [*self.prefix, *between, self.python, "-c", AS_USER.format(root=str(ROOT))]
        return subprocess.run(command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def user() -> User:
    """Un utilisateur ordinaire : celui de la suite, ou, si elle tourne en root, celui que root redevient."""
    if os.geteuid() != 0:
        return User([], sys.executable, dict(os.environ))
    prefix = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    python, environment = python_for(prefix)
    return User(prefix, python, environment)


def test_an_ordinary_user_has_the_same_seal(user):
    done = user.run()
    assert done.returncode == 0, done.stderr[-3000:]
    uid, processes, status = json.loads(done.stdout)
    assert uid not in (0, seal.UID) and processes <= 3
    assert "CapEff:\t0000000000000000" in status and "Seccomp:\t2" in status


CONTAINER = [
    *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
]
"""Un premier bubblewrap, sans privilège, qui tient lieu de conteneur."""
for place in dict.fromkeys(map(str, (ROOT, sys.prefix, sys.base_prefix))):
    if place.startswith(("/tmp/", "/dev/shm/")):  # son /tmp est vide : ce cours y est apporté
        CONTAINER += ["--ro-bind", place, place]


@pytest.mark.parametrize("masked", [False, True])
def test_inside_an_unprivileged_container(user, masked):
    """La recette du conteneur : elle marche si /proc n'y est pas masqué, et sinon la correction refuse."""
    done = user.run(*CONTAINER, *(["--tmpfs", "/proc/sys"] if masked else []), "--")
    if masked:
        assert done.returncode != 0 and "Trois façons de continuer" in done.stderr
        return
    assert done.returncode == 0, done.stderr[-3000:]
    _, processes, status = json.loads(done.stdout)
    assert processes <= 3 and "Seccomp:\t2" in status


# --- refuser plutôt que mal enfermer ----------------------------------------------------------------------------------


def fake_bwrap(folder: Path, text: str) -> str:
    """Un PATH où bwrap est ce script."""
    folder.mkdir()
    script = folder / "bwrap"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def refusal_of(box: Sandbox) -> str:
    with box, pytest.raises(SandboxError) as error:
        box.run([HONEST], [Task("h", "call", 1.0, INPUTS)])
    return str(error.value)


def test_without_bubblewrap_grading_is_refused_in_french(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refusal_of(Sandbox())
    assert "apt install bubblewrap" in said
    for way in ("machine Linux", "grader/conteneur/LISEZMOI.md", "--unsealed"):
        assert way in said


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_is_refused(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    assert "espaces de noms de Linux" in refusal_of(Sandbox())


def test_when_the_kernel_refuses_so_do_we(monkeypatch, tmp_path):
    message = "bwrap: No permissions to create new namespace, likely because the kernel does not allow"
    monkeypatch.setenv("PATH", fake_bwrap(tmp_path / "bin", f"echo '{message}' >&2; exit 1"))
    said = refusal_of(Sandbox())
    assert "No permissions" in said and "n'a pas laissé enfermer" in said and "--unsealed" in said


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("kernel.py", "NEW_ALL = ", "NEW_ALL = 1 | ", "espaces de noms"),
        ("kernel.py", "CAP_AMBIENT = 1, 4, 38, 22, 47", "CAP_AMBIENT = 1, 4, 38, 9999, 47", "filtre"),
        ("confine.py", 'DISK = "size', 'DISK = "taille', "tmpfs"),
    ],
)
def test_a_protection_that_fails_stops_everything(monkeypatch, tmp_path, file, old, new, word):
    """Une protection que le noyau refuserait à l'intérieur : rien ne s'exécute."""
    copy = tmp_path / "inside"
    shutil.copytree(ROOT / "grader" / "jail" / "inside", copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    tmp_path.chmod(0o755)
    shown = [(copy if target.endswith("/inside") else source, target) for source, target in seal.shown()]
    monkeypatch.setattr(seal, "shown", lambda: iter(shown))
    said = refusal_of(Sandbox())
    assert word in said and "--unsealed" in said


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Un cours d'essai avec deux copies."""
    root = build_root(tmp_path_factory.mktemp("racine"))
    folder = tmp_path_factory.mktemp("cours") / "cours"
    with course_root(root):
        prepare(folder)
        found = Course(folder)
        template = load_assignment(root).template
        spy = "import os\ndef spread(x):\n    assert not os.listdir('/tmp')\n    return x.max() - x.min()"
        for student, answers in {"ana": SOLVED, "espion": SOLVED | {"spread": spy}}.items():
            path = found.path("submitted", student, NAME) / f"{NAME}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_bytes(as_bytes(filled(template, answers)))
        yield found


# --- où que soit le cours ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Un endroit où mettre un cours : son dossier, par où y entrer s'il y a un lien, et un Python à lui ou non."""

    parent: Path
    name: str = "cours"
    linked: bool = False
    own_python: bool = False


PLACES = {
    "sous /tmp": Place(Path("/tmp")),
    "sous /dev/shm, son Python aussi": Place(Path("/dev/shm"), own_python=True),
    "dans le dossier personnel, espaces et accents": Place(Path.home(), "Élève à l’école"),
    "derrière un lien": Place(Path("/var/tmp"), linked=True),
    "dans /usr, que le scellé montre": Place(Path("/usr/local")),
}


def own_python(folder: Path) -> Path:
    """Une copie de ce Python, sans ce que la correction n'emploie pas."""
    library = Path(os.__file__).resolve().parent
    skipped = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "dist-packages", "config-*", "*.a")
    shutil.copytree(library, folder / library.parent.name / library.name, ignore=skipped)
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy(shared, folder / library.parent.name)
    (folder / "bin").mkdir()
    return Path(shutil.copy(os.path.realpath(sys.executable), folder / "bin"))


@pytest.fixture(params=PLACES)
def settled(request):
    """Un cours d'essai, ses copies et son environnement, à cet endroit : (dossier par où y entrer, son Python)."""
    place = PLACES[request.param]
    if not os.access(place.parent, os.W_OK):
        pytest.skip(f"{place.parent} ne s'écrit pas ici")
    home = Path(tempfile.mkdtemp(prefix="essai-", dir=place.parent))
    try:
        home.chmod(0o755)
        folder = home / place.name
        folder.mkdir()
        python = own_python(home / "python") if place.own_python else Path(os.path.realpath(sys.executable))
        subprocess.run([python, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        packages = next((folder / ".venv").glob("lib/python3*/site-packages"))
        (packages / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        for name in ("atelier", "grader"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        carried = packages / "atelier" / "assets" / "packs"  # l'atelier d'une roue, dans le même Python
        carried.mkdir(parents=True)
        (packages / "atelier" / "__init__.py").touch()
        (carried / "secret.json").touch()
        write_course(folder)
        products = build_chapter(NAME, folder)
        assert not write(products, folder, execute=False)
        entry = folder
        if place.linked:
            entry = home / "lien"
            entry.symlink_to(folder)
        yield entry
    finally:
        shutil.rmtree(home)


def test_grading_works_wherever_the_course_is_and_hides_it(settled):
    secrets = [
        str(settled / p) for p in ("solutions", "grader", "assets/packs", "mon cours/gradebook.db", "course.toml")
    ]
    secrets += [os.path.realpath(p) for p in secrets]
    spy = f"import os\ndef spread(x):\n    assert not [p for p in {secrets!r} if os.path.exists(p)]\n"
    spy += "    import sys\n    assert not [p for p in sys.path if os.path.exists(p + '/atelier/assets/packs')]\n"
    spy += "    assert os.listdir('/tmp') == os.listdir('/dev/shm') == []\n    return x.max() - x.min()"
    with course_root(settled):
        prepare(settled / "mon cours")
        course = Course(settled / "mon cours")
        template = load_assignment(settled).template
        for student, answers in {"ana": SOLVED, "espion": SOLVED | {"spread": spy}}.items():
            path = course.path("submitted", student, NAME) / f"{NAME}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_bytes(as_bytes(filled(template, answers)))
    command = [
        settled / ".venv/bin/python",
        "-m",
        "grader",
        "grade",
        NAME,
        "--course",
        "mon cours",
        "--json",
        "notes.json",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_RACINE", "PYTHON"))}
    done = subprocess.run(command, cwd=settled, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    totals: dict[str, float] = {}
    for row in json.loads((settled / "notes.json").read_text(encoding="utf-8")):
        totals[row["student"]] = totals.get(row["student"], 0) + row["score"]
    assert totals == {"ana": 6.0, "espion": 6.0}, done.stdout


@pytest.mark.parametrize(("home", "python"), [("/", "/usr/bin/env"), ("/usr/local/prof", "/usr/bin/env")])
def test_a_home_that_holds_the_system_is_not_private(monkeypatch, home, python):
    monkeypatch.setenv("HOME", home)
    assert seal.of_the_system(Path(python))
    assert not seal.of_the_system(Path("/usr/local/prof/cours")) or home == "/"
    assert (home in seal.covered([(Path("/usr"), "/usr")])) == (home != "/")


def test_a_python_with_a_shared_library_finds_it_at_its_new_place(monkeypatch):
    monkeypatch.setattr(seal.sysconfig, "get_config_var", lambda name: name == "Py_ENABLE_SHARED")
    moved = any(target.startswith(seal.PYTHON) for target in seal.interpreter().mounts.values())
    library = Path(os.__file__).resolve().parent.parent
    expected = None if library.is_relative_to("/usr") else f"{seal.PYTHON}/{library.name}"
    assert seal.environment().get("LD_LIBRARY_PATH") == expected and (moved or expected is None)


def test_grade_refuses_without_the_seal_and_says_why(course, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", fake_bwrap(tmp_path / "bin", "echo 'bwrap: Creating new namespace failed' >&2; exit 1"))
    from grader.classroom import nbglue

    nbglue._sandbox.cache_clear()
    try:
        assert main(["grade", NAME, "--course", str(course.folder)]) == 2
    finally:
        nbglue._sandbox.cache_clear()
    said = capsys.readouterr().err
    assert "Trois façons de continuer" in said and "Traceback" not in said
    assert not list(course.folder.glob("autograded/*/*"))


def nbgrader(course: Course, path: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nbgrader", "autograde", NAME, "--force"]
    path = os.pathsep.join([str(Path(sys.executable).parent), path])
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=course.folder, env=environment, capture_output=True, text=True, timeout=200)


def test_nbgrader_typed_by_hand_goes_through_the_same_seal(course, tmp_path):
    refused = nbgrader(course, fake_bwrap(tmp_path / "bin", "echo 'bwrap: Creating new namespace failed' >&2; exit 1"))
    assert refused.returncode != 0 and "Trois façons de continuer" in refused.stderr
    assert not list(course.folder.glob("autograded/*/*/*.ipynb"))
    done = nbgrader(course, os.environ["PATH"])
    assert done.returncode == 0, done.stderr[-2000:]
    with course.gradebook() as book:
        totals = {s: book.find_submission_notebook(NAME, NAME, s).score for s in ("ana", "espion")}
    assert totals == {"ana": 6.0, "espion": 6.0}  # l'espion n'a rien vu : il était bien dans le scellé


def test_without_isolation_is_loud_and_only_lasts_the_command(course, capsys):
    assert main(["grade", NAME, "--course", str(course.folder), "--unsealed"]) == 0
    assert "SANS ISOLEMENT" in capsys.readouterr().err
    assert seal.wanted() and Sandbox().sealed


def test_the_explanations_are_errors_for_people():
    assert issubclass(SandboxError, UserError)
    said = seal.refusal("Il manque bwrap.")
    assert "\u00a0:" in said and " :" not in said
