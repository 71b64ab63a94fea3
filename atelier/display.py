"""Montrer : figures avec texte alternatif, tableaux accessibles, résultats de l'auteur tant qu'un exercice manque."""

from __future__ import annotations

import base64
import html
import io
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atelier.text import columns, drawn, graduation, typeset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 96
"""Largeur, en caractères, d'un message de check ou d'un indice."""


def _display(markup: str, text: str) -> None:
    """Affiche du HTML dans un carnet, le texte ailleurs."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(text)
    else:
        from IPython.display import display

        display({"text/html": markup, "text/plain": text}, raw=True)


def _figure_markup(png: bytes, alt: str, width: int) -> str:
    data = base64.b64encode(png).decode()
    style = f"max-width:100%;width:{width}px"
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}" style="{style}">'


def show(fig: Figure, alt: str) -> None:
    """Affiche une figure matplotlib avec son texte alternatif, puis la ferme.

    alt : ce que la figure montre, chiffres compris, pour qui ne la voit pas. Lève `ValueError` s'il est vide.
    La seule forme que JupyterLab et les pages exportées respectent toutes deux est une balise img écrite à la main.
    """
    if not alt.strip():
        raise ValueError("une figure a besoin d'un texte alternatif : show(fig, alt=« ce qu'elle montre »).")
    import matplotlib.pyplot as plt

    alt = typeset(alt)
    _french_ticks(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    plt.close(fig)
    png = buffer.getvalue()
    width = round(int.from_bytes(png[16:20], "big") / 1.5)
    _display(_figure_markup(png, alt, width), f"[Figure] {alt}")


def _french_ticks(fig: Figure) -> None:
    """Écrit en français les graduations que matplotlib écrit de lui-même ; il garde le choix de celles qu'il montre."""
    from matplotlib.ticker import Formatter, LogFormatter, ScalarFormatter

    class French(Formatter):
        def __init__(self, usual: Formatter) -> None:
            self.usual = usual

        def set_axis(self, axis: Any) -> None:
            self.usual.set_axis(axis)

        def set_locs(self, locs: Any) -> None:
            self.usual.set_locs(locs)

        def __call__(self, x: float, pos: int | None = None) -> str:
            return graduation(x) if self.usual(x, pos) else ""

    for axis in (axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)):
        if isinstance(usual := axis.get_major_formatter(), (LogFormatter, ScalarFormatter)):
            axis.set_major_formatter(French(usual))
        if isinstance(usual := axis.get_minor_formatter(), (LogFormatter, ScalarFormatter)):
            axis.set_minor_formatter(French(usual))


def wrapped(label: str, text: str, indent: int | None = None) -> str:
    """Un texte coupé aux espaces ordinaires, jamais aux insécables.

    indent : retrait des lignes suivantes ; sans lui, elles s'alignent sous la première.
    """
    parts = re.split(r"[ \n]+", text.strip())
    lines = [label + parts[0]]
    for word in parts[1:]:
        if len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(" " * (len(label) if indent is None else indent) + word)
    return "\n".join(lines)


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], caption: str = "") -> None:
    """Affiche un tableau : en-têtes de colonnes déclarés comme tels, nombres alignés à droite, version texte ailleurs.

    rows : lignes (la première cellule de chaque ligne est son en-tête). Les nombres d'une
    colonne sont écrits à la française et partagent leurs décimales (`atelier.text.column`).
    """
    written = columns(header, rows)
    cells = list(zip(*(column for column, _ in written), strict=True))
    style = ["text-align:right" if right else "text-align:left" for _, right in written]
    heads = [f'<th scope="col" style="{s}">{html.escape(h)}</th>' for h, s in zip(header, style, strict=True)]
    head = "".join(th if h else "<td></td>" for th, h in zip(heads, header, strict=True))
    body = "".join(
        "<tr>"
        + f'<th scope="row" style="font-weight:normal;{style[0]}">{html.escape(line[0])}</th>'
        + "".join(f'<td style="{s}">{html.escape(c)}</td>' for c, s in zip(line[1:], style[1:], strict=True))
        + "</tr>"
        for line in cells
    )
    caption = typeset(caption)
    title = f'<caption style="text-align:left;caption-side:top">{html.escape(caption)}</caption>' if caption else ""
    markup = f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    lines = drawn(header, written)
    text = "\n".join([caption, *lines] if caption else lines)
    _display(markup, text)


def note(text: str) -> None:
    """Affiche une phrase, composée."""
    text = typeset(text)
    markup = f"<p>{html.escape(text)}</p>"
    _display(markup, text)


def authors_result(names: Sequence[str], about: str = "") -> None:
    """Annonce que ce qui suit est à l'auteur, jusqu'à ce que les exercices `names` passent. about : d'où cela vient."""
    plural = len(names) > 1
    which = " et ".join(f"`{n}`" for n in names)
    label = "Résultat de l'auteur."
    verb = "passeront leur" if plural else "passera son"
    sentence = typeset(f"Il deviendra le vôtre quand {which} {verb} check ; relancez alors cette cellule.")
    about = typeset(about)
    style = "border-left:4px solid #0072B2;padding-left:.6em"
    rich = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(sentence))
    small = f"<br><small>{html.escape(about)}</small>" if about else ""
    _display(
        f'<p style="{style}"><strong>{label}</strong> {rich}{small}</p>',
        f"{label} {sentence}" + (f" ({about})" if about else ""),
    )
