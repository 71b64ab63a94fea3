"""Les habitudes des étudiants : une réponse juste garde ses points, et ce qui n'est pas noté est dit.

Chaque cas part d'un carnet juste et y fait ce que l'on voit faire : lignes de Colab, brouillons, cellules coupées.
"""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest
from essai import SOLVED, as_bytes, cell_of, filled
from nbformat import NotebookNode

from grader.classroom.grading import Result
from grader.classroom.nbglue import Assignment, grade_notebook, points_of
from grader.classroom.submission import KEY, read_notebook, repair
from grader.jail.outside.sandbox import Sandbox

POINTS = {"scale_up": 2.0, "count_true": 1.0, "spread": 3.0}
RIGHT = SOLVED["spread"].strip()
WRONG = "def spread(x):\n    return x.max()"
WITH_NP = "def spread(x):\n    y = np.sort(x.numpy())\n    return torch.as_tensor(y[-1] - y[0])"
"""Une réponse juste qui a besoin de `import numpy as np`."""
STUB = "def spread(x):\n    '''Écart.'''\n    raise NotImplementedError('à faire plus tard')"
NP = "import numpy as np"


def grade(essai: Assignment, sandbox: Sandbox, notebook: NotebookNode) -> tuple[dict[str, Result], dict]:
    """Les notes d'un carnet rendu, et ce que l'enseignant en lit, par exercice ou de la copie ("")."""
    repaired, notes = repair(read_notebook(as_bytes(notebook)), essai.template)
    repaired.metadata[KEY] = {"notes": notes}
    results = grade_notebook(repaired, essai, points_of(repaired, essai.template), sandbox)
    return {r.exercise: r for r in results}, repaired.metadata[KEY]["notes"]


def mangled(essai: Assignment, cells: list[tuple[str, str]]) -> NotebookNode:
    """Un carnet juste, où spread est répondu par ces cellules : (genre, texte).

    « réponse » : la cellule de l'énoncé ; « vérification » : la sienne ; « avant », « code », « markdown », « raw » :
    une cellule ajoutée, avant la réponse pour la première ; « copie » : une cellule de même identifiant.
    """
    notebook = filled(essai.template, {k: v for k, v in SOLVED.items() if k != "spread"})
    answer = cell_of(notebook, "spread")
    at = notebook.cells.index(answer)
    after = []
    for kind, source in cells:
        if kind == "réponse":
            answer.source = source
        elif kind == "vérification":
            cell_of(notebook, "test_spread").source = source
        elif kind == "avant":
            notebook.cells.insert(at, nbformat.v4.new_code_cell(source))
            at += 1
        elif kind == "copie":
            after.append(nbformat.v4.new_code_cell(source, metadata=answer.metadata))
        else:
            after.append(getattr(nbformat.v4, f"new_{kind}_cell")(source))
    notebook.cells[at + 1 : at + 1] = after
    return notebook


# --- ce qui ne peut pas s'exécuter ici n'emporte pas la suite ---------------------------------------------------------

NOT_HERE = {
    "drive": "from google.colab import drive\ndrive.mount('/content/drive')",
    "os.chdir": "import os\nos.chdir('/content/drive/MyDrive')",
    "sys.path": "import sys\nsys.path.append('/content/drive')\nfrom mes_outils import *",
    "%cd": "%cd /content",
    "!pip": "!pip install -q einops",
    "%pip": "%pip install einops\nimport einops",
    "!… continué": "!apt-get install \\\n    graphviz",
    "x = !ls": "files = !ls\nprint(len(files))",
    "x = %pwd": "where = %pwd",
    "%matplotlib": "%matplotlib inline\nimport matplotlib.pyplot as plt",
    "%load_ext": "%load_ext autoreload\n%autoreload 2",
    "%time": "%time y = torch.zeros(3)",
    "%timeit": "%timeit torch.zeros(3)",
    "%%time": "%%time",
    "%%capture": "%%capture out",
    "%%time et %%capture": "%%time\n%%capture",
    "?aide": "?len",
    "aide??": "torch.nn.Linear??",
    "get_ipython": "get_ipython().system('ls')\nget_ipython().run_line_magic('cd', '/content')",
    "input": "n = int(input('combien ? '))",
    "cuda": "w = torch.zeros(3).cuda()",
    "device": "device = torch.device('cuda')\nw = torch.zeros(3).to(device)",
    "assert cuda": "assert torch.cuda.is_available(), 'activez la carte'",
    "await": "import asyncio\nawait asyncio.sleep(0)",
    "await et valeur": "import asyncio\ntask = asyncio.create_task(asyncio.sleep(0, 3))\nthree = await task",
    "réseau": "import urllib.request\npage = urllib.request.urlopen('http://example.org').read()",
    "bibliothèque absente": "import tensorflow as tf\ntf.random.set_seed(0)",
    "fichier": "weights = torch.load('poids.pt')\nprint(weights.keys())",
    "démonstration": "print(colibri.config)\nlogits = colibri(windows)",
    "check et hint": "check(scale_up)\nhint(scale_up)",
    "exit": "exit()",
    "raise": "raise RuntimeError('stop')",
    "assert": "assert scale_up(2, 3) == 5",
    "1/0": "1 / 0",
    "dans un if": "if True:\n    !pip install einops\n    import copy",
    "boucle": "step = 0\nwhile True:\n    step += 1",
    "sommeil": "import time\ntime.sleep(60)",
    "arrêt": "import os\nos._exit(1)",
}


