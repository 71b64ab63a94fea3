"""`python -m grader words` : l'orthographe, la typographie et le glossaire de tout ce qui se lit."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from grader import __main__ as command_line
from grader.authoring import spelling


@pytest.fixture(scope="module")
def everything() -> list[spelling.Passage]:
    """Tout ce que le dépôt donne à lire."""
    return list(spelling.passages(ROOT))


def test_everything_that_is_read_is_spelled_right(exige, everything) -> None:
    """Les carnets, les indices, les quiz, les messages, les aides, les pages : `python -m grader words`."""
    exige("hunspell")
    assert not [str(problem) for problem in spelling.check_words(everything, ROOT)]


WRITTEN = {
    "docs/page.md": ("Une phrase.\n\nLa *loss* et `lss` vont, pas la pertte.\n", [(3, "pertte")]),
    "README.md": (
        "Bien.\n\n## In English\n\nWe wrote thiss.\n\n## La suite\n\nMal ecrit!\n",
        [(9, "ecrit"), (9, "espace")],
    ),
    "atelier/loud.py": (
        'def f(n):\n    """Une fonctoin de n."""\n    return f"Trois {n} copies\\u00a0: "\n',
        [(2, "fonctoin")],
    ),
    "atelier/quiet.py": ('KEY = "wght bs"\nTOLD = (\n    "La copie est "\n    "refusse."\n)\n', [(4, "refusse")]),
    "grader/report/templates/x.html.j2": (
        '<p>\n{{ n | plural("copie", "cas noté") }} et\nl\'élèv</p>',
        [(3, "l'élèv")],
    ),
    "atelier/clean.py": ('"""« Distilling the Knowledge », de Hinton : nbgrader, GPTQ, `x_y`, l\'autograd."""\n', []),
}
"""Fichier → (ce qu'il dit, les fautes attendues : ligne et mot)."""


def test_a_fault_is_said_with_its_file_and_line(exige, tmp_path: Path) -> None:
    exige("hunspell")
    (tmp_path / "course.toml").write_text("", encoding="utf-8")
    for name, (text, _) in WRITTEN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = spelling.check_words(spelling.passages(tmp_path), tmp_path)
    expected = {(name, line, word) for name, (_, faults) in WRITTEN.items() for line, word in faults}
    said = {(p.file, p.line, word) for p in found for name, line, word in expected if word in p.message}
    assert said == expected and len(found) == len(expected), [str(p) for p in found]


def test_without_hunspell_the_command_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", "")
    assert command_line.main(["words"]) == 2
    assert "apt install hunspell" in capsys.readouterr().err


def test_the_list_of_words_is_sorted_and_each_is_needed(everything) -> None:
    listed = spelling.LIST.read_text(encoding="utf-8").split()
    assert listed == sorted(set(listed), key=str.lower)
    used = {w for p in everything for group, _ in spelling.groups(p) for w, _ in group}
    used |= {spelling.without_elision(word) for word in used}
    assert not set(listed) - used - {word.lower() for word in used}, "des mots que plus rien n'emploie"
