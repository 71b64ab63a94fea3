"""Les chapitres résolus en Python ordinaire, sans serveur Jupyter : sur une carte CUDA quand il y en a une.

`pytest -m gpu` écrit dans assets/mesures/gpu.json la durée et la mémoire de chaque chapitre, avec le nom de la carte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import pytest

from atelier import paths
from grader.chapters import chapter_names

PLAIN_RUN = textwrap.dedent(
    """
    import json, sys, time
    from grader.chapters import load_chapter

    space, start = {"__name__": "__main__"}, time.perf_counter()
    for cell in load_chapter(sys.argv[1]).cells:
        if cell.kind in ("code", "setup", "exercise"):
            exec(compile(cell.source, f"{sys.argv[1]}, ligne {cell.line}", "exec"), space)
    seconds = time.perf_counter() - start
    import torch
    cuda = torch.cuda.is_available()
    print("MESURE", json.dumps({
        "secondes": round(seconds, 1),
        "carte": torch.cuda.get_device_name() if cuda else None,
        "pic_octets": torch.cuda.max_memory_allocated() if cuda else None,
    }))
    """
)


def plain_run(chapter: str, state: Path, **env: str) -> dict:
    """Exécute toutes les cellules de code d'un chapitre résolu dans un processus neuf ; rend ce qu'il a mesuré."""
    given = {**os.environ, "PYTHONPATH": str(paths.root()), "COURS_ETAT": str(state), "MPLBACKEND": "agg", **env}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_RUN, chapter], env=given, capture_output=True, text=True, cwd=paths.root()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rsplit("MESURE ", 1)[1])


def test_a_chapter_runs_in_plain_python(tmp_path):
    assert plain_run("ch0_accueil", tmp_path, COURS_DEVICE="cpu")["secondes"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_names())
def test_every_chapter_runs_on_the_card(chapter, tmp_path):
    measured = plain_run(chapter, tmp_path, COURS_ECHELLE="gpu", COURS_DEVICE="cuda")
    assert measured["carte"] and (chapter == "ch0_accueil" or measured["pic_octets"] > 0)
    target = paths.asset("mesures", "gpu.json")
    known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    known[chapter] = {**measured, "date": date.today().isoformat()}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(known, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
