"""Le carnet d'exposé : au plan type, jamais écrasé, exporté en diapositives et en PDF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from atelier import talk


def test_the_template_is_a_valid_notebook_that_follows_the_plan(tmp_path: Path) -> None:
    path = talk.start("Le décodage spéculatif", tmp_path)
    assert path.name == "expose_le_decodage_speculatif.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    titles = [c.source.split("\n")[0] for c in notebook.cells if c.source.startswith("## ")]
    assert titles == [f"## {title}" for title, *_ in talk.PLAN]
    tasks = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("task")]
    assert {c.metadata.nbgrader["grade_id"]: c.source.count(" | ") for c in tasks} == dict.fromkeys(talk.CRITERIA, 6)
    with pytest.raises(FileExistsError):
        talk.start("Le décodage spéculatif", tmp_path)


def test_the_command_exports_slides_and_a_pdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exige: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    exige("chromium")
    monkeypatch.chdir(tmp_path)
    assert talk.main(["nouveau", "RoPE"]) == 0 and talk.main(["exporter", "expose_rope.ipynb"]) == 0
    assert Path("expose_rope.pdf").read_bytes().startswith(b"%PDF")
    slides = Path("expose_rope.slides.html").read_text(encoding="utf-8")
    assert "Le concept clé" in slides and 'lang="fr"' in slides
    assert not [c.title for c in talk.CRITERIA.values() if f"{c.title}, sur" in slides]
    assert capsys.readouterr().out.split()[-1].endswith("expose_rope.pdf")


def test_without_a_browser_the_slides_are_there_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(talk, "browser", lambda: None)
    assert talk.main(["nouveau", "RoPE"]) == 0 and talk.main(["exporter", "expose_rope.ipynb"]) == 0
    assert "Pas de PDF" in capsys.readouterr().out
    assert talk.main(["exporter", "absent.ipynb"]) == 1


def test_the_page_of_the_teacher_has_the_same_rubric() -> None:
    page = (ROOT / "docs" / "exposes.md").read_text(encoding="utf-8")
    assert not [level for c in talk.CRITERIA.values() for level in (c.title, *c.levels) if level not in page]
