"""Figures, mesures et explorations du chapitre 6. Le détail est dans les modules du dossier."""

from atelier.figures.common.facade import facade

__getattr__, __dir__ = facade(__name__, "clock", "files")
