"""`quiz` : une question à choix, une phrase pour chaque réponse. Jamais notée.

Boutons radio dans un carnet ; sans eux, la question s'écrit et se répond par `quiz("nom", "b")` ; dans une page
exportée, chaque réponse se déplie.
"""

from __future__ import annotations

import html
import random
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from atelier import journal, packs, settings
from atelier.display import _display

LETTERS = "abcdefghij"


def quiz(name: str, answer: str = "") -> None:
    """Pose la question `name` du chapitre. `answer` : la lettre d'une réponse, pour répondre sans boutons.

    Si deux chapitres ont une question de ce nom, précisez-le : `quiz("ch3/outliers")`.
    """
    found = packs.find("quizzes", name)
    if not found:
        print(journal.unknown_name(name, "quizzes"))
        return
    if len(found) > 1:
        _, short = packs.split_name(name)
        forms = " ou ".join(f'quiz("{chapter.split("_")[0]}/{short}")' for chapter, _ in found)
        print(f"Plusieurs chapitres posent la question «\u00a0{name}\u00a0»\u00a0: écrivez {forms}.")
        return
    chapter, declaration = found[0]
    question = _Question(chapter, packs.split_name(name)[1], name, declaration)
    if answer:
        print(question.reply_to_letter(answer))
    elif settings.recording():
        _display(question.page(), question.text())
    elif not show_widget(lambda widgets: build_widget(question, widgets), question.page(), question.text()):
        _display(question.markup(), question.text())


class _Question:
    """Une question et ses choix, dans l'ordre qui est celui de ce lecteur."""

    def __init__(self, chapter: str, name: str, call_name: str, declaration: Mapping[str, Any]) -> None:
        self.chapter, self.name, self.call_name = chapter, name, call_name
        self.question: str = declaration["question"]
        self.choices: list[Mapping[str, Any]] = list(declaration["choices"])
        random.Random(f"{_reader()}/{chapter}/{name}").shuffle(self.choices)

    @property
    def labels(self) -> list[str]:
        return [plain(c["text"]) for c in self.choices]

    def reply(self, index: int) -> str:
        """Note la réponse et rend la phrase qui lui correspond."""
        choice = self.choices[index]
        journal.record_answer(self.chapter, self.name, bool(choice["correct"]))
        return f"{'✔ Oui.' if choice['correct'] else '✗ Non.'} {choice['why']}"

    def reply_to_letter(self, letter: str) -> str:
        index = LETTERS.find(letter.strip().lower())
        if len(letter.strip()) != 1 or not 0 <= index < len(self.choices):
            return f"Répondez par une lettre de a à {LETTERS[len(self.choices) - 1]}."
        return plain(self.reply(index))

    def text(self) -> str:
        lines = [f"  {letter}) {label}" for letter, label in zip(LETTERS, self.labels, strict=False)]
        return "\n".join([plain(self.question), *lines, f'Répondez par quiz("{self.call_name}", "a").'])

    def markup(self) -> str:
        """La question et ses choix, pour un carnet sans boutons."""
        items = "".join(f"<li>{rich(c['text'])}</li>" for c in self.choices)
        how = f"<p>Répondez par <code>quiz(&quot;{html.escape(self.call_name)}&quot;, &quot;a&quot;)</code>.</p>"
        return f'<p>{rich(self.question)}</p><ol type="a">{items}</ol>{how}'

    def page(self) -> str:
        """La question et ses réponses à déplier, pour une page qu'aucun Python n'anime."""
        items = "".join(
            f"<details><summary>{rich(c['text'])}</summary><p>{'✔ Oui.' if c['correct'] else '✗ Non.'} "
            f"{rich(c['why'])}</p></details>"
            for c in self.choices
        )
        return f"<p>{rich(self.question)}</p>{items}"


def _reader() -> str:
    """Ce qui fixe l'ordre des choix : le même à chaque fois pour un lecteur, un autre pour son voisin."""
    if settings.recording():
        return "auteur"
    return journal.update(lambda state: None)["reader"]


def plain(text: str) -> str:
    """Le texte sans les marques de mise en forme de Markdown."""
    return re.sub(r"\*\*(.+?)\*\*|`(.+?)`", lambda m: m.group(1) or m.group(2), text)


def rich(text: str) -> str:
    """Le texte en HTML : gras et code de Markdown, le reste tel quel (les formules entre $ vont à MathJax)."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def _in_notebook() -> bool:
    """Vrai dans un noyau de carnet, faux dans un terminal ou un script."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def show_widget(build: Callable[[Any], Any], page: str, text: str) -> bool:
    """Affiche ce que `build` fait du module ipywidgets. Rend False si les boutons ne sont pas disponibles.

    page et text : ce que montrent à leur place une page exportée, où les boutons ne vivent plus, et un terminal.
    """
    if settings.without_widgets() or not _in_notebook():
        return False
    try:
        import ipywidgets
        from IPython.display import display
    except ImportError:
        return False
    view = {"version_major": 2, "version_minor": 0, "model_id": build(ipywidgets).model_id}
    display({"application/vnd.jupyter.widget-view+json": view, "text/html": page, "text/plain": text}, raw=True)
    return True


def build_widget(question: _Question, widgets: Any) -> Any:
    """Question, boutons et phrase de réponse ; la phrase est annoncée par les lecteurs d'écran."""
    buttons = widgets.RadioButtons(
        options=list(zip(question.labels, range(len(question.choices)), strict=True)),
        value=None,
        layout=widgets.Layout(width="max-content"),
    )
    said = widgets.HTMLMath(announce(""))

    def answered(change: Mapping[str, Any]) -> None:
        if change["new"] is not None:
            said.value = announce(rich(question.reply(change["new"])))

    buttons.observe(answered, names="value")
    return widgets.VBox([widgets.HTMLMath(f"<div>{rich(question.question)}</div>"), buttons, said])


def announce(markup: str) -> str:
    return f'<div role="status" aria-live="polite">{markup}</div>'
