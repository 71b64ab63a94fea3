"""`python cours.py test` et `python cours.py mesures` : lancer les vérifications du dépôt et les dire à la fin."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from atelier.launch import environment
from atelier.launch.environment import Trouble
from atelier.text import number

PARALLEL = ("-n", "2", "--dist", "worksteal")
"""Deux processus : qui a fini prend au second la moitié de ce qui lui reste."""


def steps(python: Path, arguments: list[str]) -> dict[str, list[str]]:
    """Ce qui est lancé, dans l'ordre : nom → commande. Avec des arguments, seul pytest, qui les reçoit."""
    pytest = [str(python), "-m", "pytest"]
    if arguments:
        return {"tests (pytest)": [*pytest, *arguments]}
    ruff = [str(python), "-m", "ruff"]
    return {
        "erreurs courantes (ruff check)": [*ruff, "check", "."],
        "mise en forme (ruff format)": [*ruff, "format", "--check", "."],
        "types (mypy)": [str(python), "-m", "mypy"],
        "tests (pytest)": [*pytest, *PARALLEL, "--durations=15"],
    }


def run(python: Path, root: Path, arguments: list[str]) -> int:
    """Lance tout, même après un échec, puis résume ; rend 0 si tout va bien."""
    env = environment.variables(python)
    env |= {"COURS_ECHELLE": "essai", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    results = []
    with tempfile.TemporaryDirectory() as state:
        env["COURS_ETAT"] = state
        for name, command in steps(python, arguments).items():
            print(f"\n── {name}", flush=True)
            start = time.monotonic()
            code = subprocess.call(command, cwd=root, env=env)
            results.append((name, code, time.monotonic() - start))
    print()
    for name, code, seconds in results:
        took = number(seconds, decimals=0, unit="s")
        print(f"{'✗' if code else '✔'} {name}\u00a0: {took}" + (f" (code {code})" if code else ""))
    return 1 if any(code for _, code, _ in results) else 0


def measure(python: Path, root: Path, arguments: list[str]) -> int:
    """Refait les longues mesures d'un chapitre, ou les durées du tableau. arguments : lequel, puis des noms."""
    chapter, *names = arguments
    recorded = [str(python), "-m", "grader", "mesures", chapter, *names]
    folder = root / "solutions" / chapter
    if chapter == "tableau":
        return subprocess.call(recorded, cwd=root, env=environment.variables(python))
    if not folder.is_dir():
        known = ", ".join(
            sorted(path.name for path in (root / "solutions").iterdir() if (path / "chapter.py").is_file())
        )
        raise Trouble(f"Il n'y a pas de chapitre «\u00a0{chapter}\u00a0». Chapitres écrits\u00a0: {known}.")
    if "# %% experiment=" not in (folder / "chapter.py").read_text(encoding="utf-8"):
        print(f"Le chapitre {chapter} n'a pas de longues mesures\u00a0: tout y est calculé dans le carnet.")
        return 0
    return subprocess.call(recorded, cwd=root, env=environment.variables(python))
