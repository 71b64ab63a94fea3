"""`python -m grader exercise new CHAPITRE NOM` : un exercice qui se construit, et qu'il n'y a plus qu'à remplacer."""

from __future__ import annotations

import keyword
from pathlib import Path

from atelier import paths
from atelier.paths import write_atomically
from grader import UserError
from grader.authoring.build import declared_chapters
from grader.authoring.chapters import load_chapter
from grader.cli import FrenchParser

_CELLS = '''

# %% [markdown]
# ### ✎ {name}


# %% exercise="{name}"
def {name}(x: float) -> float:
    """Le double de x.

    x : un nombre. Rend un nombre.

    Source : à donner.
    """
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
'''

_FILE = '''"""Exercice `{name}` du chapitre {number}."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw(d: Draw, group: str) -> Inputs:
    """Les entrées d'un cas caché : celles des bords d'abord, à tour de rôle, puis au hasard."""
    if group == "bords":
        return {{"x": d.turn([-1.0, 0.5, -0.25])}}
    return {{"x": d.uniform(3.0, 9.0)}}


exercise = Exercise(
    points=1,
    minutes=5,
    hints=[
        "Une question qui met sur la voie ?",
        "La formule, en dernier : x + x.",
    ],
    groups={{"courant": 0.7, "bords": 0.3}},
    draw=draw,
    examples=[{{"x": 3.0}}],
    tolerance=Tolerance(rtol=1e-6, why="une multiplication"),
)


misconceptions = """
squared   2 * x → x * x
    Votre résultat grandit trop vite : doubler, est-ce multiplier par soi-même ?

unchanged   2 * x → x
    Vous rendez x tel quel.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def {name}_sum(x):
    return x + x


def {name}_list(x):
    return sum([x, x])


def {name}_quotient(x):
    return x / 0.5


styles = [{name}_sum, {name}_list, {name}_quotient]
'''


def main(argv: list[str]) -> int:
    parser = FrenchParser("python -m grader exercise", "Commencer un exercice : son fichier, et sa cellule à la fin.")
    parser.add_argument("action", choices=["new"], metavar="new", help="créer")
    parser.add_argument("chapter", metavar="CHAPITRE", help="par exemple ch3_quantification")
    parser.add_argument("name", metavar="NOM", help="nom de la fonction, en lettres ASCII : absmax_scale")
    options = parser.parse_args(argv)
    for path in create(options.chapter, options.name, paths.root()):
        print(path)
    print(f"Remplacez l'exemple par le vôtre, puis construisez : python -m grader build {options.chapter}")
    return 0


def create(chapter: str, name: str, root: Path) -> list[Path]:
    """Écrit le fichier et la cellule de l'exercice, et rend leurs chemins. Lève `UserError` si le nom est pris."""
    known = declared_chapters(root)
    if chapter not in known:
        raise UserError(f"Chapitre inconnu : {chapter}. Chapitres écrits : {', '.join(known) or 'aucun'}.")
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UserError(f"« {name} » n'est pas un nom de fonction : des lettres ASCII, des chiffres, des tirets bas.")
    for other in known:
        if name in load_chapter(other, root).declared:
            raise UserError(f"`{name}` est déjà un exercice de {other} : prenez un autre nom.")
    folder = root / "solutions" / chapter
    text, file = folder / "chapter.py", folder / "exercises" / f"{name}.py"
    number = chapter.partition("_")[0].removeprefix("ch")
    longer = text.read_text(encoding="utf-8").rstrip("\n") + "\n" + _CELLS.format(name=name)
    write_atomically(file, _FILE.format(name=name, number=number).encode())
    write_atomically(text, longer.encode())
    return [file, text]
