"""L'environnement du cours : un dossier .venv tenu exactement à constraints.txt.

Un témoin (.venv/cours.json) est écrit une fois que tout est installé et vérifié. S'il manque, l'installation a été
interrompue et on repart d'un environnement neuf ; s'il dit autre chose que les fichiers du cours, on met à jour ; s'il
dit un autre dossier, on répare sur place. Une installation finie n'est remplacée que par une autre, finie elle aussi.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from atelier.launch import moving, place
from atelier.launch.place import COLAB, FOLDER, Trouble, check_place

STAMP = "cours.json"
LOG = "installation.log"
STEPS = 5
LAST_LINES = 8

VERIFY = "import torch, transformers, jupyterlab, atelier"

# Ce que pip écrit → ce que cela veut dire pour qui lit. Le premier motif trouvé l'emporte.
CAUSES = (
    (r"No space left|Errno 28", "Le disque est plein. Faites de la place (3 Go environ), puis relancez."),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "Le réseau répond avec un certificat que pip ne connaît pas\u00a0: souvent celui de l'établissement. "
        "Demandez-lui son fichier de certificats, et relancez avec la variable PIP_CERT, qui dit où il est.",
    ),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|Max retries|ConnectionError|"
        r"Connection (?:refused|reset|aborted)|Name or service not known|name resolution|getaddrinfo|ProxyError|"
        r"SSLError|Network is unreachable",
        "Le réseau ne répond pas. Vérifiez la connexion (et, dans un établissement, le mandataire\u00a0: variable "
        "HTTPS_PROXY), puis relancez\u00a0: ce qui est déjà téléchargé ne le sera pas une seconde fois.",
    ),
    (
        r"No matching distribution|Could not find a version|user requested \(constraint\)",
        f"Ce paquet n'existe pas, dans la version demandée, pour ce système ({sysconfig.get_platform()}, Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}), ou votre miroir de paquets, si vous en avez un, n'est pas à "
        f"jour. Si ce n'est pas le miroir\u00a0: {COLAB}",
    ),
    (
        r"Failed (?:to build|building wheel)|metadata-generation-failed|Microsoft Visual C\+\+",
        f"Ce paquet n'existe pas tout fait pour ce système ({sysconfig.get_platform()}) et ne s'y bâtit pas. {COLAB}",
    ),
    (
        r"Long Path",
        "Le nom du dossier est trop long pour Windows. Mettez le cours dans un dossier plus court (par exemple "
        "C:\\cours), puis relancez depuis là.",
    ),
    (
        r"Permission denied|Errno 13",
        "Un fichier ne peut pas être écrit. Vérifiez les droits du dossier, puis relancez.",
    ),
)
UNKNOWN_CAUSE = "Relancez une fois. Si cela recommence, envoyez ces lignes à la personne qui enseigne."


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
    """Le dossier des paquets d'un environnement virtuel, quel que soit son Python."""
    if os.name == "nt":
        return folder / "Lib/site-packages"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return next(folder.glob("lib/python3*/site-packages"), folder / "lib" / version / "site-packages")


def extras(root: Path, *, testing: bool) -> tuple[str, ...]:
    """Les groupes de paquets qu'il faut ici : ceux de l'étudiant, plus ceux du dépôt complet, plus ceux des tests."""
    groups = ["lab"]
    if (root / "grader").is_dir():
        groups.append("enseignant")
    if testing:
        groups += ["grappe", "test"]
    return tuple(groups)


def requirements(root: Path, groups: tuple[str, ...]) -> list[str]:
    """Les paquets que demande le cours, groupes compris : sa roue et les siens, ou ceux de pyproject.toml."""
    if wheel := place.wheel(root):
        return [f"./{wheel.name}[{','.join(groups)}]"]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for group in groups for line in optional[group])]


def fingerprint(root: Path) -> str:
    """Empreinte de ce qui décide de l'installation : les paquets demandés, leurs versions exactes, et la roue."""
    if wheel := place.wheel(root):
        asked = place.wheel_content(wheel)
    else:
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
            "Sinon, relancez sans --here."
        )
    return python


