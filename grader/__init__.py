"""Le côté de l'enseignant : construire les carnets, les publier, relever les copies, les corriger."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path[:1]:  # l'atelier d'à côté, et non celui d'une roue que ce Python aurait aussi
    sys.path.insert(0, ROOT)

# jsonschema, que charge nbformat, compile en naissant trente-huit grammaires d'adresses si ce paquet est là : trois
# secondes par processus, pour vérifier des adresses dont aucun carnet ne se sert.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


class UserError(Exception):
    """Erreur que l'utilisateur peut réparer : montrée comme une phrase, sans trace d'exécution."""


@contextmanager
def variables(**wanted: str) -> Iterator[None]:
    """Le temps du bloc, ces variables d'environnement, pour ce processus et ceux qu'il lance ; puis celles d'avant."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


PRELOADED = ("grader.classroom.nbglue", "grader.classroom.jobs")
"""Ce que chaque processus qui corrige a déjà importé en naissant."""
