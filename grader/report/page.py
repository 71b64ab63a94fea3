"""La page du bilan : un seul fichier HTML, sans script, lisible hors ligne, imprimable.

Tout texte venu d'une copie ou d'un nom passe par `esc` : la page d'un enseignant n'exécute rien.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import date

from atelier import paths
from atelier.text import NBSP, THIN, long_date, number, percent, plural
from grader.classroom.grading import VERDICTS
from grader.classroom.marks import decimal
from grader.report.analysis import MIN_FOR_ITEMS, Item, Need, Row, Sheet, items, needs
from grader.report.similarity import MIN_TOKENS, Pair

MAX_SOURCE_LINES = 60
WEAK = 0.2
"""Discrimination sous laquelle un exercice ne distingue guère les étudiants."""

STYLE = """
:root { --encre: #1b1b1f; --gris: #5b5b66; --trait: #d6d6dd; --fond: #f5f5f8; --bleu: #2b5c8a; --ocre: #b4601b; }
* { box-sizing: border-box; }
body { font: 16px/1.5 "DejaVu Sans", Verdana, sans-serif; color: var(--encre); margin: 0 auto; max-width: 62rem;
  padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 2px solid
  var(--trait); padding-bottom: .2rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; } .gris { color: var(--gris); } nav a { margin-right: 1rem; } a { color: var(--bleu); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--trait); vertical-align: top; }
th { color: var(--gris); font-weight: 600; } td.n, th.n { text-align: right; white-space: nowrap; }
pre { background: var(--fond); border: 1px solid var(--trait); padding: .6rem; overflow: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .8rem/1.4 "DejaVu Sans Mono", monospace; margin: .3rem 0; }
.alerte { border-left: 4px solid var(--ocre); padding: .3rem .8rem; background: var(--fond); margin: .8rem 0; }
.barre { display: inline-block; height: .8rem; background: var(--bleu); vertical-align: middle; }
.jauge { display: inline-block; width: 7rem; background: var(--fond); border: 1px solid var(--trait); height: .9rem;
  line-height: 0; }
