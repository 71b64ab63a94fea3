"""Sur un JupyterHub : qui ouvre quoi, et ce qui se prépare avec les droits de l'étudiant avant que son serveur s'ouvre.

`configure` règle le hub ; la configuration que `python -m grader hub` écrit l'appelle. `python -I -m atelier.launch.hub
CARNET COMMANDE…` est ce que le hub lance pour un étudiant : son dossier de travail et le carnet d'accueil, puis la
commande.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

FOLDER = "notebooks"
"""Le dossier de travail d'un étudiant, dans son dossier personnel ; c'est là que son serveur commence."""
WELCOME = "ch0_accueil.ipynb"
STUDENT, TEACHER = "etudiant", "enseignant"
"""Les dossiers de réglages de Jupyter, à côté de la configuration du hub."""
FORMGRADER = "/hub/user-redirect/formgrader/manage_assignments"
"""L'adresse de formgrader, la même pour tous : le hub y mène chacun chez soi."""


def configure(c: Any, folder: Path, *, teacher: str, course: Path, repository: Path, port: int) -> None:
    """Règle un JupyterHub qui donne ce cours aux comptes de sa machine. c : la configuration qu'il lit.

    folder : où sont les réglages de Jupyter et le carnet d'accueil. teacher : le compte de l'enseignant. course : son
    dossier de cours. repository : le dépôt, qui corrige.
    """
    prefix, state = Path(sys.prefix), Path(sys.prefix, "var", "jupyterhub")
    server = str(prefix / "bin" / "jupyterhub-singleuser")
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"
    c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
    c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
    c.JupyterHub.authenticator_class = "pam"
    c.Authenticator.allow_all = True
    c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
    # Rien d'autre de l'environnement du hub ne passe : une variable COURS_… n'arrête pas un serveur.
    common = {
        "PATH": os.pathsep.join([str(prefix / "bin"), os.environ.get("PATH", os.defpath)]),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONUTF8": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONSTARTUP": str(Path(__file__).resolve().parent / "jupyter" / "noyau.py"),
    }

    def settle(spawner: Any) -> None:
        """L'enseignant dans son cours, avec ce qui corrige ; les autres sur le carnet d'accueil."""
        if spawner.user.name == teacher:
            spawner.cmd, spawner.notebook_dir, spawner.default_url = [server], str(course.parent), "/lab"
            config = os.pathsep.join([str(folder / TEACHER), str(course)])
            own = {"JUPYTER_CONFIG_PATH": config, "PYTHONPATH": str(repository)}
        else:
            first = [str(prefix / "bin" / "python"), "-I", "-m", "atelier.launch.hub", str(folder / WELCOME)]
            spawner.cmd, spawner.notebook_dir = [*first, server], f"~/{FOLDER}"
            spawner.default_url = f"/lab/tree/{WELCOME}"
            own = {"JUPYTER_CONFIG_PATH": str(folder / STUDENT)}
        spawner.environment = common | spawner.environment | own

    c.Spawner.pre_spawn_hook = settle


def welcome(source: Path, folder: Path) -> None:
    """Crée le dossier de travail, et y copie le carnet d'accueil s'il manque ; celui qui s'y trouve reste."""
    folder.mkdir(exist_ok=True)
    target = folder / source.name
    if not target.exists():
        shutil.copyfile(source, target)


def main(argv: list[str]) -> None:
    """Prépare le dossier, s'y place (nbgrader y récupère les devoirs, où que commence le serveur), puis laisse la place
    à la commande : un accueil qui n'a pas pu être posé n'arrête rien."""
    source, *command = argv
    folder = Path.home() / FOLDER
    try:
        welcome(Path(source), folder)
        os.chdir(folder)
    except OSError as error:
        print(f"Le carnet d'accueil n'a pas pu être posé\u00a0: {error}", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
