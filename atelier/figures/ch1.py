"""Figures, mesures et explorations du chapitre 1. Le détail est dans les modules `ch1_*`."""

from atelier.figures.ch1_attention import attention_inside, attention_map, what_heads_do
from atelier.figures.ch1_counts import count_models, deck_counts, gpt2_to_gpt3, where_parameters
from atelier.figures.ch1_text import (
    cache_sizes,
    cache_times,
    greedy_text,
    play,
    protocols,
    settings_compared,
    surprise_by_rank,
    surprise_text,
)
from atelier.figures.ch1_tokens import (
    architecture,
    block_by_block,
    bytes_per_token,
    follow,
    next_token,
    tokens_table,
)
from atelier.figures.layers import calibration_ids

__all__ = [
    "architecture",
    "attention_inside",
    "attention_map",
    "block_by_block",
    "bytes_per_token",
    "cache_sizes",
    "cache_times",
    "calibration_ids",
    "count_models",
    "deck_counts",
    "follow",
    "gpt2_to_gpt3",
    "greedy_text",
    "next_token",
    "play",
    "protocols",
    "settings_compared",
    "surprise_by_rank",
    "surprise_text",
    "tokens_table",
    "what_heads_do",
    "where_parameters",
]