def prepare(root: Path, groups: tuple[str, ...], *, previous_will_do: bool = False) -> Path:
    """Rend l'interpréteur d'un environnement à jour, après l'avoir installé s'il le faut.

    previous_will_do : si une mise à jour est impossible (pas de réseau), accepter l'installation précédente intacte.
    """
    if up_to_date(root, groups, read_stamp(root / FOLDER)):
        return python_of(root / FOLDER)
    with place.alone(root) as lock:
        return Setup(root, groups, lock).prepare(previous_will_do)


def up_to_date(root: Path, groups: tuple[str, ...], found: Stamp | None) -> bool:
    """Vrai si l'environnement que ce témoin décrit est bien là et a tout ce qu'il faut."""
    return (
        found is not None
        and python_of(root / FOLDER).exists()
        and (found.root, found.fingerprint) == (str(root), fingerprint(root))
        and set(groups) <= set(found.extras)
    )


class Setup:
    """Une installation en cours, seule dans son dossier. lock : ce qui tient le verrou, confié à pip."""

    def __init__(self, root: Path, groups: tuple[str, ...], lock: int | None = None) -> None:
        self.root = root
        self.groups = groups
        self.lock = lock
        self.folder = root / FOLDER
        self.fresh, self.old = root / f"{FOLDER}.neuf", root / f"{FOLDER}.ancien"
        self.python = python_of(self.folder)
        self.wanted = Stamp(fingerprint(root), groups, ".".join(map(str, sys.version_info[:2])), str(root))

    def prepare(self, previous_will_do: bool) -> Path:
        """Ce que fait `prepare`, le verrou pris."""
        if self.old.exists() and not self.folder.exists():  # un échange interrompu
            self.old.rename(self.folder)
        found = stamped = read_stamp(self.folder)
        if found and (found.root != str(self.root) or not self.python.exists()):
            found = self.repair(found)
        if up_to_date(self.root, self.groups, found):
            return self.python
        if found:
            print("Le cours, ou la liste de ses paquets, a changé\u00a0: mise à jour de l'installation.")
            return self.update(found, previous_will_do)
        if stamped:
            print("Le cours a changé de dossier ou de Python\u00a0: je refais son installation.")
            return self.replace()
        if self.folder.exists():
            print("Une installation précédente n'est pas allée au bout\u00a0: je la recommence proprement.")
        self.install(self.folder)
        return self.python

    def repair(self, found: Stamp) -> Stamp | None:
        """Un environnement déplacé avec le cours, réparé sur place ; None s'il ne marche pas pour autant."""
        print("Le dossier du cours a changé de place\u00a0: je répare son installation.")
        if not moving.repair(self.folder, Path(found.root) / FOLDER) or self.failure(self.folder):
            return None
        kept = Stamp(found.fingerprint, found.extras, found.python, str(self.root))
        write_stamp(self.folder, kept)
        return kept

    def install(self, folder: Path) -> None:
        """Crée un environnement et y installe tout ; le témoin n'est écrit qu'à la fin."""
        say(1, f"Python {sys.version.split()[0]}, dossier {self.root}")
        if why := place.unsupported(place.this_machine()):
            raise Trouble(why)
        check_place(self.root)
        if Path(sys.prefix).resolve() == folder.resolve():
            raise Trouble(
                f"L'environnement {FOLDER} est en cours d'usage. Tapez «\u00a0deactivate\u00a0», puis relancez."
            )
        say(2, f"Création de l'environnement {FOLDER}")
        with self.room() as room:
            command: list[str | Path] = [sys.executable, "-m", "venv", "--clear", folder]
            env = variables(python_of(folder)) | room
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env)
            if done.returncode:
                raise Trouble(
                    f"L'environnement {folder} n'a pas pu être créé\u00a0:\n{last_lines(done.stdout + done.stderr)}\n"
                    "Vérifiez que ce dossier peut être écrit et qu'aucun programme ne l'utilise, puis relancez."
                )
            self.pip_install(folder, requirements(self.root, self.wanted.extras), room)
        self.finish(folder, self.wanted)

    def replace(self) -> Path:
        """Installe à côté d'une installation qui ne sert plus, puis les échange."""
        try:
            self.install(self.fresh)
            self.folder.rename(self.old)
            self.fresh.rename(self.folder)
            moving.repair(self.folder, self.fresh)
        finally:
            shutil.rmtree(self.fresh, ignore_errors=True)
        shutil.rmtree(self.old, ignore_errors=True)
        return self.python

    def update(self, previous: Stamp, previous_will_do: bool) -> Path:
        """Met à jour un environnement en place ; si pip n'y a encore rien changé, l'ancien témoin est rétabli."""
        extras = tuple(sorted({*self.groups, *previous.extras}))
        try:
            (self.folder / STAMP).unlink()
        except OSError as error:
            raise Trouble(f"L'installation du cours ne peut pas être mise à jour ({error}).") from error
        try:
            with self.room() as room:
                self.pip_install(self.folder, requirements(self.root, extras), room)
                if wheel := place.wheel(self.root):  # d'une publication à l'autre, elle garde son numéro
                    self.pip_install(self.folder, ["--no-deps", "--force-reinstall", f"./{wheel.name}"], room)
        except Trouble as trouble:
            if "Installing collected packages" not in read_log(self.folder):
                write_stamp(self.folder, previous)
                if previous_will_do and "lab" in previous.extras:
                    print(f"{trouble}\n\nL'installation précédente est intacte\u00a0: j'ouvre le cours avec elle.")
                    return self.python
            raise
        self.finish(self.folder, Stamp(self.wanted.fingerprint, extras, previous.python, str(self.root)))
        return self.python

    @contextlib.contextmanager
    def room(self) -> Iterator[dict[str, str]]:
        """De la place pour ce que pip déplie, le temps du bloc : les variables à lui donner."""
        folder = self.root / f"{FOLDER}.tmp"
        try:
            yield place.temporary(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def failure(self, folder: Path) -> str:
        """Ce que dit l'environnement s'il ne marche pas ; "" s'il marche."""
        python = python_of(folder)
        command: list[str | Path] = [python, "-c", VERIFY]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=variables(python))
        return last_lines(done.stderr) or "…" if done.returncode else ""

    def finish(self, folder: Path, stamp: Stamp) -> None:
        """Rend le cours importable, vérifie l'ensemble, puis écrit le témoin."""
        say(STEPS, "Vérification")
        link = packages_of(folder) / "cours.pth"
        if place.wheel(self.root):
            link.unlink(missing_ok=True)
        else:  # chemin relatif : ni les accents d'un nom de dossier, ni le codage du système ne comptent
            link.write_text(os.path.relpath(self.root, link.parent) + "\n", encoding="ascii")
        if said := self.failure(folder):
            raise Trouble(f"Tout est installé, mais un paquet ne se charge pas\u00a0:\n{said}\n{UNKNOWN_CAUSE}")
        write_stamp(folder, stamp)

    def pip_install(self, folder: Path, wanted: list[str], room: dict[str, str]) -> None:
        """Installe avec pip ce qui est demandé, en disant où il en est ; lève `Trouble` s'il échoue."""
        root, python = self.root, python_of(folder)
        pins = sum("==" in line for line in (root / "constraints.txt").read_text(encoding="utf-8").split("\n"))
        command: list[str | Path] = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        command += ["--progress-bar", "off"]
        command += ["-c", root / "constraints.txt", *wanted]
        env = variables(python) | {"PYTHONUNBUFFERED": "1", "PIP_USER": "0"} | room
        progress = Progress(pins, packages_of(folder))
        log = folder / LOG
        held = (self.lock,) if self.lock is not None else ()
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=root, pass_fds=held
            )
            try:
                while process.poll() is None:
                    time.sleep(0.3)
                    progress.update(read_log(folder))
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        progress.close()
        if process.returncode:
            extract, advice = explain(read_log(folder))
            raise Trouble(
                f"L'installation des paquets s'est arrêtée. Ce que dit pip\u00a0:\n{extract}\n{advice}\n"
                f"(Le compte rendu entier est dans {log}.)"
            )


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Écrit le témoin d'un seul coup."""
    temporary = folder / (STAMP + ".nouveau")
    temporary.write_text(json.dumps(asdict(stamp), ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, folder / STAMP)


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
