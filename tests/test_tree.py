"""L'arbre : ce que porte la racine, les versions, le sens des imports, et chaque idée en un seul endroit."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from atelier.launch import environment
from grader.authoring.publish import PYTHON

TOP_LEVEL = {
    *("README.md", "LICENSE", "cours.py", "course.toml", "environment.yml", "pyproject.toml", "constraints.txt"),
    *("notebooks", "atelier", "solutions", "grader", "colibri", "assets", "tests", ".ci"),
    *(".gitignore", ".gitattributes", ".dockerignore", ".editorconfig", ".pre-commit-config.yaml"),
    *("docs", ".github", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "AGENTS.md"),
}


def tracked() -> list[str]:
    """Les fichiers du dépôt, ou du dossier si git n'est pas là."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("ce dossier n'est pas un dépôt git : ses fichiers ne sont pas distingués des fichiers de passage")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# ── Les fichiers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_top_level_is_what_the_design_names():
    assert {name.split("/")[0] for name in tracked()} <= TOP_LEVEL


def test_every_environment_variable_is_in_the_table():
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    read = re.compile(r"""(?:environ(?:\.get\(|\[)|UNSEALED = )["'](COURS_\w+)""")
    sources = [ROOT / name for name in tracked() if name.endswith(".py")]
    names = {name for path in sources for name in read.findall(path.read_text(encoding="utf-8"))}
    private = {"COURS_SECRET"}  # un appât, dans les essais
    assert names - private == set(re.findall(r"^\| `(COURS_\w+)`", table, re.MULTILINE))


def test_the_workshop_reads_each_variable_in_one_place():
    """`settings` seul ; ce que lance cours.py, qui est Python seul, en pose, et n'en lit pas."""
    read = re.compile(r"""environ(?:\.get\(|\[)["']COURS_""")
    sources = [ROOT / name for name in tracked() if re.fullmatch(r"atelier/.*\.py", name)]
    code = {p: re.sub(r'("""|\'\'\').*?\1', "", p.read_text(encoding="utf-8"), flags=re.DOTALL) for p in sources}
    assert [p.name for p, text in code.items() if read.search(text)] == ["settings.py"]


def test_assets_stay_light():
    total = sum((ROOT / name).stat().st_size for name in tracked() if name.startswith("assets/"))
    assert total <= 45_000_000


def test_no_package_registry_is_named():
    # Écrits en morceaux, pour que ce fichier se lise lui-même.
    hosts = ["py" + "pi.org", "python" + "hosted", "download.py" + "torch", "ana" + "conda.org", "registry.npm" + "js"]
    hosts += ["deb." + "debian", "archive." + "ubuntu", "index" + "-url ", "conda.ana" + "conda"]
    for name in tracked():
        if Path(name).suffix in {".py", ".md", ".toml", ".yml", ".txt", ".ipynb", ".json", ".cfg", ""}:
            text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
            assert not [host for host in hosts if host in text], name


ROADS = {
    "atelier": {"atelier"},
    "atelier/judging": {"atelier.judging", "atelier.text"},
    "solutions": {"atelier"},
    "grader/jail/inside": {"atelier.judging"},
    "colibri": {"colibri", "atelier", "grader"},
}
"""Dossier → ce qu'il importe du dépôt, à l'import. Le reste (grader) peut tout, sauf les essais."""
ROOMS = {"atelier", "grader", "solutions", "tests", "colibri"}


