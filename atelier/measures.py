"""Les longues mesures d'un chapitre, enregistrées par `python cours.py mesures CHAPITRE` dans assets/results."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from atelier.hardware import machine
from atelier.paths import asset, write_atomically


def load_measures(chapter: str) -> dict[str, Any]:
    """Ce que `cours.py mesures` a enregistré pour ce chapitre : « machine », « date », « recette », puis les mesures.

    Lève `FileNotFoundError`, avec la commande à taper, si rien n'a été enregistré.
    """
    path = asset("results", f"{chapter}.json")
    if not path.is_file():
        raise FileNotFoundError(f"pas de mesures enregistrées pour {chapter} : python cours.py mesures {chapter}")
    return json.loads(path.read_text(encoding="utf-8"))


def recorded_measures(chapter: str) -> dict[str, Any]:
    """Les mesures enregistrées de ce chapitre, sans machine, date ni recette ; rien s'il n'y en a pas."""
    try:
        content = load_measures(chapter)
    except FileNotFoundError:
        return {}
    return {k: v for k, v in content.items() if k not in ("machine", "date", "recette")}


def save_measures(chapter: str, recipe: dict[str, Any], **measures: Any) -> None:
    """Écrit assets/results/<chapitre>.json en une fois : machine, date, recette (graines, pas, jetons…), mesures.

    Appelé après chaque expérience, un arrêt au milieu ne perd que l'expérience en cours.
    """
    path = asset("results", f"{chapter}.json")
    content = {"machine": machine(), "date": date.today().isoformat(), "recette": recipe, **measures}
    write_atomically(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
