"""Les recettes de CONTRIBUTING.md, exécutées comme un nouveau venu les suivrait, sur une copie du dépôt."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from essai import CHAPTER, COURSE, DECLARED, NAME, write_chapter

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("\u00a0", " ").replace("\u202f", " ")
RECIPES = re.split(r"^## ", TEXT, flags=re.MULTILINE)
STEP = re.compile(
    r"```(?P<kind>bash|python)\n(?P<code>.*?)```"
    r"|Dans un nouveau fichier `(?P<new>[^`]+)` :"
    r"|À la fin de `(?P<end>[^`]+)` :"
    r"|Dans `(?P<file>[^`]+)`"
    r"|`(?P<old>[^`]+)` par `(?P<by>[^`]+)`",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Une copie du dépôt dont le seul chapitre est le chapitre d'essai."""
    root = tmp_path_factory.mktemp("depot")
    for name in ("atelier", "grader"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "course.toml").write_text(COURSE, encoding="utf-8")
    chapter = CHAPTER.replace('raise SystemExit("', 'print("').replace(
        "import torch\n", "import torch\nfrom atelier import check\n", 1
    )
    write_chapter(root / "solutions" / NAME, chapter, DECLARED)
    return root


def follow(number: int, root: Path) -> list[subprocess.CompletedProcess[str]]:
    """Fait ce que dit la recette, dans l'ordre, et rend ce que ses commandes ont répondu."""
    recipe = next(part for part in RECIPES if part.startswith(f"Recette {number}"))
    done, place, writing = [], "", "w"
    for step in STEP.finditer(recipe):
        if step["new"] or step["end"]:
            place, writing = step["new"] or step["end"], "w" if step["new"] else "a"
        elif step["file"]:
            place = step["file"]
        elif step["old"]:
            text = (root / place).read_text(encoding="utf-8")
            plain = text.replace("\u00a0", " ")
            assert step["old"] in plain, f"« {step['old']} » n'est plus dans {place}"
            (root / place).write_text(plain.replace(step["old"], step["by"]), encoding="utf-8")
        elif step["kind"] == "python":
            with (root / place).open(writing, encoding="utf-8") as file:
                file.write("\n" * (writing == "a") + step["code"])
        else:
            done += [command(line, root) for line in step["code"].strip().splitlines()]
    return done


def command(line: str, root: Path) -> subprocess.CompletedProcess[str]:
    words = line.split()
    if words[0] == "python":
        words[0] = sys.executable
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_RACINE", "PYTHONPATH"))}
    env |= {"PYTHONPATH": str(root), "COURS_ECHELLE": "essai", "COURS_ETAT": str(root / "etat")}
    return subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.lent
def test_the_recipes_work_one_after_the_other(scratch: Path) -> None:
    for done in follow(1, scratch):
        assert done.returncode == 0, done.stderr
    assert "4 exercices, 7 points" in done.stdout.replace("\u00a0", " ")
    pack = json.loads((scratch / f"assets/packs/{NAME}.json").read_text(encoding="utf-8"))
    assert set(pack["exercises"]["triple"]["messages"]) == {"squared", "unchanged"}

    for done in follow(2, scratch):
        assert done.returncode == 0, done.stderr
    result = json.loads((scratch / f"assets/results/{NAME}/triples.json").read_text(encoding="utf-8"))
    assert result["value"] == {"$": "dict", "v": {"$paires": [[x, 3 * x] for x in range(8)]}}
    solved = (scratch / f"solutions/{NAME}/{NAME}.ipynb").read_text(encoding="utf-8")
    assert "Une droite, de 0 à 6." in solved and "Mesuré ici" in solved

    *before, graded = follow(3, scratch)
    assert all(done.returncode == 0 for done in before) and graded.returncode == 1, graded.stderr
    (row,) = {(r["verdict"], r["student"]) for r in json.loads((scratch / "notes.json").read_text(encoding="utf-8"))}
    assert row == ("refused", "ana") and "déposez de nouveau votre carnet" in graded.stdout.replace("\u00a0", " ")
