"""Ce qu'un étudiant malveillant pourrait rendre. Chaque attaque a un nom ; tests/test_attaques.py les corrige toutes.

Une attaque remplace la réponse à `spread` (3 points du cours d'essai), ajoute une cellule avant les réponses, ou abîme
le carnet, ses octets ou son fichier. Celles qui ne sont qu'un texte sont dans attaques.txt : « famille / nom », puis «
cellule » si c'en est une, « lente » si elle l'est. `spread` dit ce que cette réponse mérite, `others` ce que les deux
autres gardent au moins : presque toujours tout. Dans les sources, @DEPOT@, @COURS@, @PORT@, @PRISE@ et @MARQUE@ sont
remplacés par ce que l'attaquant connaîtrait : le dépôt, le dossier de cours, un port et une prise ouverts dehors, une
marque à laisser. Une attaque qui trouve ce qu'elle ne devrait pas l'annonce par une erreur qui dit TROUVÉ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from essai import cell_of
from nbformat import NotebookNode


@dataclass(frozen=True)
class Attack:
    """function : la réponse à `spread` ; cell : une cellule ajoutée ; le reste : voir l'en-tête du fichier."""

    family: str
    function: str = ""
    cell: str = ""
    change: Callable[[NotebookNode], NotebookNode] | None = None
    render: Callable[[bytes], bytes] | None = None
    place: Callable[[Path, bytes, Path], None] | None = None
    spread: float | None = None
    others: float = 3.0
    slow: bool = False

    @property
    def deserved(self) -> float:
        """Points que `spread` mérite."""
        return self.spread if self.spread is not None else 0.0 if self.function else 3.0


ATTACKS: dict[str, Attack] = {}


def function(name: str, family: str, source: str, **options: object) -> None:
    ATTACKS[name] = Attack(family, function=source, **options)  # type: ignore[arg-type]


for _block in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("# %% ")[1:]:
    _head, _, _source = _block.partition("\n")
    _family, _name, *_words = _head.split(" / ")
    ATTACKS[_name] = Attack(_family, **{"cell" if "cellule" in _words else "function": _source}, slow="lente" in _words)


def keep(kind: str, name: str, family: str, **options: object) -> Callable:
    """Décorateur : la fonction est l'attaque."""

    def kept(function: Callable) -> Callable:
        ATTACKS[name] = Attack(family, **{kind: function}, **options)  # type: ignore[arg-type]
        return function

    return kept


notebook = partial(keep, "change")
"""Abîme le carnet."""
raw_bytes = partial(keep, "render")
"""Abîme les octets du fichier."""
placed = partial(keep, "place")
"""Écrit lui-même le fichier rendu (chemin, octets, dossier du cours)."""

# ====================================================================================================== tricherie

CHEAT, LEAK, DENIAL, PARSER, PAGE = "triche", "fuite", "déni", "lecture", "page"

FRAMES = """
import json, os, struct
def frame(body):
    return struct.pack("<Q", len(body)) + body
def message(tree):
    head = json.dumps({"$": "dict", "v": tree}).encode()
    return frame(struct.pack("<Q", len(head)) + head)
def forge():
    good = message({"status": "value", "value": 3.0, "modified": [], "ok": True})
    good += frame(b"") + message({"event": "exercise_end", "exercise": "spread", "status": "done", "score": 3.0})
    good += message({"event": "end"})
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
            os.write(fd, good)
        except OSError:
            pass
"""
function("messages-forges", CHEAT, FRAMES + "def spread(x):\n    forge()\n    return x\n")
function("messages-forges-par-la-cellule", CHEAT, FRAMES + "forge()\ndef spread(x):\n    return x\n", others=0.0)
function(
    "messages-forges-par-un-frere",
    CHEAT,
    FRAMES + "if os.fork() == 0:\n    import time\n    for _ in range(50):\n        forge()\n        time.sleep(0.01)\n"
    "    os._exit(0)\ndef spread(x):\n    return x\n",
    others=0.0,
)
function(
    "descripteur-garde-d-un-exercice-a-l-autre",
    CHEAT,
    FRAMES + "kept = [os.dup(fd) for fd in range(3, 20) if not os.set_inheritable(fd, True)] if False else []\n"
    "for fd in range(3, 20):\n    try:\n        kept.append(os.dup(fd))\n    except OSError:\n        pass\n"
    "def spread(x):\n    forge()\n    os._exit(0)\n",
    others=0.0,
)
TENSORS = {
    "creux": "torch.zeros(1).to_sparse()",
    "sans-donnees": "torch.zeros(1, device='meta')",
    "quantifie": "torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8)",
    "imbrique": "torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])",
    "complexe": "torch.zeros((), dtype=torch.complex64)",
    "sans-fin": "torch.zeros(1).expand(10**13)",
    "conjugue": "torch.zeros((), dtype=torch.complex64).conj().imag",
    "hors-memoire": "torch.zeros(4).as_strided((10**6,), (1,))",
    "booleen-menteur": "torch.full((), 7, dtype=torch.uint8).view(torch.bool)",
    "float8": "torch.zeros((), dtype=torch.float8_e4m3fn)",
    "dans-un-parametre": "torch.nn.Parameter(torch.zeros(()))",
    "paresseux": "torch.nn.parameter.UninitializedParameter()",
}
for _name, _source in TENSORS.items():
    function(f"tenseur-{_name}", CHEAT, f"import torch\ndef spread(x):\n    return {_source}\n")


