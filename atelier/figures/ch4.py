"""Figures, apprentissages et explorations du chapitre 4. Le détail est dans les modules `ch4_*`."""

from atelier.figures.ch4_ensembles import beside_the_papers, ensembles, live_ensemble, who_teaches
from atelier.figures.ch4_ideas import (
    dark_knowledge,
    fit_by_hand,
    gradients,
    kl_facts,
    temperature,
    two_directions,
    what_labels_say,
)
from atelier.figures.ch4_lessons import (
    calibrations,
    depths_before,
    equal_cost,
    grid,
    layers_compared,
    pairs_before,
    random_start,
    three_lessons,
)
from atelier.figures.ch4_lowbit import repair, row_repaired, row_student, straight_through
from atelier.figures.compressions import three_compressions

__all__ = [
    "beside_the_papers",
    "calibrations",
    "dark_knowledge",
    "depths_before",
    "ensembles",
    "equal_cost",
    "fit_by_hand",
    "gradients",
    "grid",
    "kl_facts",
    "layers_compared",
    "live_ensemble",
    "pairs_before",
    "random_start",
    "repair",
    "row_repaired",
    "row_student",
    "straight_through",
    "temperature",
    "three_compressions",
    "three_lessons",
    "two_directions",
    "what_labels_say",
    "who_teaches",
]
