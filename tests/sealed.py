"""De quoi interroger le scellé : une question, et un voisin honnête."""

from __future__ import annotations

import textwrap

import pytest
import torch
from conftest import STRICT

from grader.jail.outside import seal
from grader.jail.outside.dialogue import CodeCell, Report, Task
from grader.jail.outside.sandbox import Sandbox

if seal.missing() and not STRICT:
    pytest.skip(seal.missing(), allow_module_level=True)

INPUTS = [{"x": torch.ones(3)}]
HONEST = CodeCell("honnête", "def h(x):\n    return x * 2", "solution", "h")


def ask(sandbox: Sandbox, source: str, seconds: float = 10.0) -> dict:
    """Ce que rend la fonction `f` de cette source dans le scellé ; un voisin honnête y a toujours sa réponse."""
    cells = [CodeCell("a", textwrap.dedent(source), "solution", "f"), HONEST]
    report = sandbox.run(cells, [Task("f", "call", seconds, INPUTS), Task("h", "call", 2.0, INPUTS)])
    assert honest(report)
    outcome = report.tasks["f"].outcomes[0]
    return outcome["value"] if outcome["status"] == "value" else outcome


def honest(report: Report) -> bool:
    outcomes = report.tasks["h"].outcomes
    return report.tasks["h"].status == "done" and torch.equal(outcomes[0]["value"], torch.full((3,), 2.0))
