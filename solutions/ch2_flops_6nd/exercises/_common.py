"""Ce que partagent les exercices du chapitre 2."""

from __future__ import annotations

from atelier.judging.exercise import Tolerance

ROUNDING = Tolerance(rtol=1e-6, why="quelques multiplications et divisions en double précision")
