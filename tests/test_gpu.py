"""Les chapitres résolus en Python ordinaire, sans serveur Jupyter : sur une carte CUDA quand il y en a une.

`pytest -m gpu` écrit dans assets/results/gpu.json la durée et la mémoire de chaque chapitre, avec le nom de la carte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from test_exercises import chapter, each_exercise, visible

from atelier import paths
from atelier.judging.exercise import Tolerance
from grader.authoring.chapters import chapter_names


def plain_run(chapter: str, state: Path, *options: str, **env: str) -> dict:
    """Exécute toutes les cellules de code d'un chapitre résolu dans un processus neuf ; rend ce qu'il a mesuré."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("plain_run.py")), *options, chapter]
    given = {**os.environ, "COURS_ETAT": str(state), "MPLBACKEND": "agg", **env}
    done = subprocess.run(command, env=given, capture_output=True, text=True, cwd=paths.root())
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])[chapter]


def test_a_chapter_runs_in_plain_python(tmp_path):
    measured = plain_run("ch0_accueil", tmp_path, "--short", COURS_DEVICE="cpu")
    assert measured["secondes"] > 0 and not measured["échecs"]


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_names())
def test_every_chapter_runs_on_the_card(chapter, tmp_path):
    measured = plain_run(chapter, tmp_path, COURS_ECHELLE="gpu", COURS_DEVICE="cuda")
    assert not measured.pop("échecs")
    assert measured["carte"] and (chapter == "ch0_accueil" or measured["pic_octets"] > 0)
    target = paths.asset("results", "gpu.json")
    known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    known[chapter] = {**measured, "date": date.today().isoformat()}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(known, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@pytest.mark.gpu
@each_exercise
def test_every_reference_answers_on_the_card(name, id):
    """Une carte n'additionne pas dans l'ordre du processeur : l'écart admis est au moins celui de float32."""
    from test_carte import refused

    wide = Tolerance(rtol=1e-4, atol=1e-5)
    assert not refused(name, id, visible(name, id), chapter(name).reference(id), "cuda", wide)
