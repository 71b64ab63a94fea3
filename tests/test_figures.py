"""Les façades des chapitres : chaque nom public s'y trouve, et les importer ne charge rien de lourd."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections import Counter

import pytest

import atelier.figures
from atelier.figures.common.facade import public_names

CHAPTERS = [m.name for m in pkgutil.iter_modules(atelier.figures.__path__) if m.name != "common"]


def modules(chapter: str) -> list[str]:
    """Les modules du dossier d'un chapitre."""
    package = importlib.import_module(f"atelier.figures.{chapter}")
    return [m.name for m in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_gives_every_public_function_of_its_modules(chapter):
    package = importlib.import_module(f"atelier.figures.{chapter}")
    names = Counter()
    for module in modules(chapter):
        own = importlib.import_module(f"{package.__name__}.{module}")
        for name in public_names(own.__name__):
            names[name] += 1
            value = getattr(own, name)
            if getattr(value, "__module__", None) == own.__name__:  # une fonction ou une classe, et non une constante
                assert getattr(package, name) is value
                assert name in dir(package)
    assert not {name for name in names if name in modules(chapter)}, "un module cacherait la fonction de même nom"
    assert not {name for name, n in names.items() if n > 1 and name in dir(package)}


def test_a_facade_also_gives_what_chapters_share():
    from atelier.figures import ch3, ch5
    from atelier.figures.common import layers

    assert ch3.layer_inputs is layers.layer_inputs and ch5.TIMED
    with pytest.raises(AttributeError, match="rien_de_tel"):
        _ = ch3.rien_de_tel


def test_importing_a_chapter_loads_nothing_heavy():
    code = (
        f"import sys\nfrom atelier.figures import {', '.join(CHAPTERS)}\ndir(ch3)\n"
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
