"""`python -m grader COMMANDE …` : chaque commande n'est chargée que lorsqu'elle est demandée."""

from __future__ import annotations

import importlib
import sys

from grader import UserError

COMMANDS: dict[str, tuple[str, str, str]] = {
    "build": ("grader.authoring.build", "main", "construire les carnets et les paquets à partir de solutions/"),
    "exercise": ("grader.authoring.skeleton", "main", "commencer un exercice (exercise new CHAPITRE NOM)"),
    "words": ("grader.authoring.spelling", "main", "vérifier l'orthographe et la typographie de tout ce que l'on lit"),
    "mesures": ("grader.authoring.recording", "main", "refaire et enregistrer les expériences d'un chapitre"),
    "init": ("grader.commands", "init", "préparer un dossier de cours nbgrader"),
    "publish": ("grader.commands", "publish", "écrire le dossier que reçoivent les étudiants"),
    "collect": ("grader.commands", "collect", "ranger les copies (archive Moodle ou dossier) dans submitted/"),
    "grade": ("grader.commands", "grade", "corriger les copies d'un devoir"),
    "feedback": ("grader.commands", "feedback", "écrire les retours aux étudiants, et refaire ceux qui ont changé"),
    "report": ("grader.commands", "report", "bilan de la classe et notes à exporter"),
    "quiz": ("grader.commands", "quiz", "les questions des chapitres, en banque de questions de Moodle"),
    "hub": ("grader.commands", "hub", "écrire la configuration d'un JupyterHub qui donne le cours"),
    "corpus": ("colibri.corpus", "main", "reconstruire les textes de assets/corpora"),
    "colibri": ("colibri.train", "main", "entraîner Colibri"),
    "etude": ("colibri.study", "main", "refaire l'étude d'échelle du chapitre 2"),
}
"""Commande → (module, fonction qui reçoit les arguments, ce qu'elle fait)."""


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, _, summary) in COMMANDS.items()]
    return "\n".join(
        ["Usage : python -m grader COMMANDE …", "", "Commandes :", *lines, ""]
        + ["Les options d'une commande : python -m grader COMMANDE --help"]
    )


def main(argv: list[str] | None = None) -> int:
    """Exécute une commande et rend son code de sortie (2 : ce que l'utilisateur peut réparer)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "--aide"):
        print(usage())
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        print(f"Commande inconnue : {name}. Commandes possibles : {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[name]
    try:
        return getattr(importlib.import_module(module), function)(rest) or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if not error.filename and error.errno is not None:
            raise
        # Sans numéro du système, c'est une phrase à nous (course.toml absent ou illisible).
        print(f"{error.filename} : {_os_reason(error)}" if error.filename else error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrompu.", file=sys.stderr)
        return 130


def _os_reason(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "ce fichier ou ce dossier n'existe pas. Vérifiez le chemin."
        case PermissionError():
            return "accès refusé. Vérifiez les droits de ce fichier ou de ce dossier."
        case NotADirectoryError() | FileExistsError():
            return "un fichier se trouve là où il faut un dossier."
        case IsADirectoryError():
            return "un dossier se trouve là où il faut un fichier."
        case _:
            return f"{error.strerror} (erreur du système)."


if __name__ == "__main__":
    sys.exit(main())
