"""Figures, mesures et explorations du chapitre 7. Le détail est dans les modules `ch7_*`."""

from atelier.figures.ch7_adapter import count_table, drawing, three_starts
from atelier.figures.ch7_cost import (
    counted,
    memory,
    overheads,
    serving_time,
    step_time,
    three_products,
    verdict,
)
from atelier.figures.ch7_curves import (
    paper_table,
    quantized_measured,
    rates_measured,
    repair,
    voices_measured,
    widths_measured,
)
from atelier.figures.ch7_voices import learn_voices, same_start, swap_voices, weigh_voices, who_works

__all__ = [
    "count_table",
    "counted",
    "drawing",
    "learn_voices",
    "memory",
    "overheads",
    "paper_table",
    "quantized_measured",
    "rates_measured",
    "repair",
    "same_start",
    "serving_time",
    "step_time",
    "swap_voices",
    "three_products",
    "three_starts",
    "verdict",
    "voices_measured",
    "weigh_voices",
    "who_works",
    "widths_measured",
]