@notebook("sorties-forgees", CHEAT, spread=0.0)
def forged_outputs(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    for name in ("spread", "test_spread"):
        data = {"text/plain": "3.0"}
        cell_of(nb, name).outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
    return nb


@notebook("points-forges", CHEAT, spread=0.0)
def forged_points(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    for c in nb.cells:
        if "nbgrader" in c.metadata:
            c.metadata["nbgrader"] |= {"points": 1e9, "grade": True, "solution": True, "locked": False}
            c.metadata["nbgrader"] |= {"checksum": "0" * 32, "schema_version": 3, "cell_type": "code"}
    return nb


@notebook("notes-forgees", CHEAT, spread=0.0)
def forged_results(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    result = {"exercise": "spread", "score": 3.0, "max_score": 3.0, "verdict": "correct", "message": "", "groups": []}
    nb.metadata["atelier"] = {"results": [result], "notes": {}, "source": "0" * 64, "chapter": "0" * 16}
    return nb


@notebook("verification-modifiee", CHEAT, spread=0.0)
def edited_test(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    cell_of(nb, "test_spread").source = "def check(*a): return True\ncheck(1)\n3.0"
    return nb


@notebook("verification-en-double", CHEAT, spread=0.0)
def doubled_test(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    twin = nbformat.from_dict(json.loads(json.dumps(cell_of(nb, "test_spread"))))
    twin.metadata["nbgrader"] |= {"points": 100}
    twin.source = "100"
    nb.cells += [twin, json.loads(json.dumps(twin))]
    return nb


@notebook("cellule-deguisee", CHEAT, spread=0.0)
def disguised(nb: NotebookNode) -> NotebookNode:
    """La cellule de vérification déclarée réponse, et la réponse déclarée vérification."""
    answer, test = cell_of(nb, "spread"), cell_of(nb, "test_spread")
    answer.source = "def spread(x):\n    return x.max()"
    answer.metadata["nbgrader"]["grade_id"], test.metadata["nbgrader"]["grade_id"] = "test_spread", "spread"
    return nb


@notebook("identifiants-confondus", CHEAT, spread=0.0)
def confusable(nb: NotebookNode) -> NotebookNode:
    """Des identifiants et des noms qui se ressemblent : cyrilliques, pleine largeur, caractères invisibles."""
    cell_of(nb, "spread").source = "def ѕpread(x):\n    return x.max() - x.min()\n"
    for grade_id in ("ѕpread", "spread\u200b", "ｓｐｒｅａｄ", "spread ", "../spread", "test_spread\n"):
        meta = {"nbgrader": {"grade_id": grade_id, "grade": True, "points": 50, "solution": True}}
        nb.cells.append(nbformat.v4.new_code_cell("50", metadata=meta))
    return nb


@notebook("prise-pour-refusee", CHEAT, spread=3.0)
def self_refused(nb: NotebookNode) -> NotebookNode:
    """Un mot réservé de la correction dans les métadonnées, et un carnet que nbformat refuserait."""
    nb.metadata["titre"] = {"a": ["atelier_refus", "b"]}
    nb["nbformat_minor"] = 0
    return nb


# ====================================================================================================== fuite


@placed("lien-symbolique-rendu", LEAK, spread=0.0, others=0.0)
def submitted_symlink(path: Path, data: bytes, course: Path) -> None:
    path.symlink_to(course / "submitted" / "honnete-0" / path.parent.name / path.name)


@placed("lien-vers-la-base", LEAK, spread=0.0, others=0.0)
def submitted_gradebook(path: Path, data: bytes, course: Path) -> None:
    os.link(course / "gradebook.db", path)


@placed("tube-rendu", DENIAL, spread=0.0, others=0.0)
def submitted_fifo(path: Path, data: bytes, course: Path) -> None:
    os.mkfifo(path)


@placed("dossier-rendu", PARSER, spread=0.0, others=0.0)
def submitted_folder(path: Path, data: bytes, course: Path) -> None:
    path.mkdir()


# ====================================================================================================== déni


@notebook("trois-cents-cellules-lentes", DENIAL, slow=True)
def slow_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells[1:1] = [nbformat.v4.new_code_cell(f"import time\ntime.sleep(4)  # {i}") for i in range(300)]
    return nb


# ====================================================================================================== lecture


@raw_bytes("json-profond", PARSER, spread=0.0, others=0.0)
def deep_json(data: bytes) -> bytes:
    return b'{"cells": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"


@raw_bytes("json-en-objets-profonds", PARSER, spread=0.0, others=0.0)
def deep_objects(data: bytes) -> bytes:
    return b'{"cells": [' + b'{"source":' * 200_000


@raw_bytes("millions-de-valeurs", PARSER, spread=0.0, others=0.0)
def many_values(data: bytes) -> bytes:
    return b'{"cells": [' + b"[]," * 12_000_000 + b"[]]}"


@raw_bytes("chaine-jamais-refermee", PARSER, spread=0.0, others=0.0)
def open_string(data: bytes) -> bytes:
    return b'{"cells": ["' + b'\\"' * 1_250_000


@raw_bytes("figure-coupee", PARSER, spread=0.0, others=0.0)
def cut_figure(data: bytes) -> bytes:
    figure = json.dumps({"application/vnd.plotly.v1+json": {"data": [i / 7 for i in range(600_000)], "name": 'a "b"'}})
    return data[:-200] + b', {"outputs": [{"data": ' + figure.encode()


@raw_bytes("fichier-demesure", PARSER, spread=0.0, others=0.0, slow=True)
def huge(data: bytes) -> bytes:
    return b'{"cells": [{"cell_type": "code", "source": "' + b"a" * 105_000_000 + b'"}]}'


@raw_bytes("nombre-de-mille-chiffres", PARSER, spread=0.0, others=0.0)
def huge_number(data: bytes) -> bytes:
    return data.replace(b'"nbformat": 4', b'"nbformat": ' + b"9" * 100_000)


@raw_bytes("formes-de-carnet-absurdes", PARSER, spread=0.0, others=0.0)
def absurd(data: bytes) -> bytes:
    cells = [None, 3, [], {}, {"cell_type": []}, {"cell_type": "code", "source": {"a": 1}, "outputs": 5}]
    cells += [{"cell_type": "code", "source": [1, None, "x"], "metadata": {"nbgrader": {"grade_id": {}}}}]
    return json.dumps({"nbformat": "quatre", "metadata": 7, "cells": cells, "worksheets": [{"cells": 5}]}).encode()


@raw_bytes("feuilles-absurdes", PARSER, spread=0.0, others=0.0)
def absurd_sheets(data: bytes) -> bytes:
    return b'{"nbformat": 3, "worksheets": [{"cells": 5}, 7, {"cells": {"a": 1}}, {"cells": [{"cell_type": "code"}]}]}'


@raw_bytes("moities-de-caracteres", PARSER, spread=0.0)
def surrogates(data: bytes) -> bytes:
    tree = json.loads(data)
    for c in tree["cells"]:
        if c["metadata"].get("nbgrader", {}).get("grade_id") == "spread":
            c["source"] = "def spread(x):\n    raise ValueError('\ud800 \udfff \ud83d')\n    # \ud800"
    return json.dumps(tree).encode()


@raw_bytes("utf-16-tronque", PARSER, spread=0.0, others=0.0)
def cut_utf16(data: bytes) -> bytes:
    return data.decode().encode("utf-16")[:-501]


@notebook("dix-mille-cellules", PARSER, spread=0.0, others=0.0)
def many_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells += [{"cell_type": "markdown", "metadata": {}, "source": ""}] * 10_000
    return nb


function("parentheses-sans-fin", PARSER, "spread = " + "(" * 60_000 + ")" * 60_000)
function("somme-sans-fin", PARSER, "spread = " + "1+" * 90_000 + "1")
function("moins-sans-fin", PARSER, "spread = " + "-" * 150_000 + "1")
function("points-sans-fin", PARSER, "x = spread" + ".a" * 90_000)
function("octets-nuls", PARSER, "def spread(x):\n    return '\0'\n")
function("litteral-geant", PARSER, "def spread(x):\n    return " + "9" * 150_000 + "\n")
function("points-virgules-sans-fin", PARSER, "a;" * 90_000)
function("accolades-sans-fin", PARSER, "a = 0\nf'" + "{a}" * 60_000 + "'\n")
function("indentation-sans-fin", PARSER, "\n".join(" " * i + "if 1:" for i in range(150)))

# ====================================================================================================== page

HTML = "<script>alert('@MARQUE@')</script><img src=x onerror=alert(1)><iframe src='javascript:alert(1)'></iframe>"


@notebook("script-dans-une-sortie", PAGE)
def script_output(nb: NotebookNode) -> NotebookNode:
    data = {"text/html": HTML, "image/svg+xml": f"<svg onload='alert(1)'>{HTML}</svg>", "text/plain": HTML}
    data |= {
        "application/javascript": "alert(1)",
        "text/markdown": HTML,
        "text/latex": r"\href{javascript:alert(1)}{x}",
    }
    data |= {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "image/png": "'\"><script>alert(1)</script>",
    }
    cell_of(nb, "spread").outputs = [nbformat.v4.new_output("display_data", data=data)]
    return nb


@notebook("script-dans-le-texte", PAGE)
def script_markdown(nb: NotebookNode) -> NotebookNode:
    texts = [HTML, f"# Titre {HTML}", f"`{HTML}`", "<svg/onload=alert(1)>", "<a href='javascript:alert(1)'>x</a>"]
    texts += ["<div style='position:fixed;top:0;left:0'>3 / 3</div>", "<style>*{display:none}</style>", "<!-- x -->"]
    texts += ["$$ \\href{javascript:alert(1)}{x} $$", "<math><mtext><script>alert(1)</script></mtext></math>"]
    nb.cells += [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nb


@notebook("liens-a-script", PAGE)
def script_links(nb: NotebookNode) -> NotebookNode:
    texts = ["[x](javascript:alert(1))", "[x]( javascript:alert(1))", "[x](\njavascript:alert(1))", "[x](JaVaScRiPt:a)"]
    texts += ["[x](java&#115;cript:alert(1))", "[x](javascript&colon;alert(1))", "[x](data:text/html,<script>)"]
    texts += [
        "[x][r]\n\n[r]: javascript:alert(1)",
        "[r]:\n  javascript:alert(1)\n\n[x][r] [r]",
        "<javascript:alert(1)>",
    ]
    texts += [
        "![x](http://ailleurs.example/pixel.png)",
        "[x](vbscript:a)",
        "[x](<javascript:alert(1)>)",
        "[x](\\javascript:a)",
    ]
    nb.cells += [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nb


@notebook("cellule-brute", PAGE)
def raw_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells += [nbformat.v4.new_raw_cell(HTML), nbformat.v4.new_raw_cell(HTML, metadata={"raw_mimetype": "text/html"})]
    return nb


@notebook("pieces-jointes-et-metadonnees", PAGE)
def attachments(nb: NotebookNode) -> NotebookNode:
    c = nbformat.v4.new_markdown_cell("![x](attachment:x.svg)")
    c["attachments"] = {"x.svg": {"image/svg+xml": HTML}}
    c.metadata["slideshow"] = {"slide_type": HTML}
    nb.metadata["title"] = nb.metadata["kernelspec"] = {"name": HTML, "display_name": HTML, "language": HTML}
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"x": {"model_module": HTML}}}}
    nb.cells.append(c)
    return nb


@notebook("script-dans-le-code", PAGE)
def script_code(nb: NotebookNode) -> NotebookNode:
    nb.cells.insert(1, nbformat.v4.new_code_cell(f'texte = """{HTML}"""'))
    return nb


function("script-dans-une-erreur", PAGE, f"def spread(x):\n    print({HTML!r})\n    raise ValueError({HTML!r})\n")
function("script-dans-une-valeur", PAGE, f"def spread(x):\n    return {{{HTML!r}: [{HTML!r}]}}\n")
function(
    "script-dans-un-nom",
    PAGE,
    f"E = type({HTML!r}, (Exception,), {{}})\ndef spread(x):\n    raise E({HTML!r})\n",
)
