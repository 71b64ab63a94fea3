"""Le bilan d'un devoir, dit une seule fois : les phrases et les tableaux que montrent la page et le terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from atelier import paths
from atelier.text import NBSP, THIN, number, percent, plural
from grader.classroom.course import title_of
from grader.classroom.grading import VERDICTS
from grader.classroom.marks import decimal, points_text
from grader.report.analysis import MIN_FOR_ITEMS, Item, Row, Sheet, items, needs

WEAK = 0.2
"""Discrimination sous laquelle un exercice ne distingue guère les étudiants."""

MOST_AGAIN = 5
"""Exercices à reprendre dont tout est dit en tête : la synthèse tient sur une feuille."""


@dataclass(frozen=True)
class Table:
    """Un tableau : ses en-têtes, ses lignes, écrites, et les colonnes qui s'alignent à droite."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Lesson:
    """Une idée fausse : sa ligne (exercice, nom, copies), sa phrase, une réponse anonyme qui la commet."""

    head: str
    sentence: str
    example: str


@dataclass(frozen=True)
class View:
    """Ce que le bilan dit, dans l'ordre où il le dit."""

    title: str
    again: list[tuple[str, str, str]]
    """À reprendre devant la classe : exercice, ce qu'en disent les points, phrase de l'idée fausse la plus vue."""
    also: str
    """Les autres exercices à reprendre, s'il y en a trop pour tout en dire d'abord."""
    exercises: Table
    eases: list[float]
    """Part moyenne des points de chacun de ces exercices, de 0 à 1."""
    weak: str
    pending: str
    """Les copies que quelqu'un doit encore noter ; "" s'il n'y en a pas."""
    marks: str
    lessons: list[Lesson]
    help: Table
    refused: list[tuple[str, str]]
    absent: list[str]
    repaired: list[tuple[str, str]]
    changed: list[tuple[str, str]]


NOTHING_AGAIN = "Aucun exercice n'a arrêté la classe."
NO_LESSON = "Aucune idée fausse connue n'a été reconnue."
NO_HELP = "Toutes les copies lisibles ont au moins la moitié des points."
ALL_READABLE = "Toutes les copies attendues sont là et lisibles."
NO_CHANGE = "Toutes les notes sont celles de la correction automatique."
SECTIONS = {
    "reprendre": "À reprendre devant la classe",
    "exercices": "Les exercices, du moins au mieux réussi",
    "notes": "Les notes",
    "idees": "Les idées fausses",
    "aide": "Qui a besoin d'aide",
    "copies": "Copies absentes, refusées, réparées ou exécutées en partie",
    "changees": "Notes changées à la main ou par un retard",
    "ressemblances": "Ressemblances entre réponses",
    "tous": "Toutes les notes",
}
"""Les parties du bilan, dans l'ordre."""


def who(row: Row) -> str:
    """« Ana Silva (ana) », ou l'identifiant seul."""
    return f"{row.name} ({row.student})" if row.name else row.student


