"""Ce que partagent les essais des sondes."""

from __future__ import annotations

import linecache

from torch import nn

from atelier.judging.codec import dumps, loads
from atelier.judging.compare import compare
from atelier.judging.exercise import Tolerance
from atelier.judging.probes import run_case

CLOSE = Tolerance(rtol=1e-4, atol=1e-5)


def agree(probe, right, student, inputs):
    """Le jugement de `student` face à `right`, en passant par le codec comme à la correction."""
    expected, got = (loads(dumps(run_case(probe, f, inputs))) for f in (right, student))
    return compare(expected, got, inputs, CLOSE)


def from_cell(source, name="f"):
    """Une fonction définie dans une cellule de carnet : son texte n'est que dans linecache."""
    filename = f"<cellule {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    space = {}
    exec(compile(source, filename, "exec"), space)
    return space[name]


class Adapter(nn.Module):
    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        return x + self.up(nn.functional.gelu(self.down(x)))
