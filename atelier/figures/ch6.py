"""Figures, mesures et explorations du chapitre 6. Le détail est dans les modules `ch6_*`."""

from atelier.figures.ch6_heads import (
    head_alone,
    head_or_whole,
    mean_against_words,
    rate_sensitivity,
    same_as_autograd,
    subjects_sample,
    transfer,
)
from atelier.figures.ch6_memory import activation_bytes, board_row, formula_against_bytes, memory_bars, storage
from atelier.figures.ch6_voices import (
    depths,
    forgetting_curves,
    new_voice,
    perplexity_grid,
    rates_and_forgetting,
    rehearsal,
    side_by_side,
    step_times,
    three_texts,
)
from atelier.figures.ch6_words import littre_categories, tagged_sentence, tagging, translation, translation_sample

__all__ = [
    "activation_bytes",
    "board_row",
    "depths",
    "forgetting_curves",
    "formula_against_bytes",
    "head_alone",
    "head_or_whole",
    "littre_categories",
    "mean_against_words",
    "memory_bars",
    "new_voice",
    "perplexity_grid",
    "rate_sensitivity",
    "rates_and_forgetting",
    "rehearsal",
    "same_as_autograd",
    "side_by_side",
    "step_times",
    "storage",
    "subjects_sample",
    "tagged_sentence",
    "tagging",
    "three_texts",
    "transfer",
    "translation",
    "translation_sample",
]
