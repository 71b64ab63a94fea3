"""Sous une erreur, une phrase en français : juste dans ce cas, ou aucune ; et la ligne de l'étudiant, elle seule."""

from __future__ import annotations

import copy
import linecache
import math
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import nn

from atelier import glosses, hardware, notebook
from atelier.checker import CheckFailed, check, explain_error
from atelier.judging.probes import run_case

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"torch": torch, "nn": nn, "F": F, "math": math, "np": np, "copy": copy}
SETUP = """
x, m, i = torch.ones(3), torch.ones(2, 3), torch.arange(3)
def nothing(): pass
def helper(a, b): return a
"""


def cell(source, space, name="<cellule essai>"):
    """Exécute une cellule comme un noyau le ferait : sa source se retrouve par linecache."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), space)
    return space


def crash(body, signature="f(a)", setup=SETUP):
    """Ce que donne `f`, dont voici le corps."""
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    space = cell(f"{setup}\ndef f(a):\n{lines}\n", dict(NAMES))
    outcome = run_case("call", space["f"], {"a": 1})
    assert outcome["status"] == "raised", outcome
    return outcome, explain_error(outcome, signature)


# --- Les erreurs courantes, provoquées pour de vrai ------------------------------------------------------------------

COMMON = [
    # formes
    ("m @ m", "dimensions intérieures"),
    ("torch.bmm(m[None], m[None])", "dimensions intérieures"),
    ("torch.mv(m, torch.ones(4))", "dimensions intérieures"),
    ("m + torch.ones(4, 3)", "ne s'alignent pas"),
    ("np.ones(3) + np.ones(2)", "ne s'alignent pas"),
    ("m.expand(4, 2)", "seule une dimension de taille 1"),
    ("torch.cat([m, torch.ones(2, 4)])", "cat et stack"),
    ("torch.cat([m, x])", "cat et stack"),
    ("torch.stack([x, torch.ones(4)])", "cat et stack"),
    ("m.t().view(-1)", "contigu"),
    ("m.reshape(4, 2)", "autant d'éléments"),
    ("m.permute(0, 1, 2)", "permute"),
    ("x.sum(1)", "pas cette dimension"),
    ("m.transpose(0, 2)", "pas cette dimension"),
    ("torch.tensor(1.0)[0]", ".item()"),
    ("x[0, 0]", "plus d'indices que de dimensions"),
    ("x[5]", "sort des bornes"),
    ("[1][3]", "sort des bornes"),
    ("m[x > 0]", "masque"),
    ("x[torch.tensor([0.5])]", "entiers ou des booléens"),
    ("F.embedding(torch.tensor([9]), m)", "vocabulaire"),
    ("F.cross_entropy(m, torch.tensor([5, 0]))", "numéro de classe"),
    ("F.cross_entropy(m, torch.tensor([0]))", "autant de cibles"),
    ("F.cross_entropy(torch.ones(2, 5, 4), torch.tensor([0, 1]))", "cross_entropy attend"),
    ("torch.topk(x, 9)", "k dépasse"),
    ("torch.ones(0).max()", "vide"),
    # types
    ("if x > 0: pass", "un seul booléen"),
    ("if torch.ones(0): pass", "tenseur vide"),
    ("if np.ones(3) > 0: pass", "tableau"),
    ("x.item()", "plusieurs"),
    ("math.sqrt(x)", "torch.sqrt"),
    ("math.log(0)", "domaine"),
    ("nn.Linear(3, 2)(x.double())", "types différents"),
    ("m @ torch.ones(3, 2).double()", "types différents"),
    ("i.float().masked_fill(x > 0, 0).long().mean()", "nombres à virgule"),
    ("torch.softmax(i, 0)", "type Long"),
    ("i.add_(0.5)", ".float()"),
    ("(x > 0) - (x > 0)", "~masque"),
    ("i ** -1", "puissance"),
    ("torch.zeros(2, dtype=torch.int8).fill_(300)", "ne tient pas"),
    ("torch.sqrt(2)", "doit être un tenseur"),
    ("torch.where(x > 0, x)", "nombre, ordre ou types"),
    # gradients et modules
    ("y = x.requires_grad_() * 2\nz = y**2\ny += 1\nz.sum().backward()", "sur place"),
    ("x.requires_grad_().add_(1)", "no_grad"),
    ("x.requires_grad_().numpy()", "detach"),
    ("x.sum().backward()", "coupée"),
    ("s = (x.requires_grad_() ** 2).sum()\ns.backward()\ns.backward()", "deux fois"),
    ("x.requires_grad_().backward()", "un seul nombre"),
    ("with torch.inference_mode(): t = torch.ones(3)\n(t * x.requires_grad_()).sum().backward()", "inference_mode"),
    ("copy.deepcopy(x.requires_grad_() * 2)", "clone"),
    ("class A(nn.Module):\n    def __init__(self): self.w = nn.Linear(2, 2)\nA()", "super().__init__()"),
    ("class A(nn.Module): pass\nA()(x)", "forward"),
    ("nn.Linear(2, 2).weight = x", "nn.Parameter"),
    ("torch.optim.SGD([])", "gelés"),
    ("nn.Linear(2, 2).load_state_dict({})", "ne sont pas ceux de ce modèle"),
    # Python
    ("return y\ny = 1", "«\u00a0y\u00a0» est lue avant"),
    ("return absent", "le nom «\u00a0absent\u00a0»"),
    ("nothing().shape", "vaut None"),
    ("nothing()[0]", "vaut None"),
    ("nothing() + 1", "vaut None"),
    ("nothing() < 1", "vaut None"),
    ("a, b = nothing()", "vaut None"),
    ("a, b = (1, 2, 3)", "noms à gauche"),
    ("x.sum + 1", "sans être appelée"),
    ("sum[1]", "sans être appelée"),
    ("x(3)", "type Tensor"),
    ("x.shap", "«\u00a0shap\u00a0»"),
    ("torch.relux(x)", "module torch"),
    ("for k in 5: pass", "range(n)"),
    ("for k in torch.tensor(1.0): pass", "zéro dimension"),
    ("len(torch.tensor(1.0))", "pas de longueur"),
    ("range(2.5)", "// au lieu de /"),
    ("[1, 2][1.0]", "un indice de liste est un entier"),
    ("[1] * 2.0", "torch.tensor"),
    ("'a' < 1", "ne se comparent pas"),
    ("{[1]: 2}", "n-uplet"),
    ("max([])", "vide"),
    ("int(float('nan'))", "nan"),
    ("float('1,5')", "avec un point"),
    ("{}['a']", "clé"),
    ("helper(1)", "l'appel de helper"),
    ("f()", "la signature attendue est f(a)"),
    ("f(1, b=2)", "la signature attendue est f(a)"),
    ("torch.softmax(x)", "l'appel de softmax"),
    ("torch.ones(10**13)", "mémoire de la machine"),
    ("raise ValueError('trop petit')", "c'est votre code qui lève cette erreur"),
    ("assert a > 5", "c'est votre code qui lève cette erreur"),
    ("x.cuda()", "pas de carte"),
]


@pytest.mark.parametrize(("body", "words"), COMMON, ids=[b[:40] for b, _ in COMMON])
@pytest.mark.filterwarnings("ignore")
def test_common_errors(body, words):
    if "cuda" in body and torch.cuda.is_available():
        pytest.skip("cette machine a une carte")
    outcome, gloss = crash(body)
    assert words in gloss, (outcome["error"], outcome["message"], gloss)
    assert well_typeset(gloss)


def well_typeset(text):
    """Espaces insécables avant les signes doubles, dans les guillemets."""
    return not any(bad in text for bad in (" :", " ;", " ?", "« ", " »"))


@pytest.mark.parametrize(
    "body",
    [
        "torch.linalg.inv(torch.zeros(2, 2))",
        "torch.linalg.cholesky(-torch.eye(2))",
        "torch.tensor([[1], [1, 2]])",
        "[].pop()",
        "torch.clamp(x)",
        "nn.MultiheadAttention(5, 2)",
    ],
)
def test_no_gloss_rather_than_a_wrong_one(body):
    outcome, gloss = crash(body)
    assert gloss == "", outcome


CARD = [
    (
        ["torch.OutOfMemoryError", "RuntimeError"],
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has",
        "échelle",
    ),
    (
        ["torch.AcceleratorError", "RuntimeError"],
        "CUDA error: device-side assert triggered\nCUDA kernel",
        "indice hors",
    ),
    (["RuntimeError"], "CUDA error: no kernel image is available for execution on the device", "COURS_DEVICE"),
    (["RuntimeError"], "Found no NVIDIA driver on your system. Please check that", "COURS_DEVICE"),
    (["RuntimeError"], "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(", "sur CPU"),
    (["RuntimeError"], "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "pleine"),
    (["RuntimeError"], "CUDA error: an illegal memory access was encountered", "sur CPU"),
    (["RuntimeError"], "MPS backend out of memory (MPS allocated: 8.00 GB", "pleine"),
    (
        ["RuntimeError"],
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "deux appareils",
    ),
    (
        ["RuntimeError"],
        "Expected all tensors to be on the same device, but got index is on cpu, different from other tensors",
        "deux appareils",
    ),
    (
        ["RuntimeError"],
        "Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same",
        "deux appareils",
    ),
    (
        ["RuntimeError"],
        "Input type (torch.DoubleTensor) and weight type (torch.FloatTensor) should be the same",
        "types différents",
    ),
    (
        ["RuntimeError"],
        "indices should be either on cpu or on the same device as the indexed tensor (cpu)",
        "appareils",
    ),
    (["RuntimeError"], "Expected a 'cuda' device type for generator but found 'cpu'", "appareils"),
    (["TypeError"], "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy", ".cpu()"),
    (["AssertionError"], "Torch not compiled with CUDA enabled", "pas de carte"),
    (["RuntimeError"], "No CUDA GPUs are available", "pas de carte"),
    (
        ["RuntimeError"],
        "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.",
        "map_location",
    ),
    (["numpy.exceptions._ArrayMemoryError", "MemoryError"], "Unable to allocate 7.28 TiB for an array", "morceaux"),
    (["MemoryError"], "", "morceaux"),
]


@pytest.mark.parametrize(("names", "message", "words"), CARD, ids=[m[:45] for _, m, _ in CARD])
def test_the_words_of_the_card(names, message, words):
    assert words in glosses.explain([*names, "Exception"], message)


# --- La ligne montrée ------------------------------------------------------------------------------------------------


def where(source, inputs=None):
    space = cell(source, dict(NAMES))
    return run_case("call", space["f"], inputs or {"a": 1})["where"]


@pytest.mark.parametrize(
    "source",
    [
        "def f(a):\n    return np.random.default_rng(0).choice([])  # ici",
        "def f(a):\n    return np.random.choice(3, 5, replace=False)  # ici",
        "def f(a):\n    return F.cross_entropy(torch.ones(2, 3), torch.tensor([9, 0]))  # ici",
        "def f(a):\n    return nn.Linear(2, 2)(torch.ones(3))  # ici",
        "def inner(a):\n    return a / 0  # ici\n\ndef f(a):\n    return inner(a)",
        "def f(a):\n    def inner(b):\n        return b / 0  # ici\n    return [inner(k) for k in (a,)]",
        "@torch.no_grad()\ndef f(a):\n    return a / 0  # ici",
        "import functools\n@functools.lru_cache\ndef f(a):\n    return a / 0  # ici",
        "def deco(g):\n    return lambda *args: g(*args)\n\n@deco\ndef f(a):\n    return a / 0  # ici",
        "class A:\n    def go(self, a):\n        return a / 0  # ici\n\ndef f(a):\n    return A().go(a)",
        "class A(nn.Module):\n    def forward(self, a):\n        return a / 0  # ici\n\ndef f(a):\n    return A()(a)",
        "f = lambda a: a / 0  # ici",
        "def f(a):\n    return sorted([3, 1], key=lambda k: k / 0)  # ici",
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    u: int\n\ndef f(a):\n    return P()  # ici",
        "import json\ndef f(a):\n    return json.loads('{')  # ici",
    ],
)
def test_the_line_is_the_students_and_the_deepest(source):
    expected = next(n for n, line in enumerate(source.splitlines(), 1) if "# ici" in line)
    text = source.splitlines()[expected - 1].strip()
    assert where(source) == f"ligne {expected}\u00a0: {text}"


def test_a_compiled_modules_own_line_is_never_shown():
    """NumPy compile mtrand.pyx : sa trace en porte une ligne, que personne ne peut lire."""
    with pytest.raises(ValueError) as caught:
        np.random.choice(3, 5, replace=False)
    assert any(entry.frame.code.raw.co_filename.endswith(".pyx") for entry in caught.traceback)
    shown = where("def f(a):\n    return np.random.choice(3, 5, replace=False)")
    assert shown == "ligne 2\u00a0: return np.random.choice(3, 5, replace=False)"


def test_a_file_of_theirs_is_named(tmp_path, monkeypatch):
    (tmp_path / "mes_outils.py").write_text("def aide(a):\n    b = a\n    return b / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert where("import mes_outils\ndef f(a):\n    return mes_outils.aide(a)") == (
        "mes_outils.py, ligne 3\u00a0: return b / 0"
    )
    sys.modules.pop("mes_outils")


# --- check() ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(), (abs, abs)])
def test_check_without_a_function_says_what_to_write(given):
    with pytest.raises(CheckFailed, match="une fonction à la fois.*check\\(absmax_scale\\)"):
        check(*given)


# --- La syntaxe ------------------------------------------------------------------------------------------------------

PASTED = [
    ("y =\u00a03 + 4", "espace insécable"),
    ("def g(a):\n\u00a0\u00a0\u00a0\u00a0return a", "espace insécable"),
    ("y = 3\u202f+ 4", "espace fine"),
    ("y = 3\u2003+ 4", "espace qui n'est pas"),
    ("y = \u200b3", "invisible"),
    ("y = 3 \ufeff", "invisible"),
    ("y = 5 \u2212 2", "signe moins"),
    ("y = 1e\u22123", "signe moins"),
    ("y = 5 \u2013 2", "demi-cadratin"),
    ("y = 5 \u2014 2", "cadratin"),
    ("print(\u201cbonjour\u201d)", "guillemet anglais"),
    ("print(\u2018bonjour\u2019)", "apostrophe typographique"),
    ("print('bonjour\u2019)", "apostrophe typographique"),
    ("print(\u00ab bonjour \u00bb)", "guillemet français"),
    ("y = 2 \u00d7 3", "multiplication"),
    ("y = 3\u00b2", "exposant"),
    ("y = 3 \u2264 4", "inférieur ou égal"),
    ("print\uff083)", "pleine chasse"),
    ("y = 3\uff0b4", "pleine chasse"),
    ("y = \u20ac3", "«\u00a0€\u00a0»"),
    ("def g(a):\n\tb = a\n        return b", "tabulations"),
    ("def g(a):\n    b = a\n  return b", "alignée avec aucune"),
    ("def g(a)\n    return a", "«\u00a0:\u00a0»"),
    ("y = (1, 2", "jamais refermé"),
    ("y = 'a", "guillemet qui ferme"),
    ("if y = 3:\n    pass", "=="),
    ("def g(a):\nreturn a", "quatre espaces"),
    ("print 3", "print(…)"),
    ("y = 2x", "signe"),
]


def syntax(source):
    try:
        compile(source, "<cellule>", "exec")
    except SyntaxError as error:
        return glosses.explain_syntax([c.__name__ for c in type(error).__mro__], str(error.msg), error.text or "")
    raise AssertionError(source)


@pytest.mark.parametrize(("source", "words"), PASTED, ids=[ascii(s)[:40] for s, _ in PASTED])
def test_syntax(source, words):
    gloss = syntax(source)
    assert words in gloss, gloss


def test_a_typographic_character_inside_a_text_is_not_accused():
    assert "signe moins" not in syntax("y = '5 \u2212 2' + (")


def test_the_gloss_is_in_the_feedback_of_grading():
    assert "signe moins" in glosses.explain(["SyntaxError"], "invalid character '\u2212' (U+2212)")
    assert "quatre espaces" in glosses.explain(["TabError"], "inconsistent use of tabs and spaces in indentation")


def test_a_long_line_costs_nothing():
    assert glosses.explain_syntax(["SyntaxError"], "invalid syntax", '"' + '\\"' * 2_000_000) == ""


# --- Dans un vrai noyau ----------------------------------------------------------------------------------------------

CELLS = [
    "import atelier",
    "y = 5 \u2212 2",
    "def g(a):\n\tb = a\n        return b",
    "import torch\ntorch.ones(2, 3) @ torch.ones(2, 3)",
    "scale = torch.tensor(0.5)",
    "scale()",
    "z = absente + 1",
    "raise ValueError('le mien')",
    "1 / 0",
    "y = 3",
    "class Odd(Exception):\n    def __str__(self): raise TypeError\nraise Odd",
    "raise MemoryError",
    "x = [0] * 10**18",
    "open('casse.py', 'w').write('y = 5 \u2212 2')\nimport casse",
    "y",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carnet")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COURS_ETAT": str(folder / "état")}
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=120, allow_errors=True, resources=place)
    client.execute(env=env)
    return {c.source: c.outputs for c in notebook.cells}


def said(outputs):
    return "".join(o.get("text", "") for o in outputs)


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("y = 5 \u2212 2", "SyntaxError", "signe moins"),
        (CELLS[2], "TabError", "tabulations"),
        (CELLS[3], "RuntimeError", "dimensions intérieures"),
        ("scale()", "TypeError", "atelier.scale(…)"),
        ("z = absente + 1", "NameError", "«\u00a0absente\u00a0»"),
        ("1 / 0", "ZeroDivisionError", "division par zéro"),
        ("x = [0] * 10**18", "MemoryError", "mémoire"),
    ],
)
def test_in_a_notebook_the_gloss_comes_under_the_ordinary_error(outputs, source, kind, words):
    (error,) = [o for o in outputs[source] if o.output_type == "error"]
    assert error.ename == kind and outputs[source][0] is error
    text = " ".join(said(outputs[source]).split())
    assert text.startswith("Autrement dit") and words in said(outputs[source]).replace("\n", " ")


def test_in_a_notebook_a_broken_file_of_theirs_shows_where_it_is_imported(outputs):
    (error,) = [o for o in outputs[CELLS[13]] if o.output_type == "error"]
    assert "casse.py" in "".join(error.traceback) and "In[" in "".join(error.traceback)
    assert "signe moins" in said(outputs[CELLS[13]])


def test_in_a_notebook_what_is_theirs_or_odd_stays_as_it_is(outputs):
    for source, kind in (("raise ValueError('le mien')", "ValueError"), ("raise MemoryError", "MemoryError")):
        (error,) = outputs[source]
        assert error.output_type == "error" and error.ename == kind
    assert "Odd" in outputs[CELLS[10]][0].evalue and not said(outputs[CELLS[10]])
    assert outputs["y"][0].data["text/plain"] == "3"


def test_import_atelier_stays_light_in_a_script():
    code = "import sys, atelier; assert not {'torch', 'IPython', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_full_card_lowers_the_scale_then_says_what_is_left_to_do(monkeypatch):
    monkeypatch.setenv("COURS_ECHELLE", "gpu")
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 14 GiB.")
    assert "échelle «\u00a0cpu\u00a0»" in notebook.explain(full, {}) and hardware.scale().name == "cpu"
    assert "moins à la" in notebook.explain(full, {}) and hardware.scale().name == "cpu"
    monkeypatch.setenv("COURS_ECHELLE", "gpu")
    notebook.explain(RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"), {})
    assert hardware.scale().name == "gpu"
