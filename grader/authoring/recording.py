"""`python cours.py mesures CHAPITRE [NOM…]` : faire tourner les expériences d'un chapitre, garder leurs résultats."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

from atelier import paths
from atelier.experiments import Experiment, fingerprint, load
from atelier.text import number
from grader import UserError, variables
from grader.authoring.chapters import Cell, Chapter, load_chapter
from grader.authoring.claims import result_state
from grader.cli import FrenchParser


def main(argv: list[str]) -> int:
    parser = FrenchParser("python cours.py mesures", "Refait et enregistre les expériences d'un chapitre.")
    parser.add_argument(
        "chapter",
        metavar="CHAPITRE",
        help="par exemple ch3_quantification ; « tableau » : les durées du tableau, d'un coup",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NOM", help="celles-là ; sans nom, celles qui manquent ou dont le texte a changé"
    )
    parser.add_argument(
        "--redo",
        action="store_true",
        help="toutes, et même à la place d'un résultat d'une plus grande échelle, ou d'une autre machine",
    )
    options = parser.parse_args(argv)
    if options.chapter == "tableau":
        from grader.authoring import board

        return board.main()
    chapter = load_chapter(options.chapter)
    known = {cell.id: cell for cell in chapter.cells if cell.kind == "experiment"}
    if unknown := [name for name in options.names if name not in known]:
        raise UserError(
            f"Expérience inconnue : {', '.join(unknown)}. Celles du chapitre : {', '.join(known) or 'aucune'}."
        )
    names = options.names or [n for n, cell in known.items() if options.redo or result_state(chapter, cell) != "à jour"]
    if not names:
        print("Tous les résultats sont à jour ; pour en refaire un, nommez-le.")
        return 0
    with variables(COURS_ENREGISTRER="1", COURS_MESURES="1"):  # ce qui s'inscrit au tableau l'est à celui de l'auteur
        space = prepared(chapter, names)
        for name in names:
            print(f"{name}…", flush=True)
            found = space[name]
            assert isinstance(found, Experiment)
            path, kept = found.record(chapter.name, fingerprint(known[name].source, name), options.redo)
            if kept is not None:
                print(f"  gardé tel quel : échelle « {kept.scale} », {kept.machine} (--redo le remplace)")
            else:
                print(f"  {path.relative_to(paths.root()).as_posix()} ({number(load(path).seconds, 3)} s)")
    return 0


def prepared(chapter: Chapter, names: list[str]) -> dict[str, Any]:
    """L'espace de noms où elles tourneront."""
    return chapter.execute(needed(chapter, lambda cell: cell.kind == "experiment" and cell.id in names))


def needed(chapter: Chapter, wanted: Callable[[Cell], bool], names: Iterable[str] = ()) -> list[Cell]:
    """Ces cellules, et ce qu'il leur faut : préparation, exercices, et les cellules qui écrivent ce qu'elles lisent.

    names : ce qu'on lira de plus.
    """
    used = set(names)
    kept: list[Cell] = []
    for cell in reversed(chapter.cells):
        always = cell.kind in ("setup", "exercise") or wanted(cell)
        if always or (cell.kind in ("code", "experiment") and written_names(cell) & used):
            kept.append(cell)
            used |= read_names(cell)
    return kept[::-1]


def read_names(cell: Cell) -> set[str]:
    """Les noms qu'une cellule lit, où que ce soit."""
    nodes = ast.walk(ast.parse(cell.source))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def written_names(cell: Cell) -> set[str]:
    """Les noms qu'une cellule définit ou importe au premier niveau."""
    found: set[str] = set()
    for node in ast.parse(cell.source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        loops = [part.target for part in ast.walk(node) if isinstance(part, ast.comprehension)]
        own = {id(name) for target in loops for name in ast.walk(target)}  # ceux d'une compréhension n'en sortent pas
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and id(inner) not in own:
                found.add(inner.id)
            elif isinstance(inner, ast.alias):
                found.add((inner.asname or inner.name).partition(".")[0])
    return found