.cote { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; } .cote > div { min-width: 0; }
svg text { font: 12px "DejaVu Sans", Verdana, sans-serif; fill: var(--encre); }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; }
  h2, h3 { break-after: avoid; } tr, pre, .alerte { break-inside: avoid; } a { color: inherit; text-decoration: none; }
  .barre, .jauge, svg rect { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
@media (max-width: 45rem) { .cote { grid-template-columns: 1fr; } }
"""


def esc(text: object) -> str:
    """Texte sans danger dans la page, caractères de commande et de sens d'écriture ôtés."""
    kept = (c for c in str(text) if c in "\n\t" or (c.isprintable() or c in "\u00a0\u202f"))
    return html.escape("".join(kept), quote=True)


def render_page(sheet: Sheet) -> str:
    """La page entière."""
    found = items(sheet)
    helped = needs(sheet)
    sections = [
        ("notes", "Les notes", distribution(sheet)),
        ("exercices", "Les exercices, du moins au mieux réussi", exercises(found)),
        ("idees", "Les idées fausses", misconceptions(found)),
        ("aide", "Qui a besoin d'aide", help_table(sheet, helped)),
        ("copies", "Copies absentes, refusées, réparées ou exécutées en partie", copies(sheet)),
        ("changees", "Notes changées à la main ou par un retard", differences(sheet)),
        ("ressemblances", "Ressemblances entre réponses", similarities(sheet, sheet.pairs)),
        ("tous", "Toutes les notes", marks_table(sheet)),
    ]
    title = paths.chapter_titles().get(sheet.assignment, sheet.assignment)
    parts = [
        "<!doctype html>",
        '<html lang="fr"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Bilan, {esc(sheet.assignment)}</title><style>{STYLE}</style></head><body>",
        f"<h1>Bilan de {esc(title)}</h1>",
        f'<p class="gris">{esc(sheet.assignment)}, {esc(paths.course()["title"])}, le {long_date(date.today())}. '
        "Cette page contient des noms et des notes\u00a0: elle est pour qui enseigne.</p>",
        "<nav>" + "".join(f'<a href="#{id}">{esc(name)}</a>' for id, name, _ in sections) + "</nav>",
        alarm(found),
    ]
    parts += [f'<section id="{id}"><h2>{esc(name)}</h2>{text}</section>' for id, name, text in sections]
    return "\n".join([*parts, "</body></html>", ""])




def gauge(share: float) -> str:
    """Une barre horizontale ; sa valeur est toujours écrite à côté."""
    width = max(0.0, min(1.0, share)) * 100
    return f'<span class="jauge" aria-hidden="true"><span class="barre" style="width:{round(width)}%"></span></span>'


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Un tableau. Les cellules sont du HTML déjà sûr ; numbers : colonnes de nombres."""
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        kind = [' class="n"' if i in right else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{c}</{tag}>" for c, k in zip(cells, kind, strict=True)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


# ---------------------------------------------------------------------------------------------- sections


def alarm(found: Sequence[Item]) -> str:
    """Ce qu'il faut reprendre devant toute la classe."""
    lost = [item for item in found if item.not_understood]
    if not lost:
        return '<p class="alerte">Aucun exercice n\'a arrêté la classe.</p>'
    lines = []
    for item in lost:
        text = f"<b>{esc(item.exercise)}</b>{NBSP}: {percent(item.ease, decimals=0)} des points en moyenne"
        if item.mistakes and item.mistakes[0].times > 1:
            first = item.mistakes[0]
            text += f"{THIN}; {plural(first.times, 'copie', 'copies')} ont la même idée fausse. "
            text += f"<i>{esc(first.sentence)}</i>"
        lines.append(f"<li>{text}</li>")
    return f'<div class="alerte"><b>À reprendre devant la classe</b><ul>{"".join(lines)}</ul></div>'


def distribution(sheet: Sheet) -> str:
    """Moyenne, médiane, étendue et histogramme."""
    marks = sheet.marks
    out_of = paths.course()["mark_out_of"]
    n = len(marks)
    middle = (marks[n // 2] + marks[(n - 1) // 2]) / 2
    text = (
        f"{plural(n, 'copie notée', 'copies notées')}, sur {out_of}{NBSP}: moyenne {decimal(sum(marks) / n)}, "
        f"médiane {decimal(middle)}, de {decimal(marks[0])} à {decimal(marks[-1])}."
    )
    return f"<p>{text}</p>{histogram(marks, float(out_of))}"


def histogram(marks: Sequence[float], out_of: float, bins: int = 10) -> str:
    """Nombre de copies par tranche de note."""
    counts = [0] * bins
    for mark in marks:
        counts[min(bins - 1, int(bins * max(0.0, mark) / out_of))] += 1
    top = max(counts) or 1
    step = out_of / bins
    bars, alt = [], []
    for i, count in enumerate(counts):
        height = 150 * count / top
        x = 40 + 56 * i
        low, high = number(step * i), number(step * (i + 1))
        bars.append(
            f'<rect x="{x}" y="{round(170 - height, 1)}" width="50" height="{round(height, 1)}" fill="#2b5c8a"/>'
        )
        bars.append(f'<text x="{x + 25}" y="{round(164 - height, 1)}" text-anchor="middle">{count or ""}</text>')
        bars.append(f'<text x="{x + 25}" y="188" text-anchor="middle">{low}–{high}</text>')
        if count:
            alt.append(f"{count} de {low} à {high}")
    label = f"Répartition des notes sur {number(out_of)}{NBSP}: {', '.join(alt)}."
    return (
        f'<svg viewBox="0 0 620 216" role="img" aria-label="{esc(label)}" width="100%">'
        f'<line x1="36" y1="170" x2="604" y2="170" stroke="#5b5b66"/>{"".join(bars)}'
        f'<text x="320" y="210" text-anchor="middle">note sur {number(out_of)} (au-dessus des barres\u00a0: '
        "nombre de copies)</text></svg>"
    )


def exercises(found: Sequence[Item]) -> str:
    """Réussite, discrimination et verdicts de chaque exercice."""
    rows = []
    for item in found:
        verdicts = ", ".join(f"{VERDICTS[v]}{NBSP}×{NBSP}{item.verdicts[v]}" for v in VERDICTS if item.verdicts[v])
        rows.append(
            (
                f"<b>{esc(item.exercise)}</b>",
                f"{gauge(item.ease)} {percent(item.ease, decimals=0)}",
                f"{item.full}{NBSP}/{NBSP}{item.copies}",
                f"{decimal(item.mean)}{NBSP}/{NBSP}{number(item.points)}",
                decimal(item.discrimination),
                esc(verdicts),
            )
        )
    header = ("exercice", "points obtenus", "tout juste", "moyenne", "discrimination", "verdicts")
    weak = [i.exercise for i in found if i.discrimination is not None and i.discrimination < WEAK]
    notes = [
        "<p class='gris'>La discrimination est la corrélation entre les points de cet exercice et ceux de tous les "
        f"autres. Au-dessus de {number(WEAK)}, il distingue qui a compris de qui n'a pas compris\u202f; négative, "
        f"son énoncé ou ses cas sont à relire. Elle n'est pas calculée sur moins de {MIN_FOR_ITEMS} copies, ni quand "
        "tout le monde a les mêmes points.</p>"
    ]
    if weak:
        notes.append(f"<p>Distinguent peu{NBSP}: {esc(', '.join(weak))}.</p>")
    return grid(header, rows, (2, 3, 4)) + "".join(notes)


def misconceptions(found: Sequence[Item]) -> str:
    """Chaque idée fausse rencontrée, sa phrase, et une réponse anonyme."""
    met = sorted(((m, item) for item in found for m in item.mistakes), key=lambda pair: -pair[0].times)
    if not met:
        return "<p>Aucune idée fausse connue n'a été reconnue.</p>"
    parts = []
    for mistake, item in met:
        share = f"{plural(mistake.times, 'copie', 'copies')} sur {item.copies}"
        parts.append(f"<h3>{esc(item.exercise)}, {esc(mistake.name)}{NBSP}: {share}</h3><p>{esc(mistake.sentence)}</p>")
        if mistake.example:
            parts.append(f"<pre>{esc(mistake.example)}</pre>")
    note = "<p class='gris'>Les réponses montrées sont sans nom et sans commentaires, réécrites par Python.</p>"
    return note + "".join(parts)


def who(row: Row) -> str:
    return f"{esc(row.name)} ({esc(row.student)})" if row.name else esc(row.student)


def help_table(sheet: Sheet, helped: Sequence[Need]) -> str:
    """Les étudiants qui ont moins de la moitié des points."""
    if not helped:
        return "<p>Toutes les copies lisibles ont au moins la moitié des points.</p>"
    rows = [(who(need.row), decimal(need.mark), esc("\u202f; ".join(need.why))) for need in helped]
    return grid(("étudiant", f"note sur {paths.course()['mark_out_of']}", "ce qui manque"), rows, (1,))


def copies(sheet: Sheet) -> str:
    """Ce qui n'a pas pu être lu tel quel, et pourquoi."""
    absent = [who(row) for row in sheet.rows if row.score is None]
    refused = [(who(row), esc(row.refused)) for row in sheet.graded if row.refused]
    repaired = [(who(row), esc(" ".join(row.notes))) for row in sheet.graded if row.notes and not row.refused]
    parts = []
    if refused:
        parts += ["<h3>Refusées</h3>", grid(("étudiant", "raison"), refused)]
    if absent:
        parts.append(f"<h3>Rien reçu ({len(absent)})</h3><p>{', '.join(absent)}</p>")
    if repaired:
        parts += ["<h3>Réparées, ou exécutées en partie, puis notées</h3>", grid(("étudiant", "à savoir"), repaired)]
    return "".join(parts) or "<p>Toutes les copies attendues sont là et lisibles.</p>"


def differences(sheet: Sheet) -> str:
    """Ce qui sépare une note de la correction automatique."""
    rows = [
        (who(row), decimal(sheet.mark(row)), "<br>".join(map(esc, row.differences)))
        for row in sheet.graded
        if row.differences
    ]
    if not rows:
        return "<p>Toutes les notes sont celles de la correction automatique.</p>"
    return grid(("étudiant", f"note sur {paths.course()['mark_out_of']}", "ce qui a changé"), rows, (1,))


def similarities(sheet: Sheet, pairs: Sequence[Pair]) -> str:
    """Les paires de réponses les plus ressemblantes, côte à côte."""
    warning = (
        '<p class="alerte">Une ressemblance n\'est pas une preuve. Deux étudiants qui ont suivi le même cours, lu les '
        "mêmes indices ou travaillé ensemble, comme vous les y avez peut-être invités, écrivent parfois la même chose. "
        f"Sont comparées les réponses d'au moins {MIN_TOKENS} mots, noms de variables remplacés, sans la signature ni "
        "la docstring de l'énoncé\u202f; celles que beaucoup partagent sont laissées de côté. Lisez, puis "
        "parlez avec les deux.</p>"
    )
    if not pairs:
        return warning + "<p>Aucune paire de réponses longues ne se ressemble au point d'être signalée.</p>"
    rows = {row.student: row for row in sheet.rows}
    parts = [warning]
    for pair in pairs:
        first, second = rows[pair.first], rows[pair.second]
        likeness = ", ".join(f"{esc(id)} ({percent(s, decimals=0)})" for id, s in pair.exercises.items())
        parts.append(f"<h3>{who(first)} et {who(second)}{NBSP}: {likeness}</h3>")
        closest = max(pair.exercises, key=lambda id: (pair.exercises[id], len(first.sources[id])))
        sides = "".join(f"<div>{who(r)}<pre>{esc(cut(r.sources[closest]))}</pre></div>" for r in (first, second))
        parts.append(f'<p class="gris">{esc(closest)}</p><div class="cote">{sides}</div>')
    return "".join(parts)


def cut(source: str) -> str:
    lines = source.strip("\n").split("\n")
    return "\n".join(lines[:MAX_SOURCE_LINES] + ["…"] * (len(lines) > MAX_SOURCE_LINES))


def marks_table(sheet: Sheet) -> str:
    """Une ligne par étudiant."""
    rows = []
    for row in sheet.rows:
        scores = [decimal(row.scores.get(id)) for id in sheet.points]
        rows.append((who(row), decimal(sheet.mark(row)), *scores))
    header = ("étudiant", f"sur {paths.course()['mark_out_of']}", *map(esc, sheet.points))
    return f'<div style="overflow-x:auto">{grid(header, rows, range(1, len(header)))}</div>'
