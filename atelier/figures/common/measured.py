"""Les mesures que l'auteur a enregistrées, pour une figure qui les montre."""

from __future__ import annotations

from typing import Any

from atelier.display import note
from atelier.measures import load_measures


def measured(chapter: str, *names: str) -> dict[str, Any] | None:
    """Les mesures enregistrées d'un chapitre ; None, et une phrase, s'il manque l'une de celles-ci."""
    try:
        found = load_measures(chapter)
    except FileNotFoundError:
        found = {}
    if missing := [name for name in names if name not in found]:
        note(f"Mesures pas encore enregistrées ({', '.join(missing)})\u00a0: python cours.py mesures {chapter}")
        return None
    return found
