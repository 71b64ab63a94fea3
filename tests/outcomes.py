"""Des résultats de sonde, à comparer et à reconnaître."""

from __future__ import annotations

import torch

from atelier.judging.compare import compare
from atelier.judging.exercise import Tolerance

CLOSE = Tolerance(rtol=1e-6, atol=1e-9)


def value(v):
    return {"status": "value", "value": v}


def raised(error, *parents, message=""):
    return {"status": "raised", "error": error, "mro": [error, *parents, "Exception"], "message": message, "where": ""}


def kind(expected, got, tolerance=CLOSE):
    return compare(value(expected), value(got), {}, tolerance).kind


LIES = [
    {},
    {"status": "value"},
    {"status": 3},
    {"status": "raised"},
    {"status": "raised", "error": None, "mro": None},
    {"status": "value", "value": 1.0, "modified": 3},
    {"status": "value", "value": 1.0, "modified": None},
    {"status": "value", "value": torch.ones(2, dtype=torch.float8_e4m3fn)},
    {"status": "value", "value": torch.ones(2, dtype=torch.complex64)},
    {"status": "value", "value": {1: 2}},
    {"status": "todo", "message": ["x"]},
]
