"""Figures, mesures et explorations du chapitre 2. Le détail est dans les modules `ch2_*`."""

from atelier.figures.ch2_budget import budget_map, lifetime_cost, optimal_table
from atelier.figures.ch2_counts import (
    backward_cases,
    backward_ops,
    context_cost,
    conventions,
    forward_check,
    product_counts,
    where_flops,
)
from atelier.figures.ch2_curves import isoflop_curves, one_more_point, power_law
from atelier.figures.ch2_time import bill_explorer, colibri_log, gpt3_bill, measure_peak, training_step

__all__ = [
    "backward_cases",
    "backward_ops",
    "bill_explorer",
    "budget_map",
    "colibri_log",
    "context_cost",
    "conventions",
    "forward_check",
    "gpt3_bill",
    "isoflop_curves",
    "lifetime_cost",
    "measure_peak",
    "one_more_point",
    "optimal_table",
    "power_law",
    "product_counts",
    "training_step",
    "where_flops",
]
