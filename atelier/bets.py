"""Un pari avant d'exécuter : ce que vous aviez parié est gardé, et montré à côté du résultat.

`bet` pose la question, `settle` donne la réponse mesurée. Jamais noté. Sans boutons, on parie par
`bet("nom", guess=3)`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from atelier import journal, settings
from atelier.display import _display, note
from atelier.quizzes import announce, plain, rich, show_widget
from atelier.text import number, typeset

Guess = float | str


def bet(name: str, question: str = "", options: Sequence[str] = (), guess: Guess | None = None) -> None:
    """Pose le pari `name`. options : les réponses proposées ; sans elles, on parie un nombre. guess : parie aussitôt.

    Lève `ValueError` si `guess` n'est ni un nombre, ni une des options.
    """
    if guess is not None:
        _keep(name, guess, options)
        print(typeset(f"Pari gardé : {_said(guess)}."))
        return
    asked = typeset(question)
    known = guessed(name)
    listed = f"<ul>{''.join(f'<li>{rich(o)}</li>' for o in options)}</ul>" if options else ""
    page, text = f"<p>{rich(asked)}</p>{listed}", "\n".join([plain(asked), *(f"  - {plain(o)}" for o in options)])
    if settings.recording():
        _display(page, text)
        return

    def build(widgets: Any) -> Any:
        return build_widget(name, asked, options, known, widgets)

    if not show_widget(build, page, text):
        call = f'bet("{name}", guess="{options[0]}")' if options else f'bet("{name}", guess=3.5)'
        before = typeset(f"Votre pari : {_said(known)}.") if known is not None else ""
        how = typeset(f"Pariez par <code>{html.escape(call)}</code>.")
        told = [line for line in (text, before, f"Pariez par {call}.") if line]
        _display(page + f"<p>{html.escape(before)} {how}</p>", "\n".join(told))


def settle(name: str, measured: Guess) -> None:
    """Montre, à côté de la valeur mesurée, ce qui avait été parié ; rien si l'on n'avait pas parié."""
    kept = guessed(name)
    if kept is None:
        return
    if isinstance(measured, str) or isinstance(kept, str):
        verdict = "c'est bien ce qui se mesure" if kept == measured else f"la mesure dit {_said(measured)}"
    else:
        verdict = f"la mesure donne {number(float(measured), 4)}{_ratio(float(kept), float(measured))}"
    note(f"Vous aviez parié {_said(kept)} ; {verdict}.")


def guessed(name: str) -> Guess | None:
    """Ce qui a été parié, ou None."""
    value = journal.read()["bets"].get(name, {}).get("guess")
    return value if isinstance(value, str) or (type(value) in (int, float) and math.isfinite(value)) else None


def _keep(name: str, guess: Guess, options: Sequence[str]) -> None:
    number_given = not isinstance(guess, bool) and isinstance(guess, (int, float)) and math.isfinite(guess)
    if (options and guess not in options) or not (number_given or isinstance(guess, str)):
        expected = " ou ".join(f"« {o} »" for o in options) or "un nombre"
        raise ValueError(typeset(f"on parie ici {expected}, pas {guess!r}."))
    journal.record_bet(name, guess)


def _said(guess: Guess) -> str:
    return f"« {plain(guess)} »" if isinstance(guess, str) else number(float(guess), 4)


def _ratio(kept: float, measured: float) -> str:
    """« , 2,3 fois plus » quand les deux nombres sont de même signe et assez différents."""
    if kept * measured <= 0:
        return ""
    times = measured / kept
    if 0.95 < times < 1.05:
        return ", à 5 % près"
    return f", {number(max(times, 1 / times), 2)} fois {'plus' if times > 1 else 'moins'}"


def build_widget(name: str, question: str, options: Sequence[str], known: Guess | None, widgets: Any) -> Any:
    """La question, de quoi répondre, et le pari gardé, annoncé par les lecteurs d'écran."""
    said = widgets.HTML(announce(typeset(f"Votre pari : {_said(known)}.") if known is not None else ""))

    def placed(guess: Guess) -> None:
        _keep(name, guess, options)
        said.value = announce(html.escape(typeset(f"Votre pari : {_said(guess)}. Exécutez la suite pour savoir.")))

    if options:
        labels = [plain(o) for o in options]
        control = widgets.RadioButtons(options=labels, value=None, layout=widgets.Layout(width="max-content"))

        def chosen(change: Mapping[str, Any]) -> None:
            if change["new"] is not None:
                placed(options[labels.index(change["new"])])

        control.observe(chosen, names="value")
        return widgets.VBox([widgets.HTMLMath(f"<div>{rich(question)}</div>"), control, said])
    field = widgets.FloatText(value=known if isinstance(known, (int, float)) else 0.0, description="Votre pari")
    button = widgets.Button(description="Parier")
    button.on_click(lambda _: placed(field.value))
    return widgets.VBox([widgets.HTMLMath(f"<div>{rich(question)}</div>"), widgets.HBox([field, button]), said])
