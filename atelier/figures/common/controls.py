"""Des réglages au-dessus d'une figure, quand la page est vivante ; la figure seule partout ailleurs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atelier import settings
from atelier.display import _figure_markup, show

Shown = tuple[str, str]
"""Ce qu'une fonction de dessin rend : du HTML, et le texte qui le remplace ailleurs."""


@dataclass(frozen=True)
class Slider:
    """Un curseur : valeur de départ, bornes, pas, légende."""

    value: float
    low: float
    high: float
    step: float
    label: str

    def widget(self) -> Any:
        import ipywidgets as w

        kind = w.IntSlider if isinstance(self.value, int) else w.FloatSlider
        bounds = {"min": self.low, "max": self.high, "step": self.step, "continuous_update": False}
        return kind(self.value, description=self.label, style={"description_width": "initial"}, **bounds)


@dataclass(frozen=True)
class Pick:
    """Un choix dans une liste : valeur de départ, options, légende."""

    value: Any
    options: Sequence[Any]
    label: str

    def widget(self) -> Any:
        import ipywidgets as w

        return w.Dropdown(
            value=self.value,
            options=self.options,
            description=self.label,
            style={"description_width": "initial"},
            layout=w.Layout(width="auto"),
        )


def live() -> bool:
    """Vrai dans un carnet ouvert, avec ipywidgets ; faux dans un terminal, une page exportée ou un enregistrement."""
    if settings.recording() or settings.without_widgets():
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def picture(fig: Any, alt: str) -> Shown:
    """Une figure matplotlib et son texte alternatif, pour une fonction de dessin."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    width = round(fig.get_figwidth() * 130 / 1.5)
    plt.close(fig)
    return _figure_markup(buffer.getvalue(), alt, width), f"[Figure] {alt}"


def show_live(widget: Any, shown: Shown) -> None:
    """Affiche un widget, avec du HTML figé pour les pages sans noyau et du texte pour les terminaux."""
    from IPython.display import display

    markup, text = shown
    if hasattr(widget, "_repr_mimebundle_"):
        display({**widget._repr_mimebundle_(), "text/html": markup, "text/plain": text}, raw=True)
    else:  # ipywidgets 7 s'affiche seul
        display(widget)


def explore(draw: Callable[..., tuple[Any, str]], **controls: Slider | Pick) -> None:
    """Montre la figure de draw(valeurs de départ) ; au-dessus, un réglage par paramètre, qui ne fait que rappeler draw.

    draw : rend (figure matplotlib, texte alternatif).
    """
    start = {name: c.value for name, c in controls.items()}
    if not live():
        show(*draw(**start))
        return
    import ipywidgets as w

    shown = picture(*draw(**start))
    image = w.HTML(shown[0])
    handles = {name: c.widget() for name, c in controls.items()}

    def redraw(_: Any) -> None:
        image.value = picture(*draw(**{name: h.value for name, h in handles.items()}))[0]

    for handle in handles.values():
        handle.observe(redraw, "value")
    row = w.HBox(list(handles.values()), layout=w.Layout(flex_flow="row wrap"))
    show_live(w.VBox([row, image]), shown)
