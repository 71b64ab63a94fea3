"""Les cellules de chaque chapitre résolu, sur la carte simulée, à l'échelle d'essai : aucune ne s'arrête.

Les mêmes sur une vraie carte : test_gpu.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_gpu import plain_run

from grader.authoring.chapters import chapter_names

pytestmark = pytest.mark.lent


@pytest.mark.parametrize("chapter", chapter_names())
def test_every_cell_runs_on_the_simulated_card(chapter: str, tmp_path: Path) -> None:
    assert not plain_run(chapter, tmp_path, "--short", COURS_DEVICE="carte")["échecs"]


@pytest.mark.parametrize("chapter", ["ch3_quantification", "ch8_lora"])
def test_the_chapters_that_count_in_float64_run_without_it(chapter: str, tmp_path: Path) -> None:
    """La carte d'un Mac ne connaît pas float64."""
    assert not plain_run(chapter, tmp_path, "--short", COURS_DEVICE="apple")["échecs"]
