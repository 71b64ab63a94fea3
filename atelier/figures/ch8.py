"""Figures, mesures et explorations du chapitre 8. Le détail est dans les modules `ch8_*`."""

from atelier.figures.ch8_delta import changes, fine_tune, rank_and_perplexity, size_of_change, spectra, truncate
from atelier.figures.ch8_end import final_figure, final_table, row_lora
from atelier.figures.ch8_nf4 import double_quantization, four_bits, levels, qlora, qlora_cost, row_nf4
from atelier.figures.ch8_speed import (
    cache_here,
    count_flops,
    gpt3_numbers,
    paper_arithmetic,
    settle,
    step_here,
    steps_measured,
)
from atelier.figures.ch8_train import (
    alphas,
    beside_peft,
    drawing,
    merged_speed,
    ranks_table,
    start_curves,
    starts,
    targets,
    train_lora,
    voices,
)
from atelier.figures.layers import calibration_ids

__all__ = [
    "alphas",
    "beside_peft",
    "cache_here",
    "calibration_ids",
    "changes",
    "count_flops",
    "double_quantization",
    "drawing",
    "final_figure",
    "final_table",
    "fine_tune",
    "four_bits",
    "gpt3_numbers",
    "levels",
    "merged_speed",
    "paper_arithmetic",
    "qlora",
    "qlora_cost",
    "rank_and_perplexity",
    "ranks_table",
    "row_lora",
    "row_nf4",
    "settle",
    "size_of_change",
    "spectra",
    "start_curves",
    "starts",
    "step_here",
    "steps_measured",
    "targets",
    "train_lora",
    "truncate",
    "voices",
]
