"""Des chapitres résolus en Python ordinaire, sans Jupyter : `python tests/plain_run.py [--short] [--taken] CHAPITRE…`.

L'appareil est dans COURS_DEVICE ; « carte » et « apple » sont la carte simulée (tests/carte.py), avec et sans float64.
Une cellule qui échoue n'arrête pas les suivantes. La dernière ligne écrite est un JSON, une entrée par chapitre :
durée, mémoire, échecs. --short : ce qui répète beaucoup fait peu, car c'est l'appareil que l'on éprouve, et non les
valeurs. --taken : après chaque exercice, une variable prend son nom.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

STEPS, TOKENS = 2, 200


def abridge() -> None:
    """Deux pas d'apprentissage, deux cents jetons évalués, une mesure par durée, des figures remplies mais non peintes.

    Les modules de figures prennent ces noms en se chargeant : à faire avant le premier chapitre.
    """
    from matplotlib.figure import Figure

    import atelier
    from atelier import hardware, perplexity, training

    train, evaluate, seconds = training.train, perplexity.evaluate_perplexity, hardware.call_seconds

    def short_train(model: Any, batches: Any, steps: int, *args: Any, **kwargs: Any) -> training.Log:
        return train(model, batches, min(steps, STEPS), *args, **kwargs)

    def short_evaluate(
        model: Any, text: str = "a_validation", tokenizer: Any = None, max_tokens: int | None = None, **kwargs: Any
    ) -> perplexity.Evaluation:
        return evaluate(model, text, tokenizer, min(max_tokens or TOKENS, TOKENS), **kwargs)

    def once(run: Callable[[], object], repeats: int = 1, warmup: int = 0) -> list[float]:
        return seconds(run, 1, 0)

    training.train, perplexity.evaluate_perplexity, hardware.call_seconds = short_train, short_evaluate, once
    atelier.passed = lambda fn: callable(fn)
    Figure.savefig = lambda self, file, **_: file.write(bytes(24))


def where(error: BaseException) -> str:
    """Les dernières lignes du chapitre ou de l'atelier que l'erreur a traversées."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "-packages" not in f.filename]
    ours = [f for f in ours if Path(f.filename).parent != HERE]
    return " ← ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-3:]))


def run(chapter: str, taken: bool) -> dict[str, Any]:
    """Exécute toutes les cellules de code d'un chapitre résolu ; rend ce qui a été mesuré.

    taken : une fois l'exercice écrit, son nom désigne un nombre.
    """
    import torch

    from grader.authoring.chapters import load_chapter

    space: dict[str, Any] = {"__name__": "__main__"}
    failures, start, cuda = [], time.perf_counter(), torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for cell in load_chapter(chapter).cells:
        if cell.kind not in ("code", "setup", "exercise", "experiment"):
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"{chapter}, ligne {cell.line}", "exec"), space)
        except Exception as error:
            failures.append(f"ligne {cell.line} : {type(error).__name__} : {error}"[:300] + f" ({where(error)})")
        if taken and cell.kind == "exercise":
            space[cell.id] = 0.5
    return {
        "secondes": round(time.perf_counter() - start, 1),
        "carte": torch.cuda.get_device_name() if cuda else None,
        "pic_octets": torch.cuda.max_memory_allocated() if cuda else None,
        "échecs": failures,
    }


def main(arguments: list[str]) -> None:
    if os.environ.get("COURS_DEVICE") in ("carte", "apple"):
        import carte

        carte.install(without_float64=os.environ["COURS_DEVICE"] == "apple")
        os.environ["COURS_DEVICE"] = carte.NAME
    if "--short" in arguments:
        abridge()
    chapters = [argument for argument in arguments if not argument.startswith("--")]
    print(json.dumps({chapter: run(chapter, "--taken" in arguments) for chapter in chapters}))


if __name__ == "__main__":
    main(sys.argv[1:])
