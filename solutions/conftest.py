"""nbval sur un carnet résolu : l'étiquette `raises-exception` d'un check y est ignorée, un check doit y passer."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Une erreur, dans un corrigé, est toujours un échec."""
    for item in items:
        getattr(item, "options", {}).pop("check_exception", None)
