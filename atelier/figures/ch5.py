"""Figures, mesures et explorations du chapitre 5. Le détail est dans les modules `ch5_*`."""

from atelier.figures.ch5_importance import (
    global_shares,
    layer_errors,
    sensitivity,
    sentences,
    sweep_global,
    sweep_magnitude,
    sweep_wanda,
    threshold,
    weight_and_input,
    what_is_pruned,
    zeros_of,
)
from atelier.figures.ch5_masks import linear_weights
from atelier.figures.ch5_orders import (
    orders,
    row_both,
    row_recovered,
    row_two_four,
    row_wanda,
    rows_structure,
    same_bits,
)
from atelier.figures.ch5_papers import beside_the_papers, nm_kernels, nm_picture, nm_price, paper_table
from atelier.figures.ch5_recovery import forgotten, recover, recovery_rates, recovery_table, schedule_plot
from atelier.figures.ch5_storage import TIMED, formats, products
from atelier.figures.ch5_structure import (
    head_curve,
    head_scores,
    least_useful,
    save_and_reload,
    silenced_or_removed,
    three_ways,
)
from atelier.figures.compressions import three_compressions
from atelier.figures.layers import calibration_ids, layer_inputs

__all__ = [
    "TIMED",
    "beside_the_papers",
    "calibration_ids",
    "formats",
    "forgotten",
    "global_shares",
    "head_curve",
    "head_scores",
    "layer_errors",
    "layer_inputs",
    "least_useful",
    "linear_weights",
    "nm_kernels",
    "nm_picture",
    "nm_price",
    "orders",
    "paper_table",
    "products",
    "recover",
    "recovery_rates",
    "recovery_table",
    "row_both",
    "row_recovered",
    "row_two_four",
    "row_wanda",
    "rows_structure",
    "same_bits",
    "save_and_reload",
    "schedule_plot",
    "sensitivity",
    "sentences",
    "silenced_or_removed",
    "sweep_global",
    "sweep_magnitude",
    "sweep_wanda",
    "three_compressions",
    "three_ways",
    "threshold",
    "weight_and_input",
    "what_is_pruned",
    "zeros_of",
]
