"""Ce que `build` ajoute à tout carnet pour qu'il s'ouvre seul : une première cellule, et ce que Colab lit.

L'adresse n'est écrite que dans course.toml : `repository`, le dépôt public, ou `wheel`, la roue si elle est publiée.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

ID = "atelier"
"""Identifiant de la première cellule de code. Elle n'écrit rien là où l'atelier est installé."""

COLAB = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True}}
"""Métadonnées de carnet que Colab lit : une carte, et le plan du carnet ouvert."""

FIRST = """\
# Sans l'atelier du cours (Colab, Kaggle…), cette cellule l'installe ; ailleurs, elle ne fait rien.
import importlib.util

if importlib.util.find_spec("atelier") is None:
"""

INSTALL = '    get_ipython().run_line_magic("pip", "install -q {address}")\n'

MISSING = """\
    class AtelierAbsent(Exception):
        def _render_traceback_(self):
            return [str(self)]

    raise AtelierAbsent(
        "L'atelier du cours n'est pas installé ici. Demandez son adresse à qui vous a donné ce carnet,\\n"
        "puis exécutez, dans une cellule au-dessus de celle-ci : %pip install -q ADRESSE"
    )
"""


def address(course: Mapping[str, Any]) -> str:
    """Ce que `pip install` reçoit ; vide tant que le cours n'est pas publié."""
    repository = course.get("repository", "")
    return course.get("wheel", "") or (f"git+{repository}" if repository else "")


def first_cell(course: Mapping[str, Any]) -> str:
    """Le texte de la première cellule."""
    found = address(course)
    return (FIRST + (INSTALL.format(address=shlex.quote(found)) if found else MISSING)).rstrip("\n")


def badge(course: Mapping[str, Any], name: str) -> str:
    """Le lien « Ouvrir dans Colab » d'un chapitre, en Markdown ; vide si le dépôt n'est pas sur GitHub."""
    host, _, path = course.get("repository", "").partition("github.com/")
    if not host or not path:
        return ""
    link = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}.ipynb"
    return f"[![Ouvrir dans Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
