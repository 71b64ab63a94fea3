"""`cours.py` : chaque façon d'installer et de démarrer le cours, ou de n'y pas parvenir."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, exige, plain

from atelier.launch import environment, lab, main, parse, place
from atelier.launch.environment import Stamp, Trouble
from atelier.launch.place import Machine
from grader.authoring.publish import publish, wheel
from grader.bench import course as course_bench

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
    (root / "assets").mkdir()
    name, data = wheel(root)
    (root / name).write_bytes(data)
    return root / name


@pytest.fixture
def bundle(tmp_path, light_wheel) -> Path:
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


def test_the_bundle_says_that_it_has_no_tests(bundle):
    says(cours("test", cwd=bundle), "« test » demande le dossier tests/")
    says(cours("bench", cwd=bundle), "« bench » demande le dossier grader/")
    says(cours("mesures", "ch3_quantification", cwd=bundle), "solutions/")
    assert not (bundle / ".venv").exists()


def test_a_folder_that_cannot_be_written(bundle):
    bwrap = exige("bwrap")
    seal = [bwrap, "--dev-bind", "/", "/", "--ro-bind", str(bundle), str(bundle), "--chdir", str(bundle)]
    done = subprocess.run([*seal, sys.executable, "cours.py", "--no-open"], capture_output=True, text=True)
    says(done, "ne peut pas être écrit", "Copiez le cours", str(bundle))


def test_a_python_without_venv(bundle):
    trick = (
        "import sys, runpy; sys.modules['ensurepip'] = None; sys.argv = ['cours.py', '--no-open'];"
        "sys.path.insert(0, ''); runpy.run_path('cours.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", trick], cwd=bundle, capture_output=True, text=True)
    says(done, "le module ensurepip", "python3-venv")
    assert not (bundle / ".venv").exists()


def test_a_full_disk(bundle, monkeypatch):
    usage = shutil.disk_usage(bundle)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(Trouble, match="Il reste 1,0\u00a0Go"):
        environment.check_place(bundle)


NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "PIP_NO_CACHE_DIR": "1",
}


def test_no_network_then_a_clean_new_start(bundle):
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    says(done, "3/5", "Ce que dit pip", "Le réseau ne répond pas", "installation.log")
    assert not (bundle / ".venv" / environment.STAMP).exists()
    again = cours("--no-open", cwd=bundle, **NO_NETWORK)
    says(again, "n'est pas allée au bout", "2/5 Création", "Le réseau ne répond pas")


def test_an_update_without_network_keeps_the_previous_installation(bundle):
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=bundle, check=True)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    before = Stamp("ancienne", ("lab",), python, str(bundle))
    environment.write_stamp(bundle / ".venv", before)
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    assert done.returncode == 0, done.stderr
    assert "a changé : mise à jour" in plain(done.stdout) and "précédente est intacte" in done.stdout
    assert environment.read_stamp(bundle / ".venv") == before


@pytest.mark.lent
def test_a_new_publication_replaces_the_workshop_without_network(bundle, light_wheel, tmp_path):
    """Du même numéro que l'ancienne ; les paquets, eux, sont déjà là."""
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=bundle, check=True)
    packages = environment.packages_of(bundle / ".venv")
    (packages / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    for own in packages.glob("setuptools*"):  # celui de venv, sous Python 3.11, n'est pas celui du cours
        shutil.rmtree(own)
    (packages / "cours.pth").write_text("d'avant la roue", encoding="ascii")
    zipfile.ZipFile(light_wheel).extractall(packages)
    shutil.copytree(light_wheel.parent, renewed := tmp_path / "source")
    with open(renewed / "course.toml", "a", encoding="utf-8") as course:
        course.write("\nnouveau = true\n")
    place.wheel(bundle).write_bytes(wheel(renewed)[1])
    before = Stamp("l'ancienne roue", ("lab",), a_version(), str(bundle))
    environment.write_stamp(bundle / ".venv", before)
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    assert done.returncode == 0 and "intacte" not in done.stdout, done.stdout + done.stderr
    assert "nouveau = true" in (packages / "atelier/course.toml").read_text(encoding="utf-8")
    assert environment.read_stamp(bundle / ".venv").fingerprint == environment.fingerprint(bundle)
    assert not (packages / "cours.pth").exists()


def a_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_renamed_course_is_repaired_in_place_without_network(bundle):
    """Une installation qui marche, dont le dossier change de nom : ses programmes suivent, rien n'est retéléchargé."""
    before = bundle.parent / "avant"
    folder = before / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = environment.packages_of(folder)
    (packages / "ici.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    zipfile.ZipFile(place.wheel(bundle)).extractall(packages)
    tool = folder / "bin" / "outil"
    tool.write_text(f"#!{folder}/bin/python\nimport sys\nprint(sys.prefix)\n", encoding="utf-8")
    tool.chmod(0o755)
    environment.write_stamp(folder, Stamp(environment.fingerprint(bundle), ("lab",), a_version(), str(before)))
    folder.rename(bundle / ".venv")
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "je répare son installation" in plain(done.stdout) and "/5" not in done.stdout
    said = subprocess.run([bundle / ".venv/bin/outil"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(bundle / ".venv"), "un nom à espaces et accents ne tient pas sur une première ligne"
    assert str(before) not in (bundle / ".venv/bin/activate").read_text(encoding="utf-8")
    moved = bundle.parent / "après"
    bundle.rename(moved)
    assert cours("--no-open", cwd=moved, **NO_NETWORK).returncode == 0
    assert subprocess.run([moved / ".venv/bin/outil"], capture_output=True, text=True).stdout.strip() == str(
        moved / ".venv"
    )


def test_what_cannot_be_repaired_is_kept_until_its_replacement_works(bundle):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=bundle, check=True)
    stamp = Stamp(environment.fingerprint(bundle), ("lab",), a_version(), str(bundle / "avant"))
    environment.write_stamp(bundle / ".venv", stamp)
    kept = bundle / ".venv" / "ce qui était là"
    kept.touch()
    says(cours("--no-open", cwd=bundle, **NO_NETWORK), "a changé de dossier ou de Python", "Le réseau ne répond pas")
    assert kept.exists() and environment.read_stamp(bundle / ".venv") == stamp
    assert not [p for p in bundle.iterdir() if p.name in (".venv.neuf", ".venv.ancien", ".venv.tmp")]


def test_an_interrupted_exchange_is_put_back(bundle):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv.ancien"], cwd=bundle, check=True)
    stamp = Stamp(environment.fingerprint(bundle), ("lab",), a_version(), str(bundle))
    environment.write_stamp(bundle / ".venv.ancien", stamp)
    assert cours("--no-open", cwd=bundle, **NO_NETWORK).returncode == 0
    assert environment.read_stamp(bundle / ".venv") == stamp and not (bundle / ".venv.ancien").exists()


def test_another_python_uses_the_installation_that_works(bundle):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=bundle, check=True)
    environment.write_stamp(bundle / ".venv", Stamp(environment.fingerprint(bundle), ("lab",), "3.0", str(bundle)))
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    assert done.returncode == 0 and "/5" not in done.stdout


# ── Deux à la fois ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_start_waits_for_the_first(bundle):
    env = {**os.environ, **NO_NETWORK, "PYTHONUNBUFFERED": "1"}
    with place.alone(bundle):
        second = subprocess.Popen(
            [sys.executable, "cours.py", "--no-open"], cwd=bundle, env=env, stdout=subprocess.PIPE, text=True
        )
        assert "Une autre fenêtre installe le cours" in second.stdout.readline()
        assert second.poll() is None and not (bundle / ".venv").exists()
    assert "1/5" in second.communicate(timeout=120)[0]


def test_an_orphan_pip_still_holds_the_folder(bundle):
    """Le premier tué net, son pip continue d'écrire : le second ne s'y met pas avant qu'il ait fini."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        env = {**os.environ, **NO_NETWORK, "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        line = [sys.executable, "-u", "cours.py", "--no-open"]
        first = subprocess.Popen(line, cwd=bundle, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            silent.accept()  # pip a commencé
            first.kill()
            first.wait()
            with open(bundle / place.LOCK, "ab") as file:
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
def test_an_unsupported_machine_downloads_nothing(bundle, pretend, words):
    trick = f"import platform, sys, runpy; sys.argv = ['cours.py', '--no-open']; sys.path.insert(0, ''); {pretend};"
    trick += "runpy.run_path('cours.py', run_name='__main__')"
    says(subprocess.run([sys.executable, "-c", trick], cwd=bundle, capture_output=True, text=True), *words)
    assert not (bundle / ".venv").exists()


def test_a_folder_whose_name_holds_the_path_separator(bundle):
    folder = bundle.rename(bundle.parent / f"tp{os.pathsep}3")
    says(cours("--no-open", cwd=folder), "sépare les dossiers", "Renommez ce dossier")
    assert not (folder / ".venv").exists()


def test_a_small_temporary_folder_is_not_the_one_used(bundle, tmp_path):
    bwrap, small = exige("bwrap"), tmp_path / "petit"
    small.mkdir()
    seal = [bwrap, "--dev-bind", "/", "/", "--size", "65536", "--tmpfs", str(small), "--chdir", str(bundle)]
    env = {**os.environ, **NO_NETWORK, "TMPDIR": str(small)}
    done = subprocess.run([*seal, sys.executable, "cours.py", "--no-open"], env=env, capture_output=True, text=True)
    says(done, f"{small} est trop petit", "3/5", "Le réseau ne répond pas")
    assert not (bundle / ".venv.tmp").exists()


def test_an_unwritable_home_is_said_and_replaced(bundle, monkeypatch, capsys):
    monkeypatch.setattr(place, "writable", lambda folder: folder != Path.home())
    env = lab.variables(Path(sys.executable), bundle, "jeton")
    assert Path(env["JUPYTER_RUNTIME_DIR"]).is_relative_to(bundle) and Path(env["IPYTHONDIR"]).is_relative_to(bundle)
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


def test_a_file_in_the_place_of_the_environment_is_a_sentence(bundle):
    (bundle / ".venv").touch()
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "relancez" in done.stderr.lower()


def test_a_finished_installation_is_left_alone(bundle):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=bundle, check=True)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stamp = Stamp(environment.fingerprint(bundle), ("lab", "test"), python, str(bundle))
    environment.write_stamp(bundle / ".venv", stamp)
    done = cours("--no-open", cwd=bundle, **NO_NETWORK)
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
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate", "PIP_CERT"),
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


@pytest.mark.lent
def test_a_real_interrupted_set_up_is_repaired_and_the_second_start_installs_nothing(bundle):
    place.wheel(bundle).unlink()
    publish(ROOT, bundle)
    env = {k: v for k, v in os.environ.items() if not k.startswith("COURS_")} | {"PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "cours.py", "--no-open"]
    first = subprocess.Popen(line, cwd=bundle, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for text in first.stdout:
        if text.startswith("4/5"):
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert (bundle / ".venv").is_dir() and not (bundle / ".venv" / environment.STAMP).exists()

    second = cours("--no-open", cwd=bundle)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "n'est pas allée au bout" in second.stdout and "5/5" in second.stdout and "Tout est prêt" in second.stdout

    alone = [bundle / ".venv/bin/python", "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout"]
    opened = subprocess.run([*alone, "ch0_accueil.ipynb"], cwd=bundle / "notebooks", env=env, capture_output=True)
    assert opened.returncode == 0, opened.stderr[-3000:].decode()
    assert "ch8_lora.ipynb" in opened.stdout.decode(), "les carnets d'à côté sont proposés"

    assert course_bench.start_seconds(bundle) < 15
