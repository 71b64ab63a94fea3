"""Réglages du cours : les carnets exportés en HTML (atelier/export.py)."""

import contextlib

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - donné par Jupyter

with contextlib.suppress(ImportError):  # sans nbconvert, rien à régler, et rien n'est arrêté
    from atelier.export import configure

    configure(c)