@pytest.mark.parametrize("habit", NOT_HERE)
def test_the_imports_that_follow_survive(essai, sandbox, habit):
    """Dans la cellule de la réponse, avant l'import dont elle a besoin."""
    source = f"{NOT_HERE[habit]}\n{NP}\n{WITH_NP}"
    results, _ = grade(essai, sandbox, mangled(essai, [("réponse", source)]))
    assert {k: r.score for k, r in results.items()} == POINTS, results["spread"].feedback


@pytest.mark.parametrize("habit", ["drive", "%cd", "!pip", "%%time", "x = !ls", "cuda", "await", "1/0", "dans un if"])
@pytest.mark.parametrize("place", ["avant", "vérification", "code"])
def test_imports_count_wherever_the_student_put_them(essai, sandbox, habit, place):
    cells = [("réponse", WITH_NP), (place, f"{NOT_HERE[habit]}\n{NP}\ncheck(spread)")]
    results, _ = grade(essai, sandbox, mangled(essai, cells))
    assert {k: r.score for k, r in results.items()} == POINTS, results["spread"].feedback


def test_a_loop_that_cannot_be_interrupted_costs_only_itself(essai, sandbox):
    cells = [("avant", f"total = sum(range(10**12))\n{NP}"), ("réponse", WITH_NP)]
    results, notes = grade(essai, sandbox, mangled(essai, cells))
    assert {k: r.score for k, r in results.items()} == POINTS
    assert "«\u00a0total\u00a0» n'y est pas défini" in " ".join(notes[""])


def test_definitions_still_count_when_the_time_of_added_cells_is_spent(essai, sandbox, monkeypatch):
    loops = [("avant", f"while True: pass\nSTEP_{i} = 1") for i in range(7)]
    cells = [*loops, ("avant", f"{NP}\nwhile True: pass"), ("réponse", WITH_NP)]
    results, _ = grade(essai, sandbox, mangled(essai, cells))
    assert {k: r.score for k, r in results.items()} == POINTS


# --- toutes les façons de donner un nom -------------------------------------------------------------------------------

G = "def g(x):\n    return x.max() - x.min()\n"
BINDINGS = {
    "if": "if True:\n    def spread(x):\n        return x.max() - x.min()",
    "else": "if False:\n    pass\nelse:\n    def spread(x):\n        return x.max() - x.min()",
    "try": "try:\n    import cupy\nexcept ImportError:\n    def spread(x):\n        return x.max() - x.min()",
    "with": "with torch.no_grad():\n    def spread(x):\n        return x.max() - x.min()",
    "for": f"{G}for spread in [g]:\n    pass",
    "while": f"{G}while True:\n    spread = g\n    break",
    "match": f"{G}match 3:\n    case 3:\n        spread = g",
    "affectation": f"{G}spread = g",
    "annotée": f"{G}spread: object = g",
    "plusieurs": f"{G}spread, other = g, 3",
    "enchaînée": f"{G}other = spread = g",
    "walrus": f"{G}(spread := g)",
    "globals": f"{G}globals()['spread'] = g",
    "setattr": f"{G}import sys\nsetattr(sys.modules['__main__'], 'spread', g)",
    "exec": "exec('def spread(x):\\n    return x.max() - x.min()')",
    "lambda": "spread = lambda x: x.max() - x.min()",
    "partial": "from functools import partial\ndef g(a, x):\n    return x.max() - x.min()\nspread = partial(g, 3)",
    "objet": "class G:\n    def __call__(self, x):\n        return x.max() - x.min()\nspread = G()",
    "décorée": "import functools\ndef timed(f):\n    @functools.wraps(f)\n    def inner(*a, **k):\n"
    "        return f(*a, **k)\n    return inner\n@timed\ndef spread(x):\n    return x.max() - x.min()",
    "décorée, autre nom": "def timed(f):\n    return lambda x: f(x)\n@timed\n" + G.replace("g(", "spread("),
    "fabrique": "def make():\n    def inner(x):\n        return x.max() - x.min()\n    return inner\nspread = make()",
    "méthode": "class G:\n    def go(self, x):\n        return x.max() - x.min()\nspread = G().go",
    "redéfinie": f"{WRONG}\ndel spread\n{RIGHT}",
    "import": "import outils\nfrom outils import etendue as spread",
}
TOOLS = ("avant", "%%writefile outils.py\ndef etendue(x):\n    return x.max() - x.min()")