def imported(path: Path, everywhere: bool) -> list[tuple[int, str]]:
    """Les modules importés par le fichier : (ligne, nom) ; everywhere : dans le corps des fonctions aussi."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [(node.lineno, node.module or "")]
    return found


def test_imports_go_one_way():
    for folder in ("atelier", "solutions", "grader", "colibri"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            room = max((r for r in ROADS if place.startswith(f"{r}/")), key=len, default="")
            for line, name in imported(path, everywhere=room != "grader/jail/inside"):
                if name.split(".")[0] not in ROOMS:
                    continue
                allowed = ROADS.get(room, ROOMS - {"tests"})
                known = any(name == road or name.startswith(f"{road}.") for road in allowed)
                assert known, f"{place}, ligne {line}, importe {name}"


ONE_PLACE = {
    r"time\.sleep\(": "grader/retries.py",  # attendre avant de recommencer
    r"Struct\(|struct\.(?:un)?pack\w*\(\"<Q": "grader/jail/inside/framing.py",  # encadrer un message
    r"from sqlalchemy import .*\b(?:insert|update)\b": "grader/classroom/ledger.py",  # écrire dans la base
    r"os\.replace\(": "atelier/paths.py",  # écrire d'un coup
}
"""Ce qui ne s'écrit que dans un module, dans grader et atelier/paths.py (le banc d'essai, lui, attend un serveur)."""


@pytest.mark.parametrize("pattern", ONE_PLACE)
def test_one_idea_has_one_place(pattern):
    files = [ROOT / "atelier/paths.py", *(ROOT / "grader").rglob("*.py")]
    places = {path.relative_to(ROOT).as_posix() for path in files if re.search(pattern, path.read_text("utf-8"))}
    assert places - {"grader/bench/course.py"} == {ONE_PLACE[pattern]}


def test_the_house_needs_nothing_but_python():
    files = [
        ROOT / "cours.py",
        ROOT / "atelier/__init__.py",
        ROOT / "atelier/text.py",
        *sorted((ROOT / "atelier/launch").glob("*.py")),
    ]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names | {"atelier"}, f"{path.name} importe {name}"


# ── Les versions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def normal(name: str) -> str:
    """Nom d'un paquet, écrit comme pip les compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """constraints.txt : paquet → version."""
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in kept), (
        "une version exacte par ligne"
    )
    return {normal(name): version for name, version in (line.split("==") for line in kept)}


def asked() -> dict[str, str]:
    """pyproject.toml : paquet → borne."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = environment.requirements(ROOT, tuple(groups))
    return {normal(re.split(r"[<>=]", line, maxsplit=1)[0]): line for line in lines}


def test_every_package_asked_for_is_pinned_within_its_bound():
    from packaging.requirements import Requirement

    exact = pins()
    for name, line in asked().items():
        assert name in exact, f"{name} est demandé par pyproject.toml et absent de constraints.txt"
        assert Requirement(line).specifier.contains(exact[name]), f"{line} n'admet pas {exact[name]}"


def test_everything_installed_here_is_pinned():
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("ces tests ne tournent pas dans l'environnement de cours.py (.venv)")
    from importlib.metadata import distributions

    exact = pins()
    # Ce dossier seulement : setuptools, une fois chargé, montre aussi les paquets qu'il contient.
    here = [sysconfig.get_path("purelib")]
    found = {normal(d.name): d.version.split("+")[0] for d in distributions(path=here)}
    wrong = {name: version for name, version in found.items() if name != "pip" and exact.get(name) != version}
    assert not wrong, "installés et non fixés dans constraints.txt"


def test_conda_installs_the_same_thing():
    import yaml

    recipe = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, packages = recipe["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert plain[0] == f"python={PYTHON}"  # repo2docker (Binder) ne lit que « python=… »
    assert project["requires-python"] == f">={PYTHON}"
    assert plain[1:] == ["pip"]
    assert packages == {"pip": ["-c constraints.txt", "-e .[lab,enseignant]"]}
    assert {"lab", "enseignant"} <= set(project["optional-dependencies"])


def test_setting_up_follows_the_package_list_and_nothing_else(tmp_path):
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    first = environment.fingerprint(tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text(
        project.read_text(encoding="utf-8").replace("line-length = 120", "line-length = 100"), encoding="utf-8"
    )
    assert environment.fingerprint(tmp_path) == first
    project.write_text(project.read_text(encoding="utf-8").replace('"tqdm>=', '"tqdm>=9'), encoding="utf-8")
    second = environment.fingerprint(tmp_path)
    with open(tmp_path / "constraints.txt", "a", encoding="utf-8") as constraints:
        constraints.write("ajout==1.0\n")
    assert len({first, second, environment.fingerprint(tmp_path)}) == 3
