"""Déclarations partagées par le carnet et par la correction : exercices, groupes de cas, tolérances, quiz.

Ce module est public et ne contient aucune réponse. Les déclarations d'un chapitre vivent dans
`solutions/<chapitre>/exercises/` ; `grader build` en tire le paquet que lit `check`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Inputs = dict[str, Any]
"""Entrées d'un cas : nom → valeur (tenseurs, nombres, texte, listes, n-uplets, dictionnaires, None)."""


class Draw:
    """Source de hasard d'un cas, entièrement déterminée par sa graine et son numéro.

    seed : entier ; name : « exercice/groupe » ; index : numéro du cas dans son groupe. Un tirage peut
    lire `index` pour passer en revue une liste de bords au lieu de compter sur la chance.
    """

    def __init__(self, seed: int, name: str = "", index: int = 0) -> None:
        self.index = index
        self.seed = seed
        self._mixed = f"{seed}/{name}/{index}"

    @cached_property
    def random(self) -> random.Random:
        """Nombres de Python."""
        return random.Random(self._mixed)

    @cached_property
    def generator(self) -> torch.Generator:
        """Tenseurs."""
        import torch

        return torch.Generator().manual_seed(zlib.crc32(self._mixed.encode()) ^ (self.seed & (2**63 - 1)))

    def integer(self, low: int, high: int) -> int:
        """Entier uniforme dans [low, high], bornes comprises."""
        return self.random.randint(low, high)

    def uniform(self, low: float, high: float) -> float:
        """Flottant uniforme dans [low, high]."""
        return self.random.uniform(low, high)

    def choice(self, options: Sequence[Any]) -> Any:
        """Un élément de `options`."""
        return self.random.choice(options)

    def turn(self, options: Sequence[Any]) -> Any:
        """L'élément de `options` qui revient à ce numéro de cas : tous passent, à tour de rôle."""
        return options[self.index % len(options)]

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Tenseur gaussien centré réduit de forme `shape` (float32 si `dtype` est omis)."""
        import torch

        return torch.randn(*shape, generator=self.generator).to(dtype or torch.float32)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Tenseur d'entiers uniformes dans [low, high], bornes comprises (int64 si `dtype` est omis)."""
        import torch

        return torch.randint(low, high + 1, shape, generator=self.generator).to(dtype or torch.int64)

    def strided(self, x: torch.Tensor) -> torch.Tensor:
        """Les mêmes valeurs dans un tenseur non contigu (un pas de 2 sur la dernière dimension de stockage)."""
        import torch

        buffer = torch.zeros(*x.shape, 2, dtype=x.dtype)
        buffer[..., 0] = x
        return buffer[..., 0]


@dataclass(frozen=True)
class Tolerance:
    """Écart admis entre réponse et référence : |a − b| ≤ atol + rtol·|b|. `why` dit d'où il vient."""

    rtol: float = 0.0
    atol: float = 0.0
    why: str = "valeurs exactes"
    half_rtol: float = 0.02
    """rtol admis à la place quand la sortie attendue est en float16 ou bfloat16."""
    signed_zero: bool = False
    """Vrai si −0,0 n'est pas 0,0 : pour un nombre Python rendu, là où le signe de zéro est le sujet."""


EXACT = Tolerance()


def is_bonus(stars: int) -> bool:
    """Vrai pour un « approfondissement » (★★★) : ses points s'ajoutent, sans que la note passe le maximum."""
    return stars == 3


@dataclass(frozen=True)
class Misconception:
    """Une erreur de pensée connue : son nom, une réponse qui la commet, la phrase qu'un bon professeur dirait.

    wrong : fonction (ou classe) fausse, ou `grader.authoring.declarations.Swap` sur la référence. Jamais livré à
    l'étudiant : le paquet du chapitre ne contient que ce qu'elle répond aux cas visibles.
    portable : faux si ce qu'elle répond dépend de la machine (ordre d'une somme en float32) ; elle n'est alors
    reconnue qu'à la correction, où tout est calculé au même endroit, et le paquet n'en garde rien.
    """

    name: str
    wrong: Any
    message: str
    portable: bool = True


@dataclass(frozen=True)
class Exercise:
    """Déclaration d'un exercice noté (DESIGN §2).

    points : sur le barème du chapitre. minutes : durée prévue. stars : 1 à 3 ; 3 est un « approfondissement », dont
    les points sont un bonus : ils s'ajoutent aux autres sans jamais faire passer la note au-dessus du maximum.
    hints : de la question à la formule, 2 à 4 marches. groups : part des points de chaque groupe de cas, dans
    l'ordre, la première étant le groupe courant ; la somme vaut 1.
    draw : (Draw, groupe) → entrées d'un cas. Avec la sonde `call`, les valeurs sont passées dans l'ordre, par
    position : aucun trou, seuls les derniers arguments peuvent manquer.
    examples : cas visibles écrits à la main, petits et lisibles, montrés en premier.
    cases : nombre de cas cachés tirés par groupe ; visible : nombre de cas visibles tirés par groupe.
    probe : nom d'une sonde de `atelier.judging.probes`. seconds : limite de temps d'un cas à la correction.
    stand_ins : un exercice dont celui-ci peut se servir → sa doublure (`atelier.judging.stand_ins`). La correction juge
    aussi avec elle, et garde le meilleur des deux : la faute de l'autre exercice ne coûte qu'une fois.
    """

    points: float
    hints: Sequence[str]
    groups: Mapping[str, float]
    draw: Callable[[Draw, str], Inputs]
    misconceptions: Sequence[Misconception] = ()
    """Lues à part, dans le texte `misconceptions` du fichier de l'exercice."""
    probe: str = "call"
    tolerance: Tolerance = EXACT
    examples: Sequence[Inputs] = ()
    minutes: int = 10
    stars: int = 1
    cases: int = 4
    visible: int = 2
    seconds: float = 10.0
    hexadecimal: Sequence[str] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if abs(sum(self.groups.values()) - 1.0) > 1e-9:
            raise ValueError(f"les parts des groupes doivent faire 1, pas {sum(self.groups.values())}")
        if not 2 <= len(self.hints) <= 4:
            raise ValueError("une échelle d'indices compte 2 à 4 marches")

    @property
    def bonus(self) -> float:
        """Ses points, s'il est un approfondissement ; sinon 0."""
        return self.points if is_bonus(self.stars) else 0.0

    @property
    def required(self) -> float:
        """Ses points dans le maximum du chapitre : 0 pour un approfondissement."""
        return self.points - self.bonus

    def draw_cases(self, exercise_id: str, seed: int, count: int) -> list[tuple[str, Inputs]]:
        """`count` cas par groupe, (groupe, entrées), rejouables à partir de la graine."""
        return [
            (group, self.draw(Draw(seed, f"{exercise_id}/{group}", i), group))
            for group in self.groups
            for i in range(count)
        ]


@dataclass(frozen=True)
class Choice:
    """Une réponse proposée par un quiz, et la phrase dite à qui la choisit."""

    text: str
    why: str
    correct: bool = False


@dataclass(frozen=True)
class Quiz:
    """Une question à choix unique ; jamais notée."""

    question: str
    choices: Sequence[Choice] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if sum(c.correct for c in self.choices) != 1:
            raise ValueError("un quiz a exactement une bonne réponse")