@pytest.mark.parametrize("binding", BINDINGS)
def test_whatever_the_name_is_bound_to_is_graded(essai, sandbox, binding):
    """Sous un brouillon faux, dans une cellule au-dessus, qui définit le même nom."""
    cells = [TOOLS, ("avant", WRONG), ("réponse", BINDINGS[binding])]
    results, _ = grade(essai, sandbox, mangled(essai, cells))
    assert {k: r.score for k, r in results.items()} == POINTS, results["spread"].feedback


# --- plusieurs versions : celle que le carnet laisse ------------------------------------------------------------------

KEPT = {
    "ancien essai en brut": [("réponse", RIGHT), ("raw", WRONG)],
    "ancien essai en texte": [("réponse", RIGHT), ("markdown", WRONG)],
    "cellule refaite, l'ancienne en texte": [("markdown", WRONG), ("réponse", ""), ("code", RIGHT)],
    "brouillon au-dessus": [("avant", WRONG), ("réponse", RIGHT)],
    "brouillon dans la réponse, réponse dessous": [("réponse", WRONG), ("code", RIGHT)],
    "réponse dans une cellule au-dessus": [("avant", RIGHT)],
    "réponse dans la vérification": [("réponse", ""), ("vérification", f"{RIGHT}\ncheck(spread)")],
    "réponse sous la vérification": [("réponse", STUB), ("code", RIGHT)],
    "aide dans la vérification": [("réponse", WITH_NP), ("vérification", f"{NP}\ncheck(spread)")],
    "aide définie plus bas": [
        ("réponse", "def spread(x):\n    return hi(x) - x.min()"),
        ("code", "def hi(x):\n    return x.max()"),
    ],
    "cellule coupée en deux": [("réponse", "def hi(x):\n    return x.max()"), ("copie", f"{RIGHT}\n")],
    "coupée en deux, la réponse d'abord": [("réponse", RIGHT), ("copie", "print(spread(torch.ones(3)))")],
    "deux copies, la dernière juste": [("réponse", WRONG), ("copie", RIGHT)],
    "énoncé recollé et retouché": [("réponse", RIGHT), ("code", STUB)],
    "nom réutilisé pour une valeur": [("réponse", RIGHT), ("code", "spread = spread(torch.ones(3))")],
    "nom réutilisé par une boucle": [("réponse", RIGHT), ("code", "for spread in range(3):\n    print(spread)")],
    "nom effacé": [("réponse", RIGHT), ("code", "del spread")],
    "brouillon désactivé par raise": [("réponse", RIGHT), ("code", f"raise SystemExit\n{WRONG}")],
    "brouillon désactivé par assert": [("réponse", RIGHT), ("code", f"assert False, 'ancien'\n{WRONG}")],
    "brouillon désactivé par if": [
        ("réponse", RIGHT),
        ("code", "if False:\n    spread = max"),
    ],
    "brouillon désactivé par %%script": [("réponse", RIGHT), ("code", f"%%script false\n{WRONG}")],
    "brouillon en chaîne": [("réponse", RIGHT), ("code", f"'''\n{WRONG}\n'''")],
    "cellule cassée dessous": [("réponse", RIGHT), ("code", f"{WRONG}\nprint('oups'")],
    "essai dans une fonction": [("réponse", RIGHT), ("code", "def essai():\n    spread = 3\n    return spread")],
    "appel enveloppé": [("réponse", RIGHT), ("code", "first = spread\ndef spread(x):\n    return first(x)")],
    "essai raté sous la réponse": [("réponse", f"{RIGHT}\nprint(spread(torch.ones(2)), undefined)")],
}


@pytest.mark.parametrize("habit", KEPT)
def test_the_right_version_keeps_its_points(essai, sandbox, habit):
    results, _ = grade(essai, sandbox, mangled(essai, KEPT[habit]))
    assert {k: r.score for k, r in results.items()} == POINTS, results["spread"].feedback


