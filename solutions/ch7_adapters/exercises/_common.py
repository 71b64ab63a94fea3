"""Ce que partagent les exercices du chapitre 7."""

from __future__ import annotations


def refuse(sizes, counts):
    if any(s < 1 for s in sizes) or any(c < 0 for c in counts):
        raise ValueError("tailles")
