"""JupyterLab, en français, sur le carnet d'accueil."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

from atelier.launch import environment, place
from atelier.launch.place import Trouble

FIRST_PORT = 8888
PORTS_TRIED = 100
WELCOME = "notebooks/ch0_accueil.ipynb"


def is_free(port: int) -> bool:
    """Vrai si rien n'écoute sur ce port de cette machine."""
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """Le port demandé (8888 sans demande), ou le premier libre après lui, en le disant."""
    first = FIRST_PORT if wanted is None else wanted
    if not 1024 <= first <= 65535:
        raise Trouble(f"Le port {first} ne convient pas\u00a0: choisissez un nombre de 1024 à 65535.")
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        if is_free(port):
            if port != first:
                print(f"Le port {first} est déjà pris (un autre JupyterLab\u202f?)\u00a0: j'ouvre sur le port {port}.")
            return port
    raise Trouble(f"Aucun port libre entre {first} et {port}. Donnez-en un\u00a0: python cours.py --port 9000")


def config(python: Path) -> Path:
    """Les réglages de Jupyter qui viennent avec l'atelier que ce Python importe."""
    code = "import atelier.launch; print(atelier.launch.__path__[0])"
    line: list[str | Path] = [python, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, env=environment.variables(python), check=True)
    return Path(done.stdout.strip(), "jupyter")


def variables(python: Path, root: Path, token: str) -> dict[str, str]:
    """L'environnement de JupyterLab : réglages du cours, espaces de travail à part de ceux du lecteur."""
    env, ours = environment.variables(python), config(python)
    env["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(ours), env.get("JUPYTER_CONFIG_PATH")]))
    env["JUPYTERLAB_WORKSPACES_DIR"] = str(root / "notebooks" / ".atelier" / "lab")
    env["JUPYTER_TOKEN"] = token
    env["PYTHONSTARTUP"] = str(ours / "noyau.py")
    if not place.writable(Path(os.path.expanduser("~"))):
        own = root / "notebooks" / ".atelier" / "jupyter"
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
            env.setdefault(name, str(own / name.lower()))
        print(f"Votre dossier personnel ne peut pas être écrit\u00a0: Jupyter gardera ses réglages dans {own}.")
    return env


def command(python: Path, root: Path, port: int, *, browser: bool) -> list[str]:
    """La ligne qui lance JupyterLab."""
    line = [str(python), "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    line += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", "--ServerApp.answer_yes=True"]
    line += [f"--LabApp.default_url=/lab/tree/{WELCOME}", "--LabApp.extension_manager=readonly"]
    if not browser:
        line.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-root")
    return line


def interrupt(*_: object) -> NoReturn:
    """Une demande d'arrêt du système vaut un Ctrl+C : JupyterLab est arrêté avec nous."""
    raise KeyboardInterrupt


def open_course(python: Path, root: Path, wanted_port: int | None) -> int:
    """Ouvre le cours et attend qu'on l'arrête ; rend le code de sortie de JupyterLab."""
    if not (root / WELCOME).is_file():
        raise Trouble(
            f"Le carnet d'accueil {root / WELCOME} est introuvable\u00a0: reprenez le dossier du cours en entier."
        )
    port = choose_port(wanted_port)
    token = secrets.token_hex(16)
    print(
        "Le cours s'ouvre dans votre navigateur. S'il ne s'ouvre pas, copiez-y cette adresse\u00a0:\n"
        f"    http://127.0.0.1:{port}/lab/tree/{WELCOME}?token={token}\n"
        "Pour arrêter\u00a0: Ctrl+C dans cette fenêtre. Votre travail est enregistré dans notebooks/."
    )
    line = command(python, root, port, browser=True)
    env = variables(python, root, token)
    # Le journal de Jupyter, en anglais, ne sert que s'il s'arrête de lui-même.
    with tempfile.TemporaryFile() as log:
        signal.signal(signal.SIGTERM, interrupt)
        process = subprocess.Popen(line, env=env, cwd=root / "notebooks", stdout=log, stderr=log)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            print("\nÀ bientôt.")
            return 0
        if code:
            log.seek(0)
            text = environment.last_lines(log.read().decode(errors="replace"))
            raise Trouble(f"JupyterLab s'est arrêté. Ce qu'il dit\u00a0:\n{text}\n{environment.UNKNOWN_CAUSE}")
    return 0
