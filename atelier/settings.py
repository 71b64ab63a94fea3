"""Ce que disent les variables COURS_… : l'atelier ne les lit qu'ici. Leur table : docs/architecture.md."""

from __future__ import annotations

import os


def course_folder() -> str:
    """`COURS_RACINE` : le dossier de cours à lire, à la place de celui d'où vient l'atelier."""
    return os.environ.get("COURS_RACINE", "")


def state_folder() -> str:
    """`COURS_ETAT` : où garder le travail du lecteur."""
    return os.environ.get("COURS_ETAT", "")


def given_device() -> str:
    """`COURS_DEVICE` : l'appareil imposé."""
    return os.environ.get("COURS_DEVICE", "")


def given_scale() -> str:
    """`COURS_ECHELLE` : l'échelle imposée."""
    return os.environ.get("COURS_ECHELLE", "")


def set_scale(name: str) -> None:
    """Impose l'échelle, à ce noyau et à ce qu'il lance."""
    os.environ["COURS_ECHELLE"] = name


def recording() -> bool:
    """`COURS_ENREGISTRER=1` : c'est l'auteur qui exécute, et ce qu'il obtient est gardé."""
    return os.environ.get("COURS_ENREGISTRER") == "1"


def measuring() -> bool:
    """`COURS_MESURES=1` : l'auteur refait une mesure, avec ses arguments complets, et non tout un carnet."""
    return os.environ.get("COURS_MESURES") == "1"


def without_widgets() -> bool:
    """`COURS_SANS_WIDGETS=1` : du texte au lieu des boutons."""
    return os.environ.get("COURS_SANS_WIDGETS") == "1"
