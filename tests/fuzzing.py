"""Les réglages communs des essais tirés au hasard."""

from __future__ import annotations

from essai import SOLVED
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = 1000


def fuzz(examples: int):
    """Réglages communs : toujours les mêmes cas, pour qu'un échec se rejoue."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)


IDS = ["spread", "test_spread", "scale_up", "count_true", "inconnu", "ѕpread", "a b", "", "x" * 70]
TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [*SOLVED.values(), "def spread(x):\n    return x", "spread = 3", "%%bash\nls", "def spread(", "\0"]
    ),
    st.sampled_from(["<script>", "[x](javascript:a)", "\ud800", "$$\\href{a}{b}$$", "((((" * 50, "é" * 40, "\r\n\r\n"]),
)
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(IDS))
