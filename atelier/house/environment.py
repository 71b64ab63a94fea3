"""L'environnement du cours : un dossier .venv tenu exactement à constraints.txt.

Un témoin (.venv/cours.json) est écrit une fois que tout est installé et vérifié. S'il manque, l'installation a été
interrompue et on repart d'un environnement neuf ; s'il dit autre chose que les fichiers du cours, on met à jour.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = ".venv"
STAMP = "cours.json"
LOG = "installation.log"
NEEDED_BYTES = 3 * 10**9
STEPS = 5
LAST_LINES = 8

VERIFY = "import torch, transformers, jupyterlab, atelier"

# Ce que pip écrit → ce que cela veut dire pour qui lit. Le premier motif trouvé l'emporte.
CAUSES = (
    (r"No space left|Errno 28", "Le disque est plein. Faites de la place (3 Go environ), puis relancez."),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|Max retries|ConnectionError|"
        r"Connection (?:refused|reset|aborted)|Name or service not known|name resolution|getaddrinfo|ProxyError|"
        r"SSLError|Network is unreachable",
        "Le réseau ne répond pas. Vérifiez la connexion (et, dans un établissement, le mandataire\u00a0: variable "
        "HTTPS_PROXY), puis relancez\u00a0: ce qui est déjà téléchargé ne le sera pas une seconde fois.",
    ),
    (
        r"No matching distribution|Could not find a version|user requested \(constraint\)",
        "pip ne trouve pas un paquet, dans la version demandée, pour ce Python et ce système. Prenez Python 3.11, 3.12 "
        "ou 3.13 en 64 bits\u202f; si vous passez par un miroir de paquets, vérifiez qu'il est à jour.",
    ),
    (
        r"Permission denied|Errno 13",
        "Un fichier ne peut pas être écrit. Vérifiez les droits du dossier, puis relancez.",
    ),
)
UNKNOWN_CAUSE = "Relancez une fois. Si cela recommence, envoyez ces lignes à la personne qui enseigne."


class Trouble(Exception):
    """Un souci prévu : ce qui ne va pas, où, et quoi faire, en français."""


@dataclass(frozen=True)
class Stamp:
    """Ce qu'un environnement terminé sait de lui-même."""

    fingerprint: str
    extras: tuple[str, ...]
    python: str
    root: str


def python_of(folder: Path) -> Path:
    """L'interpréteur d'un environnement virtuel."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def packages_of(folder: Path) -> Path:
    """Le dossier des paquets d'un environnement virtuel créé par ce Python."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return folder / "Lib/site-packages" if os.name == "nt" else folder / "lib" / version / "site-packages"


def extras(root: Path, *, testing: bool) -> tuple[str, ...]:
    """Les groupes de paquets qu'il faut ici : ceux de l'étudiant, plus ceux du dépôt complet, plus ceux des tests."""
    groups = ["lab"]
    if (root / "grader").is_dir():
        groups.append("enseignant")
    if testing:
        groups += ["grappe", "test"]
    return tuple(groups)


def requirements(root: Path, groups: tuple[str, ...]) -> list[str]:
    """Les paquets demandés par pyproject.toml, groupes compris."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for group in groups for line in optional[group])]


def fingerprint(root: Path) -> str:
    """Empreinte de ce qui décide de l'installation : les paquets demandés et leurs versions exactes."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = json.dumps([project["dependencies"], project["optional-dependencies"]], sort_keys=True)
    pins = (root / "constraints.txt").read_text(encoding="utf-8").split("\n")
    kept = [line.strip() for line in pins if line.strip() and not line.startswith("#")]
    return hashlib.sha256("\n".join([asked, *kept]).encode()).hexdigest()


