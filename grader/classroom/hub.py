"""Un JupyterHub pour la classe : la configuration du serveur de l'école, écrite d'après le cours qu'il donne.

L'enseignant est le compte à qui appartient le dossier de cours ; tous les autres comptes de la machine sont des
étudiants. Rien n'importe jupyterhub ici : il n'est installé que là où ces fichiers sont lus (docs/jupyterhub.md).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from atelier import launch, paths
from atelier.launch.hub import FORMGRADER, STUDENT, TEACHER, WELCOME
from grader import UserError
from grader.authoring.rules import STUB
from grader.classroom.course import VALIDATOR_TEXTS, Course

EXCHANGE = Path("/srv/nbgrader/echange")
MINE = "reglages.py"
"""Ce que l'école ajoute, à côté de ce que la commande écrit, et qu'elle ne touche jamais."""

HUB_TEXT = """\
# Écrit par « python -m grader hub » ; relancer la commande le refait. Vos réglages vont à côté, dans {mine}.
from pathlib import Path

from atelier.launch.hub import configure

c = get_config()
HERE = Path(__file__).resolve().parent
configure(
    c,
    HERE,
    teacher={teacher!r},
    course=Path({course!r}),
    repository=Path({repository!r}),
    port={port},
)
if (HERE / {mine!r}).is_file():
    load_subconfig(str(HERE / {mine!r}))
"""

NBGRADER_TEXT = """\
# Écrit par « python -m grader hub », pour tous les comptes de cette machine. Celui du cours passe devant.
c = get_config()
c.CourseDirectory.course_id = {course_id!r}
c.Exchange.root = {exchange!r}
c.ClearSolutions.code_stub = {{"python": {stub!r}}}
for name, text in {validator!r}.items():
    c.Validator[name] = text
"""

SERVICE_TEXT = """\
[Unit]
Description=JupyterHub du cours
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={prefix}/bin/jupyterhub -f {folder}/jupyterhub_config.py
WorkingDirectory={prefix}/var/jupyterhub
Environment=LANG=C.UTF-8
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

MENU = {
    "id": "jp-mainmenu-cours",
    "label": "Cours",
    "rank": 90,
    "items": [
        {"command": "help:open", "args": {"text": "Formgrader", "url": FORMGRADER, "newBrowserTab": True}},
    ],
}
"""Depuis JupyterHub 4.1, formgrader ne s'ouvre plus dans Lab, mais dans un onglet du navigateur : ce menu l'y ouvre.
Lever l'interdiction (`frame-ancestors`) laisserait une page d'étudiant encadrer le serveur de l'enseignant."""

PLUGINS = ("assignment-list", "course-list", "create-assignment", "formgrader", "menu", "validate-assignment")
SHOWN = {
    STUDENT: ("assignment-list", "menu"),
    TEACHER: ("assignment-list", "menu", "create-assignment", "validate-assignment"),
}
"""Les parties de nbgrader que chacun voit dans Lab."""


def write(course: Course, prefix: Path, exchange: Path, port: int) -> list[Path]:
    """Écrit dans `prefix/etc` la configuration du hub, et ouvre le dossier d'échange. Rend les fichiers écrits.

    prefix : l'environnement où jupyterhub est installé. Lève `UserError` si le cours n'est pas à un compte ordinaire,
    ou si ses réponses se liraient d'un autre compte.
    """
    repository, teacher = paths.root(), owner(course.folder)
    for folder in (repository, course.folder):
        check_closed(folder)
    etc, ours = prefix / "etc" / "jupyter", prefix / "etc" / "jupyterhub"
    texts = {
        ours / "jupyterhub_config.py": HUB_TEXT.format(
            mine=MINE, teacher=teacher, course=str(course.folder), repository=str(repository), port=port
        ),
        ours / "jupyterhub.service": SERVICE_TEXT.format(prefix=prefix, folder=ours),
        ours / WELCOME: (repository / "notebooks" / WELCOME).read_text(encoding="utf-8"),
        etc / "nbgrader_config.py": NBGRADER_TEXT.format(
            course_id=course.directory.course_id, exchange=str(exchange), stub=STUB, validator=VALIDATOR_TEXTS
        ),
    }
    for who in (STUDENT, TEACHER):
        for name, content in jupyter_settings(who).items():
            texts[ours / who / name] = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    os.umask(0o022)  # les étudiants lisent ce qui suit
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_atomically(path, text.encode())
        path.chmod(0o644)
    state = prefix / "var" / "jupyterhub"
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    exchange.mkdir(parents=True, exist_ok=True)
    exchange.chmod(0o1777)  # chacun y dépose, et n'y retire que ce qui est à lui
    return sorted(texts)


def jupyter_settings(who: str) -> dict[str, Any]:
    """Les réglages de Jupyter d'un étudiant ou de l'enseignant : ceux de `python cours.py`, et ce que chacun voit."""
    base = Path(launch.__file__).resolve().parent / "jupyter" / "labconfig"
    page, lab = (
        json.loads((base / name).read_text(encoding="utf-8"))
        for name in ("page_config.json", "default_setting_overrides.json")
    )
    page["disabledExtensions"] |= {f"@jupyter/nbgrader:{name}": name not in SHOWN[who] for name in PLUGINS}
    if who == TEACHER:
        lab["@jupyterlab/mainmenu-extension:plugin"] = {"menus": [MENU]}
    # Un terminal de connexion relirait /etc/profile, qui oublie où sont python et nbgrader.
    terminal = {"shell_command": ["bash"]}
    parts = {f"nbgrader.server_extensions.{name}": who == TEACHER for name in ("formgrader", "course_list")}
    return {
        "labconfig/page_config.json": page,
        "labconfig/default_setting_overrides.json": lab,
        "jupyter_server_config.json": {
            "ServerApp": {"jpserver_extensions": parts, "terminado_settings": terminal},
            "LabApp": {"extension_manager": "readonly"},
        },
    }


def owner(folder: Path) -> str:
    """Le compte à qui appartient un dossier de cours. Lève `UserError` si c'est root, ou personne."""
    try:
        name = folder.owner()
    except KeyError:
        name = ""
    if name in ("", "root"):
        raise UserError(
            f"{folder} n'est pas à un compte ordinaire\u00a0: le hub ouvre formgrader à qui ce dossier appartient. "
            f"Donnez-le à l'enseignant\u00a0: chown -R COMPTE {folder}"
        )
    return name


def check_closed(folder: Path) -> None:
    """Lève `UserError` si tout compte de la machine peut lire ce dossier."""
    way = [folder, *folder.parents]
    if folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) and all(p.stat().st_mode & stat.S_IXOTH for p in way[1:]):
        raise UserError(
            f"Tout compte de cette machine peut lire {folder}, qui contient les réponses. "
            f"Fermez-le, et relancez\u00a0: chmod o= {folder}"
        )


def check_programs(prefix: Path) -> None:
    """Lève `UserError` s'il manque un programme au hub."""
    for program, advice in (
        (str(prefix / "bin" / "jupyterhub"), f"{prefix}/bin/pip install -c constraints.txt jupyterhub"),
        ("configurable-http-proxy", "npm install --global configurable-http-proxy@4"),
    ):
        if shutil.which(program) is None:
            raise UserError(f"Le hub demande le programme {program}, absent. Installez-le\u00a0: {advice}")
