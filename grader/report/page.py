"""La page du bilan : de quoi remplir `templates/bilan.html.j2`.

Tout texte venu d'une copie ou d'un nom est échappé par le gabarit, et nettoyé par `clean` : la page d'un enseignant
n'exécute rien.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atelier import paths
from atelier.text import long_date, number, percent
from grader.classroom.course import TEMPLATES
from grader.report import view
from grader.report.analysis import Sheet
from grader.report.similarity import MIN_TOKENS

MAX_SOURCE_LINES = 60


def clean(value: Any) -> Any:
    """Un texte sans caractères de commande ni de sens d'écriture ; autre chose, tel quel."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(c for c in value if c in "\n\t\u00a0\u202f" or c.isprintable())


def cut(source: str) -> str:
    lines = source.strip("\n").split("\n")
    return "\n".join(lines[:MAX_SOURCE_LINES] + ["…"] * (len(lines) > MAX_SOURCE_LINES))


def templates() -> Environment:
    """Les gabarits de nos pages : tout y est nettoyé, puis échappé ; un nom inconnu est une erreur."""
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": number, "cut": cut}
    pages.filters["percent"] = lambda share: percent(share, decimals=0)
    return pages


def render_page(sheet: Sheet) -> str:
    """La page entière."""
    out_of = paths.course()["mark_out_of"]
    rows = {row.student: row for row in sheet.rows}
    pairs = []
    for pair in sheet.pairs:
        first, second = rows[pair.first], rows[pair.second]
        closest = max(pair.exercises, key=lambda id: (pair.exercises[id], len(first.sources[id])))
        pairs.append({"first": first, "second": second, "exercises": pair.exercises, "closest": closest})
    return (
        templates()
        .get_template("bilan.html.j2")
        .render(
            about=view,
            said=view.view(sheet),
            sheet=sheet,
            course=paths.course()["title"],
            today=long_date(date.today()),
            out_of=out_of,
            bars=bars(sheet.marks, float(out_of)),
            min_tokens=MIN_TOKENS,
            pairs_found=pairs,
            everyone=view.all_marks(sheet),
        )
    )


def bars(marks: Sequence[float], out_of: float, bins: int = 10) -> list[dict[str, Any]]:
    """L'histogramme des notes : une barre par tranche."""
    counts = [0] * bins
    for mark in marks:
        counts[min(bins - 1, int(bins * max(0.0, mark) / out_of))] += 1
    found = []
    for i, many in enumerate(counts):
        low, high = (number(out_of / bins * edge) for edge in (i, i + 1))
        bar = {"x": 40 + 56 * i, "height": 90 * many / (max(counts) or 1), "count": many}
        found.append({**bar, "range": f"{low}–{high}", "text": f"{many} de {low} à {high}"})
    return found
