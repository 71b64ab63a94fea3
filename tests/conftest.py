"""Ce que tous les tests partagent : un état à part, l'échelle d'essai, et `exige` pour les programmes du système."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import grader  # noqa: E402, F401 - avant nbformat, qu'il allège
from atelier.launch import lab  # noqa: E402

if "COURS_ETAT" not in os.environ:
    os.environ["COURS_ETAT"] = tempfile.mkdtemp(prefix="cours-etat-")
    atexit.register(shutil.rmtree, os.environ["COURS_ETAT"], ignore_errors=True)
# Un seul fil de calcul : les tenseurs des tests sont petits, et les fils se gêneraient.
DEFAULTS = {"COURS_ECHELLE": "essai", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "MPLBACKEND": "agg"}
for variable, value in (DEFAULTS | {"OMP_NUM_THREADS": "1"}).items():
    os.environ.setdefault(variable, value)

LONG = (
    *("launch", "hub", "elsewhere", "browser", "names"),
    *("carte_chapitres", "attaques", "faults", "seal", "seal_places"),
)
"""Les fichiers dont un seul essai dure parfois une minute : commencés tôt, aucun ne retarde la fin à lui seul."""

STRICT = os.environ.get("COURS_STRICT") == "1"


def plain(text: str) -> str:
    """Le texte, ses espaces insécables en espaces ordinaires."""
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def exige(program: str) -> str:
    """Chemin d'un programme du système. Absent : le test est sauté, ou échoue sous COURS_STRICT=1."""
    path = shutil.which(program)
    if path:
        return path
    reason = f"ce test demande le programme «\u00a0{program}\u00a0», absent de cette machine"
    if STRICT:
        pytest.fail(reason + " (COURS_STRICT=1)")
    pytest.skip(reason)


def python_for(prefix: list[str]) -> tuple[str, dict[str, str]]:
    """Un Python qu'un compte ordinaire peut lire, et son environnement ; le test est sauté s'il n'y en a pas.

    prefix : ce qui fait de root ce compte (setpriv…).
    """
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "OMP_NUM_THREADS": "1"}
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    system = shutil.which(f"python3.{sys.version_info[1]}", path="/usr/bin")
    for python, path in ((sys.executable, ""), (system or "", packages)):
        reads = f"import os, sys, torch; open(os.path.realpath(sys.executable)).close(); os.listdir({str(ROOT)!r})"
        env = environment | {"PYTHONPATH": path}
        if (
            python
            and not subprocess.run([*prefix, python, "-c", reads], env=env, cwd="/", capture_output=True).returncode
        ):
            return python, env
    pytest.skip("aucun Python lisible par un utilisateur ordinaire (celui-ci est dans le dossier de root)")


@pytest.fixture(name="exige")
def exige_fixture():
    """La fonction `exige`, pour les tests qui préfèrent une fixture."""
    return exige


@pytest.fixture(scope="module")
def browser():
    """Chromium, celui du système."""
    program = exige("chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="ce test demande le paquet playwright")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def free_port() -> int:
    """Un port de cette machine où personne n'écoute."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(line: list[str], port: int, folder: Path, env: dict[str, str], log: Path) -> Iterator[str]:
    """Un serveur Jupyter lancé dans `folder` par cette commande, le temps du bloc : son adresse. log : ce qu'il dit."""
    with open(log, "wb") as told:
        server = subprocess.Popen(line, cwd=folder, env=env, stdout=told, stderr=told)
        try:
            deadline = time.monotonic() + 60
            while lab.is_free(port):
                assert server.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, "JupyterLab n'a pas démarré en une minute"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def axe_faults(page, include: list[str] | None = None, exclude: list[str] | None = None) -> list[str]:
    """Les fautes sérieuses ou critiques qu'axe-core trouve dans la page. include, exclude : sélecteurs CSS."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="ce test demande axe-playwright-python")
    area = {"include": include or ["html"], "exclude": exclude or []}
    found = axe.Axe().run(page, area, {"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{fault['id']} : {node['target']} {node['html'][:200]} ({node['failureSummary'][:200]})"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:5]
    ]


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest):
    """id → la référence de cet exercice, dans le chapitre que le module éprouve (CHAPTER)."""
    from grader.authoring.chapters import load_chapter

    return load_chapter(request.module.CHAPTER).reference


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """Le cours d'essai, construit ; la racine du cours le temps du module."""
    from essai import build_root, course_root

    with course_root(build_root(tmp_path_factory.mktemp("racine"))) as path:
        yield path


@pytest.fixture(scope="module")
def essai(tmp_path_factory: pytest.TempPathFactory):
    """Le devoir d'essai."""
    from essai import load_assignment, write_course

    return load_assignment(write_course(tmp_path_factory.mktemp("essai")))


@pytest.fixture(scope="module")
def sandbox():
    """De quoi exécuter des copies, enfermées si la machine le permet."""
    from grader.jail.outside.sandbox import Sandbox

    with Sandbox() as box:
        yield box


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Saute, en le disant, les tests lents (hors COURS_STRICT=1 ou COURS_LENT=1) et ceux qui demandent une carte.

    Les fichiers de LONG passent devant.
    """
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
    slow = STRICT or os.environ.get("COURS_LENT") == "1"
    for item in items:
        if "lent" in item.keywords and not slow:
            item.add_marker(pytest.mark.skip(reason="dure plus d'une minute\u00a0: COURS_LENT=1 python cours.py test"))
        if "gpu" in item.keywords:
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="demande une carte CUDA, absente de cette machine"))