def view(sheet: Sheet) -> View:
    """Le bilan de ces notes."""
    found = items(sheet)
    weak = [item.exercise for item in found if item.discrimination is not None and item.discrimination < WEAK]
    unclear = [item for item in found if item.not_understood]
    lessons = sorted(((i, m) for i in found for m in i.mistakes), key=lambda pair: -pair[1].times)
    return View(
        title=f"Bilan de {title_of(sheet.assignment)}",
        again=[again(item) for item in unclear[:MOST_AGAIN]],
        also=f"Et aussi{NBSP}: {', '.join(item.exercise for item in unclear[MOST_AGAIN:])}."
        if unclear[MOST_AGAIN:]
        else "",
        exercises=exercise_table(found),
        eases=[item.ease for item in found],
        weak=f"Distinguent peu les étudiants{NBSP}: {', '.join(weak)}." if weak else "",
        pending=f"À noter à la main, dans formgrader{NBSP}: {', '.join(map(who, sheet.pending))}."
        if sheet.pending
        else "",
        marks=marks(sheet),
        lessons=[
            Lesson(
                f"{item.exercise}, {mistake.name}{NBSP}: {plural(mistake.times, 'copie')} sur {item.copies}",
                mistake.sentence,
                mistake.example,
            )
            for item, mistake in lessons
        ],
        help=Table(
            ("étudiant", f"note sur {paths.course()['mark_out_of']}", "ce qui manque"),
            [(who(need.row), decimal(need.mark), f"{THIN}; ".join(need.why)) for need in needs(sheet)],
            frozenset({1}),
        ),
        refused=[(who(row), row.refused) for row in sheet.graded if row.refused],
        absent=[who(row) for row in sheet.rows if row.score is None],
        repaired=[(who(row), " ".join(row.notes)) for row in sheet.graded if row.notes and not row.refused],
        changed=[(who(row), text) for row in sheet.graded for text in row.differences],
    )


def again(item: Item) -> tuple[str, str, str]:
    """Ce qu'il faut reprendre d'un exercice."""
    said, first = f"{percent(item.ease, decimals=0)} des points en moyenne", item.mistakes[0] if item.mistakes else None
    if first is None or first.times < 2:
        return item.exercise, f"{said}.", ""
    return item.exercise, f"{said}{THIN}; {plural(first.times, 'copie')} ont la même idée fausse.", first.sentence


def exercise_table(found: Sequence[Item]) -> Table:
    """Un exercice par ligne ; une colonne par verdict rencontré."""
    met = [verdict for verdict in VERDICTS if verdict != "correct" and any(item.verdicts[verdict] for item in found)]
    header = ["exercice", "points obtenus", "tout juste", "moyenne", "discrimination", *(VERDICTS[v] for v in met)]
    rows = [
        [
            item.exercise,
            percent(item.ease, decimals=0),
            f"{item.full}{NBSP}/{NBSP}{item.copies}",
            f"{decimal(item.mean)}{NBSP}/{NBSP}{points_text(item.points)}",
            decimal(item.discrimination) or "—",
            *(str(item.verdicts[verdict] or "—") for verdict in met),
        ]
        for item in found
    ]
    return Table(header, rows, frozenset(range(1, len(header))))


def about_discrimination() -> str:
    """Ce que veut dire la colonne « discrimination »."""
    return (
        "La discrimination est la corrélation entre les points de cet exercice et ceux de tous les autres. Au-dessus "
        f"de {number(WEAK)}, il distingue qui a compris de qui n'a pas compris{THIN}; négative, son énoncé ou ses cas "
        f"sont à relire. Elle n'est pas calculée sur moins de {MIN_FOR_ITEMS} copies, ni quand tout le monde a les "
        "mêmes points."
    )


def marks(sheet: Sheet) -> str:
    """La phrase des notes ; "" si personne n'en a."""
    if not (found := sheet.marks):
        return ""
    shown = (statistics.fmean(found), statistics.median(found), found[0], found[-1])
    mean, median, low, high = (decimal(mark) for mark in shown)
    copies = plural(len(found), "copie notée", "copies notées")
    out_of = paths.course()["mark_out_of"]
    return f"{copies}, sur {out_of}{NBSP}: moyenne {mean}, médiane {median}, de {low} à {high}."


def all_marks(sheet: Sheet) -> Table:
    """Un étudiant par ligne : sa note, puis ses points à chaque exercice. Le terminal laisse cela à `notes.csv`."""
    header = ["étudiant", f"sur {paths.course()['mark_out_of']}", *sheet.points]
    rows = [
        [who(row), decimal(sheet.mark(row)), *(decimal(row.scores.get(id)) for id in sheet.points)]
        for row in sheet.rows
    ]
    return Table(header, rows, frozenset(range(1, len(header))))
