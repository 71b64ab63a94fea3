"""La maison : la racine, les versions, le sens des imports, et chaque façon de démarrer (ou non) le cours."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, exige

from atelier.launch import environment, lab, main, parse, place
from atelier.launch.environment import Stamp, Trouble
from atelier.launch.place import Machine
from grader.authoring import wheel
from grader.authoring.publish import publish
from grader.bench import course as course_bench
from grader.classroom.course import CONFIG, CONFIG_TEXT

TOP_LEVEL = {
    *("README.md", "LICENSE", "cours.py", "course.toml", "environment.yml", "pyproject.toml", "constraints.txt"),
    *("notebooks", "atelier", "solutions", "grader", "colibri", "assets", "tests", ".ci"),
    *(".gitignore", ".gitattributes", ".editorconfig", ".pre-commit-config.yaml"),
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
    """Les scripts solutions/*/measures.py, que rien n'importe, lisent leurs références par grader."""
    for folder in ("atelier", "solutions", "grader", "colibri"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            room = max((r for r in ROADS if place.startswith(f"{r}/")), key=len, default="")
            for line, name in imported(path, everywhere=room != "grader/jail/inside"):
                if name.split(".")[0] not in ROOMS or path.match("solutions/*/measures.py"):
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
    assert plain[0] == "python" + project["requires-python"] + ",<3.14"
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


# ── La ligne de commande ─────────────────────────────────────────────────────────────────────────────────────────────


def cours(
    *arguments: str, cwd: Path = ROOT, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess:
    """Lance cours.py comme on le tape."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COURS_")} | variables
    return subprocess.run(
        [python, "cours.py", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def plain(text: str) -> str:
    """Le texte, ses espaces insécables en espaces ordinaires."""
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def says(done: subprocess.CompletedProcess, *words: str) -> None:
    """Le programme s'est arrêté en le disant, sans trace."""
    text = plain(done.stdout + done.stderr)
    assert done.returncode == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


@pytest.fixture(scope="module")
def light_wheel(tmp_path_factory) -> Path:
    """La roue d'atelier, sans ses ressources."""
    root = tmp_path_factory.mktemp("roue")
    shutil.copytree(ROOT / "atelier", root / "atelier")
    for name in ("course.toml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    name, data = wheel.wheel(root)
    (root / name).write_bytes(data)
    return root / name


@pytest.fixture
def house(tmp_path, light_wheel) -> Path:
    """Ce que reçoit un étudiant, sans les carnets ni les poids, dans un dossier au nom difficile."""
    folder = tmp_path / "Élève à l’école"
    folder.mkdir()
    for path in (ROOT / "cours.py", ROOT / "constraints.txt", light_wheel):
        shutil.copy(path, folder)
    return folder


def test_help_and_mistyped_commands_speak_french():
    done = cours("--aide")
    assert done.returncode == 0 and "python cours.py --no-open" in done.stdout
    says(cours("ouvre"), "n'est pas comprise : ouvre", "--no-open")
    says(cours("--port", "abc"), "--port attend un nombre")
    says(cours("mesures"), "Quel chapitre")


def test_options_reach_pytest():
    options = parse(["test", "-k", "check", "-x"])
    assert (options.command, options.rest) == ("test", ["-k", "check", "-x"])
    assert parse(["--port=9000", "--no-open"]).port == 9000
    assert parse(["--sans-ouvrir", "--ici"]) == parse(["--no-open", "--here"]), "les anciens noms valent encore"


def test_an_old_python_gets_a_sentence():
    text = (ROOT / "cours.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 4))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.AnnAssign))]
    trick = "import sys, runpy; sys.version_info = (3, 8, 1); runpy.run_path('cours.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", trick], cwd=ROOT, capture_output=True, text=True)
    says(done, "demande Python 3.11 ou plus récent")
    assert not done.stdout


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_a_real_old_python_gets_the_same_sentence(version):
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")) or [shutil.which(f"python{version}")]
    if not found[0]:
        pytest.skip(f"pas de Python {version} sur cette machine")
    says(cours(python=str(found[0])), "demande Python 3.11 ou plus récent", f"Python {version}")


def test_the_bundle_says_that_it_has_no_tests(house):
    says(cours("test", cwd=house), "« test » demande le dossier tests/")
    says(cours("bench", cwd=house), "« bench » demande le dossier grader/")
    says(cours("mesures", "ch3_quantification", cwd=house), "solutions/")
    assert not (house / ".venv").exists()


def test_a_folder_that_cannot_be_written(house):
    bwrap = exige("bwrap")
    seal = [bwrap, "--dev-bind", "/", "/", "--ro-bind", str(house), str(house), "--chdir", str(house)]
    done = subprocess.run([*seal, sys.executable, "cours.py", "--no-open"], capture_output=True, text=True)
    says(done, "ne peut pas être écrit", "Copiez le cours", str(house))


def test_a_python_without_venv(house):
    trick = (
        "import sys, runpy; sys.modules['ensurepip'] = None; sys.argv = ['cours.py', '--no-open'];"
        "sys.path.insert(0, ''); runpy.run_path('cours.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", trick], cwd=house, capture_output=True, text=True)
    says(done, "le module ensurepip", "python3-venv")
    assert not (house / ".venv").exists()