SAID = {
    "brouillon dans la réponse, réponse dessous": ("deux versions différentes", "def spread(x):"),
    "nom réutilisé pour une valeur": ("désigne plus loin une valeur", "dernière fonction"),
    "énoncé recollé et retouché": ("l'énoncé est recopié plus loin", "dernière fonction"),
    "nom effacé": ("ce nom est effacé plus loin", "dernière fonction"),
    "deux copies, la dernière juste": ("plusieurs cellules portaient cet identifiant", "de haut en bas"),
    "réponse dans une cellule au-dessus": ("restée celle de l'énoncé", "autre cellule"),
}


@pytest.mark.parametrize("habit", SAID)
def test_which_one_was_kept_is_said_to_both(essai, sandbox, habit):
    results, notes = grade(essai, sandbox, mangled(essai, KEPT[habit]))
    for word in SAID[habit]:
        assert word in results["spread"].feedback and word in " ".join(notes["spread"])


# --- zéro, et pourquoi ------------------------------------------------------------------------------------------------

ZERO: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "réponse en texte": ([("réponse", ""), ("markdown", RIGHT)], "missing", "n'exécute pas une cellule de texte"),
    "réponse en brut": ([("réponse", ""), ("raw", RIGHT)], "missing", "touche Y"),
    "remplacée plus bas": ([("réponse", RIGHT), ("code", WRONG)], "misconception", "deux versions différentes"),
    "deux copies, la dernière fausse": ([("réponse", RIGHT), ("copie", WRONG)], "misconception", "plusieurs cellules"),
    "en commentaire": ([("réponse", "# " + RIGHT.replace("\n", "\n# "))], "error", "ne définit pas"),
    "dans un if faux": ([("réponse", "if False:\n    spread = max")], "error", "ne définit pas"),
    "en chaîne": ([("réponse", f"'''{RIGHT}'''")], "error", "ne définit pas"),
    "erreur de syntaxe": ([("réponse", "def spread(x:\n    return x")], "error", "SyntaxError, ligne 1"),
    "boucle sans fin": ([("réponse", "while True: pass")], "timeout", "dépasse 5\u00a0secondes"),
    "une valeur": ([("réponse", "spread = 3")], "error", "ne définit pas"),
    "perdue avec un fichier": (
        [("réponse", "spread = torch.load('spread.pt')")],
        "error",
        "«\u00a0spread\u00a0» n'y est pas défini",
    ),
    "aide perdue avec un fichier": (
        [("avant", "DATA = torch.load('data.pt')"), ("réponse", "def spread(x):\n    return x.max() - DATA")],
        "error",
        "dans la cellule qui commence par «\u00a0DATA = torch.load('data.pt')\u00a0», la ligne 1",
    ),
    "cellule %%bash": ([("réponse", f"%%bash\n{RIGHT}")], "error", "%%bash ne s'exécute pas à la correction"),
}


@pytest.mark.parametrize("habit", ZERO)
def test_what_the_notebook_does_not_leave_scores_nothing_and_says_why(essai, sandbox, habit):
    cells, verdict, word = ZERO[habit]
    results, notes = grade(essai, sandbox, mangled(essai, cells))
    assert {k: r.score for k, r in results.items()} == POINTS | {"spread": 0.0}
    assert results["spread"].verdict == verdict
    assert word in results["spread"].feedback
    told = " ".join([*notes.get("spread", []), results["spread"].message])
    assert word in told


def test_the_note_names_the_cell_the_line_and_what_was_lost(essai, sandbox):
    source = f"# mes imports\n{NP}\n\nfrom google.colab import drive\ndrive.mount('/content/drive')\nk = 3"
    results, notes = grade(essai, sandbox, mangled(essai, [("avant", source), ("réponse", WITH_NP)]))
    assert results["spread"].verdict == "correct"
    told = " ".join(notes[""])
    assert "commence par «\u00a0# mes imports\u00a0», la ligne 4, «\u00a0from google.colab import drive\u00a0»" in told
    assert "No module named 'google" in told and "«\u00a0drive\u00a0» n'y est pas défini" in told


def test_nothing_is_said_of_what_has_no_effect(essai, sandbox):
    source = f"%matplotlib inline\n%timeit 1 + 1\n{RIGHT}\nspread?"
    _, notes = grade(essai, sandbox, mangled(essai, [("réponse", source)]))
    assert notes == {}


def test_there_are_enough_habits():
    habits: list[Callable | str] = [*NOT_HERE, *BINDINGS, *KEPT]
    assert len(habits) >= 80 and len(ZERO) >= 12
