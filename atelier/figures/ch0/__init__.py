"""Figures et démonstrations de l'accueil. Le détail est dans le module du dossier."""

from atelier.figures.common.facade import facade

__getattr__, __dir__ = facade(__name__)
