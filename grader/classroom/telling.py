"""Ce que l'exécution d'une copie apprend, dit à l'étudiant et à l'enseignant : ce qui a été passé, ce qui est noté.

Rien n'y compte pour la note. Les faits viennent de la copie, qui peut mentir ; les textes cités, de ses cellules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.text import NBSP, THIN, legible, number, plural
from grader.jail.outside.dialogue import CodeCell, Passed, Report, TaskReport

SHOWN = 3
"""Instructions passées que l'on cite, par exercice et pour la copie ; les autres sont comptées."""
NOT_HERE = re.compile(r"(ModuleNotFound|Import|FileNotFound|Permission|Connection|Timeout|URL|HTTP|OS|EOF|Memory)Error")
"""Ce qui tient à la machine où l'on corrige plutôt qu'à ce que l'étudiant a écrit."""
_CARD = re.compile(r"cuda|nvidia|\bmps\b|\bgpu\b", re.IGNORECASE)

LEFT = {
    "gone": "ce nom est effacé plus loin",
    "value": "ce nom désigne plus loin une valeur, qui ne s'appelle pas",
    "stub": "l'énoncé est recopié plus loin",
}


def quoted(text: str, limit: int = 60) -> str:
    """« texte », sur une ligne, coupé."""
    text = text.strip()
    return f"«{NBSP}{legible(text, limit)}{'…' if len(text) > limit else ''}{NBSP}»"


def title(cell: CodeCell) -> str:
    """La cellule telle que l'étudiant la reconnaît : par sa première ligne."""
    first = next((line for line in cell.source.split("\n") if line.strip()), "")
    return f"la cellule qui commence par {quoted(first)}"


def cause(cell: CodeCell, passed: Passed) -> str:
    """Pourquoi cette instruction a été passée."""
    if passed.status == "died":
        return "elle arrête Python d'un coup"
    if passed.status == "timeout":
        if not passed.line:
            return "le temps des cellules ajoutées est dépensé"
        return f"interrompue, elle dépasse {number(cell.seconds, unit='secondes')}"
    said = f"{passed.error}{NBSP}: {passed.message}" if passed.error and passed.message else passed.error
    return said or passed.message or "erreur"


def sentence(cell: CodeCell, passed: Passed, own: bool) -> str:
    """Une instruction passée : la cellule, la ligne, pourquoi, et ce qui manque de ce fait."""
    where = "sa cellule" if own else title(cell)
    lines = cell.source.split("\n")
    if 0 < passed.line <= len(lines):
        text = f"dans {where}, la ligne {passed.line}, {quoted(lines[passed.line - 1])}, n'a pas été exécutée"
    elif passed.status == "timeout":
        text = f"dans {where}, seules les définitions ont été exécutées"
    else:
        text = f"{where} n'a pas été exécutée"
    text += f" ({cause(cell, passed)})"
    if passed.lost:
        names = ", ".join(f"«{NBSP}{name}{NBSP}»" for name in passed.lost)
        missing = "n'y sont pas définis" if len(passed.lost) > 1 else "n'y est pas défini"
        text += f"{THIN}; {names} {missing}"
    return f"{text}."


def sentences(found: Sequence[tuple[CodeCell, Passed]], own: str = "") -> list[str]:
    """Les premières, et le nombre des autres. own : l'exercice dont « sa cellule » désigne la cellule."""
    texts = [sentence(cell, passed, cell.exercise == own != "") for cell, passed in found[:SHOWN]]
    more = len(found) - SHOWN
    if more > 0:
        texts.append(f"{plural(more, 'autre ligne', 'autres lignes')} dans le même cas.")
    return texts


@dataclass(frozen=True)
class Telling:
    """Une copie exécutée : ses cellules, et leur compte rendu."""

    cells: Mapping[str, CodeCell]
    report: Report

    def exercise(self, id: str, verdict: str) -> list[str]:
        """Ce qu'il faut savoir d'un exercice : ce qui est noté, ce qui manque à sa cellule, ou à son échec."""
        task = self.report.tasks[id]
        return self.kept(task) + sentences(self.concerning(id, verdict), id)

    def concerning(self, id: str, verdict: str) -> list[tuple[CodeCell, Passed]]:
        """Ce qui a été passé dans ses cellules ; et, s'il n'est pas juste, ailleurs mais qui lui manque peut-être."""
        task = self.report.tasks[id]
        mine = [cell for cell in self.cells.values() if cell.exercise == id or cell.id == task.cell]
        words: set[str] = set()
        if verdict != "correct":
            texts = [str(outcome.get("message", "")) for outcome in task.outcomes[:3]]
            words = {id, *re.findall(r"\w+", " ".join([*texts, *(cell.source for cell in mine)]))}
        ids = {cell.id for cell in mine}
        return [(c, p) for c, p in self._passed() if c.id in ids or words.intersection(p.lost)]

    def kept(self, task: TaskReport) -> list[str]:
        """Laquelle de plusieurs versions est notée."""
        texts = []
        cell = self.cells.get(task.cell)
        where = f", dans {title(cell)}" if cell else ""
        if task.left:
            texts.append(f"{LEFT[task.left]}{THIN}; est notée la dernière fonction ou classe de ce nom{where}.")
        if task.differs:
            texts.append(
                f"deux versions différentes dans le carnet{NBSP}: est notée celle que laisse son exécution "
                f"de haut en bas{where}, et non celle de la cellule de l'exercice."
            )
        return texts

    def copy(self, verdicts: Mapping[str, str]) -> list[str]:
        """Ce qui, ailleurs, ne peut pas s'exécuter à la correction, et que les exercices n'ont pas déjà dit."""
        told = {(c.id, p) for id, verdict in verdicts.items() for c, p in self.concerning(id, verdict)}
        return sentences([(c, p) for c, p in self._passed() if (c.id, p) not in told and not own_fault(p)])

    def _passed(self) -> list[tuple[CodeCell, Passed]]:
        reports = self.report.cells
        ran = [cell for cell in self.cells.values() if cell.kind != "setup" and cell.id in reports]
        return [(cell, passed) for cell in ran for passed in reports[cell.id].passed]


def own_fault(passed: Passed) -> bool:
    """Vrai si cette erreur serait aussi venue chez l'étudiant."""
    return bool(passed.error) and not (NOT_HERE.search(passed.error) or _CARD.search(passed.message))