def test_a_full_disk(house, monkeypatch):
    usage = shutil.disk_usage(house)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(Trouble, match="Il reste 1,0\u00a0Go"):
        environment.check_place(house)


NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "PIP_NO_CACHE_DIR": "1",
}


def test_no_network_then_a_clean_new_start(house):
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    says(done, "3/5", "Ce que dit pip", "Le réseau ne répond pas", "installation.log")
    assert not (house / ".venv" / environment.STAMP).exists()
    again = cours("--no-open", cwd=house, **NO_NETWORK)
    says(again, "n'est pas allée au bout", "2/5 Création", "Le réseau ne répond pas")


def test_an_update_without_network_keeps_the_previous_installation(house):
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=house, check=True)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    before = Stamp("ancienne", ("lab",), python, str(house))
    environment.write_stamp(house / ".venv", before)
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 0, done.stderr
    assert "a changé : mise à jour" in plain(done.stdout) and "précédente est intacte" in done.stdout
    assert environment.read_stamp(house / ".venv") == before


@pytest.mark.lent
def test_a_new_publication_replaces_the_workshop_without_network(house, light_wheel, tmp_path):
    """Du même numéro que l'ancienne ; les paquets, eux, sont déjà là."""
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=house, check=True)
    packages = environment.packages_of(house / ".venv")
    (packages / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    for own in packages.glob("setuptools*"):  # celui de venv, sous Python 3.11, n'est pas celui du cours
        shutil.rmtree(own)
    (packages / "cours.pth").write_text("d'avant la roue", encoding="ascii")
    zipfile.ZipFile(light_wheel).extractall(packages)
    shutil.copytree(light_wheel.parent, renewed := tmp_path / "source")
    with open(renewed / "course.toml", "a", encoding="utf-8") as course:
        course.write("\nnouveau = true\n")
    place.wheel(house).write_bytes(wheel.wheel(renewed)[1])
    before = Stamp("l'ancienne roue", ("lab",), a_version(), str(house))
    environment.write_stamp(house / ".venv", before)
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 0 and "intacte" not in done.stdout, done.stdout + done.stderr
    assert "nouveau = true" in (packages / "atelier/course.toml").read_text(encoding="utf-8")
    assert environment.read_stamp(house / ".venv").fingerprint == environment.fingerprint(house)
    assert not (packages / "cours.pth").exists()


def a_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_renamed_course_is_repaired_in_place_without_network(house):
    """Une installation qui marche, dont le dossier change de nom : ses programmes suivent, rien n'est retéléchargé."""
    before = house.parent / "avant"
    folder = before / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = environment.packages_of(folder)
    (packages / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    zipfile.ZipFile(place.wheel(house)).extractall(packages)
    tool = folder / "bin" / "outil"
    tool.write_text(f"#!{folder}/bin/python\nimport sys\nprint(sys.prefix)\n", encoding="utf-8")
    tool.chmod(0o755)
    environment.write_stamp(folder, Stamp(environment.fingerprint(house), ("lab",), a_version(), str(before)))
    folder.rename(house / ".venv")
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "je répare son installation" in plain(done.stdout) and "/5" not in done.stdout
    said = subprocess.run([house / ".venv/bin/outil"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(house / ".venv"), "un nom à espaces et accents ne tient pas sur une première ligne"
    assert str(before) not in (house / ".venv/bin/activate").read_text(encoding="utf-8")
    moved = house.parent / "après"
    house.rename(moved)
    assert cours("--no-open", cwd=moved, **NO_NETWORK).returncode == 0
    assert subprocess.run([moved / ".venv/bin/outil"], capture_output=True, text=True).stdout.strip() == str(
        moved / ".venv"
    )


def test_what_cannot_be_repaired_is_kept_until_its_replacement_works(house):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=house, check=True)
    stamp = Stamp(environment.fingerprint(house), ("lab",), a_version(), str(house / "avant"))
    environment.write_stamp(house / ".venv", stamp)
    kept = house / ".venv" / "ce qui était là"
    kept.touch()
    says(cours("--no-open", cwd=house, **NO_NETWORK), "a changé de dossier ou de Python", "Le réseau ne répond pas")
    assert kept.exists() and environment.read_stamp(house / ".venv") == stamp
    assert not [p for p in house.iterdir() if p.name in (".venv.neuf", ".venv.ancien", ".venv.tmp")]


def test_an_interrupted_exchange_is_put_back(house):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv.ancien"], cwd=house, check=True)
    stamp = Stamp(environment.fingerprint(house), ("lab",), a_version(), str(house))
    environment.write_stamp(house / ".venv.ancien", stamp)
    assert cours("--no-open", cwd=house, **NO_NETWORK).returncode == 0
    assert environment.read_stamp(house / ".venv") == stamp and not (house / ".venv.ancien").exists()


def test_another_python_uses_the_installation_that_works(house):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=house, check=True)
    environment.write_stamp(house / ".venv", Stamp(environment.fingerprint(house), ("lab",), "3.0", str(house)))
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 0 and "/5" not in done.stdout


# ── Deux à la fois ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_start_waits_for_the_first(house):
    env = {**os.environ, **NO_NETWORK, "PYTHONUNBUFFERED": "1"}
    with place.alone(house):
        second = subprocess.Popen(
            [sys.executable, "cours.py", "--no-open"], cwd=house, env=env, stdout=subprocess.PIPE, text=True
        )
        assert "Une autre fenêtre installe le cours" in second.stdout.readline()
        assert second.poll() is None and not (house / ".venv").exists()
    assert "1/5" in second.communicate(timeout=120)[0]


def test_an_orphan_pip_still_holds_the_folder(house):
    """Le premier tué net, son pip continue d'écrire : le second ne s'y met pas avant qu'il ait fini."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        env = {**os.environ, **NO_NETWORK, "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        line = [sys.executable, "-u", "cours.py", "--no-open"]
        first = subprocess.Popen(line, cwd=house, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            silent.accept()  # pip a commencé
            first.kill()
            first.wait()
            with open(house / place.LOCK, "ab") as file:
                assert not place._lock(file, wait=False)
                os.killpg(first.pid, signal.SIGKILL)
                assert place._lock(file, wait=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)


# ── Là où le cours ne peut pas s'installer ───────────────────────────────────────────────────────────────────────────

LINUX = Machine((3, 12), 64, "linux-x86_64", "2.36")
GOOD = [
    LINUX,
    Machine((3, 11), 64, "linux-aarch64", "2.28"),
    Machine((3, 13), 64, "macosx-arm64", "14.5"),
    Machine((3, 13), 64, "win-amd64"),
    place.this_machine(),
]
BAD = [
    (Machine((3, 12), 64, "macosx-x86_64", "14.5"), "Mac Intel", "Colab"),
    (Machine((3, 12), 64, "macosx-x86_64", "15.0", translated=True), "traduit", "arm64"),
    (Machine((3, 12), 64, "macosx-arm64", "13.6"), "macOS 13.6", "Colab"),
    (Machine((3, 12), 64, "win-arm64"), "Windows sur ARM", "Colab"),
    (Machine((3, 12), 32, "win32"), "32 bits", "64 bits"),
    (Machine((3, 12), 32, "linux-armv7l", "2.36"), "32 bits", "64 bits"),
    (Machine((3, 14), 64, "linux-x86_64", "2.36"), "trop récent", "3.13"),
    (Machine((3, 12), 64, "linux-riscv64", "2.36"), "riscv64", "Colab"),
    (Machine((3, 12), 64, "linux-x86_64", "musl"), "musl", "Colab"),
    (Machine((3, 12), 64, "linux-x86_64", "2.17"), "2.28", "Colab"),
    (Machine((3, 12), 64, "freebsd-14-amd64"), "freebsd", "Colab"),
    (Machine((3, 11), 64, "linux-x86_64", "2.36", "pypy"), "pypy", "Python ordinaire"),
    (Machine((3, 13), 64, "linux-x86_64", "2.36", "cpython-t"), "variante", "Python ordinaire"),
]


@pytest.mark.parametrize("machine", GOOD)
def test_machines_with_every_package(machine):
    assert place.unsupported(machine) == ""


@pytest.mark.parametrize(("machine", "what", "advice"), BAD)
def test_machines_without_a_package_are_told_before_downloading(machine, what, advice):
    said = plain(place.unsupported(machine))
    assert what in said and advice in said
    assert machine.version > (3, 13) or "trop récent" not in said


@pytest.mark.parametrize(
    ("pretend", "words"),
    [
        ("sys.version_info = (3, 14, 0)", ["trop récent", "3.13"]),
        ("sys.platform = 'darwin'; platform.machine = lambda: 'x86_64'", ["Mac Intel", "Google Colab"]),
    ],
)
def test_an_unsupported_machine_downloads_nothing(house, pretend, words):
    trick = f"import platform, sys, runpy; sys.argv = ['cours.py', '--no-open']; sys.path.insert(0, ''); {pretend};"
    trick += "runpy.run_path('cours.py', run_name='__main__')"
    says(subprocess.run([sys.executable, "-c", trick], cwd=house, capture_output=True, text=True), *words)
    assert not (house / ".venv").exists()


def test_a_folder_whose_name_holds_the_path_separator(house):
    folder = house.rename(house.parent / f"tp{os.pathsep}3")
    says(cours("--no-open", cwd=folder), "sépare les dossiers", "Renommez ce dossier")
    assert not (folder / ".venv").exists()


def test_a_small_temporary_folder_is_not_the_one_used(house, tmp_path):
    bwrap, small = exige("bwrap"), tmp_path / "petit"
    small.mkdir()
    seal = [bwrap, "--dev-bind", "/", "/", "--size", "65536", "--tmpfs", str(small), "--chdir", str(house)]
    env = {**os.environ, **NO_NETWORK, "TMPDIR": str(small)}
    done = subprocess.run([*seal, sys.executable, "cours.py", "--no-open"], env=env, capture_output=True, text=True)
    says(done, f"{small} est trop petit", "3/5", "Le réseau ne répond pas")
    assert not (house / ".venv.tmp").exists()


def test_an_unwritable_home_is_said_and_replaced(house, monkeypatch, capsys):
    monkeypatch.setattr(place, "writable", lambda folder: folder != Path.home())
    env = lab.variables(Path(sys.executable), house, "jeton")
    assert Path(env["JUPYTER_RUNTIME_DIR"]).is_relative_to(house) and Path(env["IPYTHONDIR"]).is_relative_to(house)
    assert "dossier personnel ne peut pas être écrit" in capsys.readouterr().out


def test_writable_looks_at_what_exists(tmp_path):
    assert place.writable(tmp_path / "à" / "créer")
    (tmp_path / "fichier").touch()
    assert not place.writable(tmp_path / "fichier")


@pytest.mark.parametrize(("number", "advice"), [(28, "disque est plein"), (13, "peut être écrit"), (5, "envoyez")])
def test_a_refusal_of_the_system_is_a_sentence(monkeypatch, capsys, number, advice):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/un/dossier")

    monkeypatch.setattr(environment, "prepare", refuse)
    assert main(["--no-open"], str(ROOT)) == 1
    said = capsys.readouterr().err
    assert "/un/dossier" in said and advice in said


def test_a_file_in_the_place_of_the_environment_is_a_sentence(house):
    (house / ".venv").touch()
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "relancez" in done.stderr.lower()


def test_a_finished_installation_is_left_alone(house):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=house, check=True)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stamp = Stamp(environment.fingerprint(house), ("lab", "test"), python, str(house))
    environment.write_stamp(house / ".venv", stamp)
    done = cours("--no-open", cwd=house, **NO_NETWORK)
    assert done.returncode == 0 and "/5" not in done.stdout


@pytest.mark.parametrize(
    "line, advice",
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disque est plein"),
        ('WARNING: Retrying … ReadTimeoutError("Read timed out. (read timeout=15)")', "réseau ne répond pas"),
        (
            "ERROR: No matching distribution found for torch>=2.11",
            "n'existe pas, dans la version demandée",
        ),
        ("    The user requested (constraint) torch==2.13.0", "Google Colab"),
        ("ERROR: Failed building wheel for onnxruntime", "Google Colab"),
        ("HINT: … does not have Windows Long Path support enabled", "dossier plus court"),
        ("quelque chose d'autre", "envoyez ces lignes"),
    ],
)
def test_pip_failures_are_explained(line, advice):
    extract, text = environment.explain(f"Collecting torch\n{line}\n\n")
    assert line.strip() in extract and advice in text
    assert "Prenez Python" not in text


def test_progress_follows_what_pip_says(tmp_path, capsys):
    progress = environment.Progress(160, tmp_path)
    log = "Collecting torch>=2.11\n  Downloading torch.whl (190 MB)\nCollecting numpy\n"
    progress.update(log)
    assert plain(capsys.readouterr().out) == "3/5 Téléchargement : 2 sur 160 paquets au plus (numpy)\n"
    for name in ("torch-2.13.0.dist-info", "numpy", "pip-23.2.dist-info"):
        (tmp_path / name).mkdir()
    progress.update(log + "Requirement already satisfied: pip\nInstalling collected packages: torch, numpy\n")
    assert plain(capsys.readouterr().out) == "4/5 Installation : 1 sur 2 paquets\n"


# ── JupyterLab ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_taken_port_is_said_and_the_next_one_used(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = lab.choose_port(port)
        assert port < chosen < port + lab.PORTS_TRIED
        assert f"Le port {port} est déjà pris" in capsys.readouterr().out
    assert lab.choose_port(port) == port
    assert capsys.readouterr().out == ""


def test_an_impossible_port_is_refused():
    with pytest.raises(Trouble, match="1024 à 65535"):
        lab.choose_port(80)


def test_the_lab_configuration_is_french_and_shipped():
    shipped = lab.config(Path(sys.executable))
    overrides = json.loads((shipped / "labconfig/default_setting_overrides.json").read_text(encoding="utf-8"))
    assert overrides["@jupyterlab/translation-extension:plugin"]["locale"] == "fr_FR"
    assert shipped == ROOT / "atelier/launch/jupyter" and (shipped / "noyau.py").is_file()


# ── Pour de vrai ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
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


@pytest.mark.lent
def test_a_real_interrupted_set_up_is_repaired_and_the_second_start_installs_nothing(house):
    place.wheel(house).unlink()
    publish(ROOT, house)
    env = {k: v for k, v in os.environ.items() if not k.startswith("COURS_")} | {"PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "cours.py", "--no-open"]
    first = subprocess.Popen(line, cwd=house, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for text in first.stdout:
        if text.startswith("4/5"):
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert (house / ".venv").is_dir() and not (house / ".venv" / environment.STAMP).exists()

    second = cours("--no-open", cwd=house)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "n'est pas allée au bout" in second.stdout and "5/5" in second.stdout and "Tout est prêt" in second.stdout

    alone = [house / ".venv/bin/python", "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout"]
    opened = subprocess.run([*alone, "ch0_accueil.ipynb"], cwd=house / "notebooks", env=env, capture_output=True)
    assert opened.returncode == 0, opened.stderr[-3000:].decode()
    assert "ch8_lora.ipynb" in opened.stdout.decode(), "les carnets d'à côté sont proposés"

    assert course_bench.start_seconds(house) < 15
