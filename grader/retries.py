"""Tout ce que la correction redemande : quoi, combien de fois, avec quelle attente. Rien ne se redemande ailleurs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat


@dataclass(frozen=True)
class Retry:
    """`for essai in LAUNCH: …` donne 0, 1, 2… et attend entre deux ; qui a réussi sort de la boucle.

    pauses : secondes d'attente, une de moins que d'essais. seconds : au lieu d'un nombre d'essais, un temps, pendant
    lequel la dernière pause se répète ; un essai qui l'épuise est le dernier.
    """

    pauses: tuple[float, ...]
    seconds: float = 0.0

    @property
    def tries(self) -> int:
        """Nombre d'essais, quand ce n'est pas un temps qui les borne."""
        return len(self.pauses) + 1

    def __iter__(self) -> Iterator[int]:
        end = time.monotonic() + self.seconds
        yield 0
        for attempt, pause in enumerate(chain(self.pauses, repeat(self.pauses[-1])), 1):
            if time.monotonic() >= end if self.seconds else attempt == self.tries:
                return
            time.sleep(pause)
            yield attempt


LAUNCH = Retry((0.0, 0.5, 2.0))
"""Faire naître une copie, quand le processus tiède est mort ou que la machine manque un instant de tout."""
COPY = Retry((0.0,) * 8)
"""Exécuter une copie, ce qui a tout arrêté mis de côté."""
COPY_LIGHT, COPY_BARE = 4, 6
"""À partir de ces essais, ses cellules ajoutées n'exécutent plus que leurs définitions, puis plus rien."""
COPY_SKIPPED = 3
"""Instructions d'une même cellule qui peuvent tout arrêter avant que la cellule entière ne soit mise de côté."""
DEATH = Retry((0.0,))
"""Juger une copie dont un processus est mort : une mort n'est retenue que si elle se reproduit."""
APART = Retry((0.0, 0.0))
"""Lire ou juger une copie à part, quand ce processus meurt. Une limite dépassée deux fois suffit."""
CLUSTER = Retry((0.0,))
"""Noter une copie sur une grappe dont le travailleur est mort."""
DATABASE = Retry((0.1, 0.2, 0.4, 0.8, 1.6, 2.0), seconds=60.0)
"""Écrire dans la base, verrouillée ou partie."""
CONFLICTS = 5
"""Écrire dans la base ce qu'un autre y écrit en même temps : au-delà, ce n'est pas un hasard."""
CGROUP = Retry((0.01,), seconds=2.0)
"""Effacer un cgroup, que ses processus morts mettent quelques millisecondes à quitter."""