def read_stamp(folder: Path) -> Stamp | None:
    """Le témoin d'un environnement, ou None s'il manque ou ne se lit pas."""
    try:
        data = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return Stamp(data["fingerprint"], tuple(data["extras"]), data["python"], data["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def variables(python: Path) -> dict[str, str]:
    """L'environnement des processus lancés : les programmes de .venv d'abord, rien d'un autre Python.

    Les réglages de pip (index, mandataire, cache) passent tels quels.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")}
    env["PATH"] = os.pathsep.join([str(python.parent), env.get("PATH", "")])
    env["PYTHONUTF8"] = "1"
    env["JUPYTER_PREFER_ENV_PATH"] = "1"
    return env


def current_python() -> Path:
    """Le Python en cours, s'il a ce qu'il faut pour suivre le cours ; lève `Trouble` sinon."""
    python = Path(sys.executable)
    done = subprocess.run([python, "-c", VERIFY], capture_output=True, text=True, env=variables(python))
    if done.returncode:
        raise Trouble(
            f"Ce Python ({python}) n'a pas tout ce qu'il faut\u00a0:\n{last_lines(done.stderr, 1)}\n"
            "Avec conda ou mamba\u00a0: conda env create -f environment.yml, puis conda activate cours. "
            "Sinon, relancez sans --ici."
        )
    return python


def prepare(root: Path, groups: tuple[str, ...], *, previous_will_do: bool = False) -> Path:
    """Rend l'interpréteur d'un environnement à jour, après l'avoir installé s'il le faut.

    previous_will_do : si une mise à jour est impossible (pas de réseau), accepter l'installation précédente intacte.
    """
    folder = root / FOLDER
    python = python_of(folder)
    wanted = Stamp(fingerprint(root), groups, ".".join(map(str, sys.version_info[:2])), str(root))
    found = read_stamp(folder)
    if found and python.exists() and (found.python, found.root) == (wanted.python, wanted.root):
        if found.fingerprint == wanted.fingerprint and set(groups) <= set(found.extras):
            return python
        print("La liste des paquets du cours a changé\u00a0: mise à jour de l'installation.")
        merged = Stamp(wanted.fingerprint, tuple(sorted({*groups, *found.extras})), wanted.python, wanted.root)
        return update(root, merged, found, previous_will_do)
    if folder.exists():
        if found:
            print("Le cours a changé de dossier ou de Python\u00a0: je refais son installation.")
        else:
            print("Une installation précédente n'est pas allée au bout\u00a0: je la recommence proprement.")
    return install(root, wanted)


def install(root: Path, wanted: Stamp) -> Path:
    """Crée .venv et y installe tout ; le témoin n'est écrit qu'à la fin."""
    folder = root / FOLDER
    python = python_of(folder)
    say(1, f"Python {sys.version.split()[0]}, dossier {root}")
    check_place(root)
    if Path(sys.prefix).resolve() == folder.resolve():
        raise Trouble(f"L'environnement {FOLDER} est en cours d'usage. Tapez «\u00a0deactivate\u00a0», puis relancez.")
    say(2, f"Création de l'environnement {FOLDER}")
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", folder], capture_output=True, text=True, env=variables(python)
    )
    if done.returncode:
        raise Trouble(
            f"L'environnement {folder} n'a pas pu être créé\u00a0:\n{last_lines(done.stdout + done.stderr)}\n"
            "Vérifiez que ce dossier peut être écrit et qu'aucun programme ne l'utilise, puis relancez."
        )
    pip_install(root, python, wanted.extras)
    finish(root, python, wanted)
    return python


def update(root: Path, wanted: Stamp, previous: Stamp, previous_will_do: bool) -> Path:
    """Met à jour un environnement en place ; si pip n'y a encore rien changé, l'ancien témoin est rétabli."""
    folder = root / FOLDER
    python = python_of(folder)
    try:
        (folder / STAMP).unlink()
    except OSError as error:
        raise Trouble(f"L'installation du cours ne peut pas être mise à jour ({error}).") from error
    try:
        pip_install(root, python, wanted.extras)
    except Trouble as trouble:
        if "Installing collected packages" not in read_log(folder):
            write_stamp(folder, previous)
            if previous_will_do and "lab" in previous.extras:
                print(f"{trouble}\n\nL'installation précédente est intacte\u00a0: j'ouvre le cours avec elle.")
                return python
        raise
    finish(root, python, wanted)
    return python


def finish(root: Path, python: Path, wanted: Stamp) -> None:
    """Rend le cours importable, vérifie l'ensemble, puis écrit le témoin."""
    say(STEPS, "Vérification")
    folder = root / FOLDER
    packages = packages_of(folder)
    # Chemin relatif : ni les accents d'un nom de dossier, ni le codage du système ne comptent.
    (packages / "cours.pth").write_text(os.path.relpath(root, packages) + "\n", encoding="ascii")
    done = subprocess.run([python, "-c", VERIFY], capture_output=True, text=True, env=variables(python))
    if done.returncode:
        raise Trouble(
            f"Tout est installé, mais un paquet ne se charge pas\u00a0:\n{last_lines(done.stderr)}\n{UNKNOWN_CAUSE}"
        )
    write_stamp(folder, wanted)


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Écrit le témoin d'un seul coup."""
    temporary = folder / (STAMP + ".nouveau")
    temporary.write_text(json.dumps(asdict(stamp), ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, folder / STAMP)


def check_place(root: Path) -> None:
    """Lève `Trouble` si le dossier ne peut pas être écrit, si la place ou un module de Python manque."""
    probe = root / f"{FOLDER}.essai"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise Trouble(
            f"Le dossier {root} ne peut pas être écrit ({error.strerror}).\n"
            "Copiez le cours dans un dossier à vous (par exemple «\u00a0Documents\u00a0»), puis relancez depuis là."
        ) from error
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES:
        raise Trouble(
            f"Il reste {free / 1e9:.1f} Go sur le disque de {root}\u202f; il en faut environ 3. "
            "Faites de la place, puis relancez."
        )
    missing = [name for name in ("venv", "ensurepip") if not has_module(name)]
    if missing:
        raise Trouble(
            f"Il manque à ce Python ({sys.executable}) le module {' et '.join(missing)}.\n"
            "Sous Debian ou Ubuntu\u00a0: sudo apt install python3-venv. Ailleurs, réinstallez Python, puis relancez."
        )


def has_module(name: str) -> bool:
    """Vrai si ce Python sait importer le module `name`."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def pip_install(root: Path, python: Path, groups: tuple[str, ...]) -> None:
    """Installe avec pip les paquets des groupes demandés, en disant où il en est ; lève `Trouble` en cas d'échec."""
    pins = sum("==" in line for line in (root / "constraints.txt").read_text(encoding="utf-8").split("\n"))
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["-c", root / "constraints.txt", *requirements(root, groups)]
    env = variables(python) | {"PYTHONUNBUFFERED": "1", "PIP_USER": "0"}
    progress = Progress(pins, packages_of(root / FOLDER))
    log = root / FOLDER / LOG
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=root)
        try:
            while process.poll() is None:
                time.sleep(0.3)
                progress.update(read_log(root / FOLDER))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    progress.close()
    if process.returncode:
        extract, advice = explain(read_log(root / FOLDER))
        raise Trouble(
            f"L'installation des paquets s'est arrêtée. Ce que dit pip\u00a0:\n{extract}\n{advice}\n"
            f"(Le compte rendu entier est dans {log}.)"
        )


def explain(log: str) -> tuple[str, str]:
    """Du compte rendu d'un échec de pip : les lignes qui le disent, et quoi faire."""
    for pattern, advice in CAUSES:
        telling = [line for line in log.splitlines() if re.search(pattern, line)]
        if telling:
            return last_lines("\n".join(telling), 2), advice
    return last_lines(log), UNKNOWN_CAUSE


class Progress:
    """Où en est pip : une ligne réécrite dans un terminal, une ligne toutes les dix secondes ailleurs."""

    def __init__(self, pins: int, packages: Path) -> None:
        self.pins = pins
        self.packages = packages
        self.live = sys.stdout.isatty()
        self.step = 0
        self.text = ""
        self.last = 0.0

    def update(self, log: str) -> None:
        """Affiche l'avancement lu dans le compte rendu de pip."""
        installing = re.search(r"^Installing collected packages: (.*)$", log, re.MULTILINE)
        if installing:
            total = installing.group(1).count(",") + 1
            before = len(re.findall(r"^Requirement already satisfied", log, re.MULTILINE))
            here = sum(name.endswith(".dist-info") for name in os.listdir(self.packages))
            self.show(4, f"Installation\u00a0: {min(max(here - before, 0), total)} sur {total} paquets")
        else:
            names = re.findall(r"^Collecting ([\w.-]+)", log, re.MULTILINE)
            name = f" ({names[-1]})" if names else ""
            self.show(3, f"Téléchargement\u00a0: {len(names)} sur {self.pins} paquets au plus{name}")

    def show(self, step: int, text: str) -> None:
        """Écrit une ligne d'avancement, si elle est attendue."""
        if self.live:
            end = "\n" if step != self.step and self.step else ""
            sys.stdout.write(f"{end}\r\x1b[K{step}/{STEPS} {text}")
            sys.stdout.flush()
        elif step != self.step or (text != self.text and time.monotonic() - self.last > 10):
            say(step, text)
            self.text, self.last = text, time.monotonic()
        self.step = step

    def close(self) -> None:
        """Termine la ligne en cours."""
        if self.live and self.step:
            print()


def say(step: int, text: str) -> None:
    """« 3/5 … »"""
    print(f"{step}/{STEPS} {text}")


def read_log(folder: Path) -> str:
    """Le compte rendu de pip."""
    return (folder / LOG).read_text(encoding="utf-8", errors="replace")


def last_lines(text: str, count: int = LAST_LINES) -> str:
    """Les dernières lignes non vides d'un texte, en retrait."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line.strip()}" for line in lines[-count:])
