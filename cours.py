# -*- coding: utf-8 -*-
"""Le cours, en une commande.

    python cours.py                    installe ce qu'il faut, puis ouvre le cours dans JupyterLab, en français
    python cours.py --aide             les autres commandes

Seule la bibliothèque standard de Python est nécessaire. Ce fichier reste lisible par de très vieux Python,
pour qu'ils affichent une phrase et non une erreur de syntaxe ; la suite est dans atelier/launch/,
à côté ou dans la roue d'atelier.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)


def newer_python():
    """Nom d'un Python assez récent et complet, s'il y en a un sur le PATH ; None sinon."""
    with open(os.devnull, "w") as nowhere:
        for name in ("python3.13", "python3.12", "python3.11", "python3"):
            test = "import sys, venv, ensurepip; sys.exit(sys.version_info < {0!r})".format(OLDEST)
            try:
                if subprocess.call([name, "-c", test], stdout=nowhere, stderr=nowhere) == 0:
                    return name
            except OSError:
                pass
    return None


def too_old_message():
    """Ce qu'un Python trop ancien doit dire."""
    found = newer_python()
    advice = (
        "Essayez :  {0} cours.py".format(found)
        if found
        else "Installez Python 3.11, 3.12 ou 3.13, puis relancez cette commande avec lui."
    )
    return "Le cours demande Python 3.11 ou plus récent ; celui-ci est Python {0} ({1}).\n{2}\n".format(
        sys.version.split()[0], sys.executable, advice
    )


def wheels(folder):
    """Les roues d'atelier qui sont dans ce dossier, la plus récente d'abord."""
    found = [name for name in os.listdir(folder) if name.startswith("atelier-") and name.endswith(".whl")]
    return sorted(found, reverse=True)


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        text = too_old_message()
        output = getattr(sys.stderr, "buffer", sys.stderr)
        output.write(text.encode("utf-8") if sys.version_info[0] > 2 else text)
        sys.exit(1)

    here = os.path.dirname(os.path.abspath(__file__))
    if not os.path.isdir(os.path.join(here, "grader")):  # chez l'étudiant, l'atelier est dans sa roue
        sys.path[:0] = [os.path.join(here, name) for name in wheels(here)]
    try:
        from atelier.launch import main
    except ImportError:
        sys.exit("Le dossier {0} est incomplet : reprenez le dossier du cours en entier.".format(here))

    sys.exit(main(sys.argv[1:], here))
