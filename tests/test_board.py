"""Les durées du tableau, refaites d'un coup : mêmes formes, même durée ; ce qui ne se refait pas reste, et est dit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import atelier
from atelier import variants
from grader.authoring import board

WHOLE = [[576, 768]] * 5
THIN = [[576, 512], [384, 768], [576, 768]]


def test_rows_of_one_shape_share_one_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def row(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "chapter": "ch5_elagage", "perplexity": 9.0, "bytes": 1, "ms": 1.0, "rank": 1} | more

    rows = [row("ancienne"), row("fp16", shape=WHOLE), row("mince", shape=THIN), row("à elle", shape=None)]
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(variants, "authors_rows", lambda: rows)
    monkeypatch.setattr(variants, "write_authors_rows", written.extend)
    monkeypatch.setattr(board, "ROUNDS", 3)
    assert board.main() == 0
    old, half, thin, own = written
    assert old["ms"] == half["ms"] != 1.0 and old["quartiles"] == half["quartiles"] and thin["ms"] != half["ms"]
    assert own["ms"] == 1.0 and "à elle : durée laissée telle quelle" in capsys.readouterr().out


def test_a_model_is_made_again_from_its_shape() -> None:
    made: Any = board._of_shape(THIN)
    assert variants.shape_of(made) == THIN and variants.shape_of(atelier.load_model("colibri")) == WHOLE
    with torch.no_grad():
        assert made(torch.arange(9)[None]).logits.shape[:2] == (1, 9)


def test_a_module_of_ones_own_has_no_shape() -> None:
    class Own(torch.nn.Linear):
        pass

    model: Any = atelier.load_model("colibri")
    model.extra = Own(2, 2)
    assert variants.shape_of(model) is None
