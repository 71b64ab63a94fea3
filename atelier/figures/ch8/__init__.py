"""Figures et explorations du chapitre 8. Le détail est dans les modules du dossier."""

from atelier.figures.common.facade import facade

__getattr__, __dir__ = facade(__name__, "files", "layers", "clock")
