"""L'atelier : ce que chaque carnet importe. Public, sans réponse.

`import atelier` ne charge rien de lourd : chaque nom est importé à son premier usage (PEP 562).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from typing import Any

from atelier import paths as paths  # retient le dossier où le noyau a commencé, avant tout os.chdir

# Les fils de calcul de torch s'attendent en dormant et non en boucle : sur une machine déjà occupée, Colibri va ainsi
# quatre à cinq fois plus vite. Lu par OpenMP quand torch se charge ; cours.py et grader le transmettent aux noyaux.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ce que la carte d'un Mac (MPS) ne sait pas encore calculer (valeurs singulières…) se fait sur le processeur.
if sys.platform == "darwin":
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# transformers charge torchao s'il est là, qui se plaint alors de noyaux faits pour d'autres machines.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

# peft appelle encore un nom que transformers 5 va retirer : rien qu'un lecteur puisse changer.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

__version__ = "0.1.0"

_HOME = {
    "check": "checker",
    "passed": "checker",
    "hint": "journal",
    "progress": "journal",
    "quiz": "quizzes",
    "show": "display",
    "table": "display",
    "device": "hardware",
    "for_float64": "hardware",
    "scale": "hardware",
    "describe_machine": "hardware",
    "median_seconds": "hardware",
    "call_seconds": "hardware",
    "load_model": "models",
    "load_tokenizer": "models",
    "gpt2_shape": "models",
    "evaluate_perplexity": "perplexity",
    "extract": "perplexity",
    "board": "variants",
    "save_variant": "variants",
    "load_variant": "variants",
    "save_work": "keep",
    "restore_work": "keep",
    "corpus_tokens": "training",
    "windows": "training",
    "train": "training",
    "experiment": "experiments",
    "paired": "evidence",
    "bet": "bets",
    "settle": "bets",
    "glossary": "lexicon",
    "notations": "lexicon",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"atelier n'a pas de nom « {name} »")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


if paths.shell() is not None:
    importlib.import_module(f"{__name__}.notebook").install()
