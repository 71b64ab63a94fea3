"""Un carnet en page HTML : en français, formules lisibles sans réseau (MathML), code qui tient sur une feuille.

`configure` règle nbconvert. Y passent « Enregistrer et exporter » de JupyterLab et `jupyter nbconvert` (les fichiers de
configuration de `launch/jupyter`), les exposés (`atelier.talk`) et les pages de retour (`grader`).
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATES = Path(__file__).parent / "launch" / "jupyter" / "gabarits"
MAX_FORMULA = 2000
"""Caractères ; au-delà, la formule n'est pas composée."""


def configure(c: Any) -> None:
    """Règle les pages HTML d'une configuration de Jupyter ou de nbconvert."""
    c.HTMLExporter.language_code = "fr"
    c.SlidesExporter.template_name = "reveal"  # des diapositives sont aussi du HTML, d'un autre gabarit
    c.HTMLExporter.template_name = "cours"
    c.HTMLExporter.extra_template_basedirs = [str(TEMPLATES)]
    c.HTMLExporter.exclude_anchor_links = True
    c.HTMLExporter.filters = {"markdown2html": "atelier.export.markdown2html"}


def mathml(latex: str, display: bool) -> str:
    """La formule en MathML, que tout navigateur compose ; telle quelle, entre dollars, si elle n'est pas comprise.

    Une formule d'étudiant s'affiche chez son enseignant : ses textes restent des textes, sans lien ni style.
    """
    from latex2mathml.converter import convert_to_element

    dollars = "$$" if display else "$"
    try:
        if len(latex) > MAX_FORMULA:
            raise ValueError("une formule démesurée")
        root = convert_to_element(latex.strip(), display="block" if display else "inline")
        for element in root.iter():
            element.text = html.unescape(element.text) if element.text else None
            for name in {"href", "style", "class", "id"} & set(element.attrib):
                del element.attrib[name]
        return ElementTree.tostring(root, encoding="unicode")
    except Exception:  # ce que lève la bibliothèque dépend de la faute : un export n'échoue pas pour une formule
        return f"{dollars}{html.escape(latex)}{dollars}"


class _Renderer(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return mathml(body, display=True)

    def inline_math(self, body: str) -> str:
        return mathml(body, display=False)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)


@pass_context
def markdown2html(context: Context, source: str) -> str:
    """Le filtre de nbconvert, formules comprises. source : le texte d'une cellule."""
    attachments = context.get("cell", {}).get("attachments", {})
    path = context.get("resources", {}).get("metadata", {}).get("path", "")
    renderer = _Renderer(escape=False, attachments=attachments, path=path, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)
