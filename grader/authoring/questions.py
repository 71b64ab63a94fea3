"""`quiz` : les questions du cours en banque de questions de Moodle (format Moodle XML).

Relu dans le code de Moodle (question/format/xml, `import_headers`, `import_multichoice`) : un texte est dans `<text>`,
son format dans un attribut, la part d'une réponse dans `fraction`, en pour cent. Dans un nom de catégorie, « / »
sépare, et « // » s'écrit.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from atelier import paths
from atelier.judging.exercise import Quiz
from atelier.quizzes import plain, rich
from grader.authoring.chapters import Chapter

NAME_LENGTH = 80


def moodle_questions(chapters: Iterable[Chapter]) -> bytes:
    """Le fichier Moodle XML de leurs questions, une catégorie par chapitre, dans l'ordre des carnets."""
    root = ET.Element("quiz")
    course = paths.course()["title"]
    for chapter in chapters:
        shown = [cell.id for cell in chapter.cells if cell.kind == "quiz" and cell.id in chapter.quizzes]
        if shown:
            _category(root, course, chapter.title)
        for name in shown:
            _question(root, chapter.name, name, chapter.quizzes[name])
    ET.indent(root, " ")
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _category(root: ET.Element, *names: str) -> None:
    question = ET.SubElement(root, "question", type="category")
    path = "/".join(["$course$", "top", *(name.replace("/", "//") for name in names)])
    _text(ET.SubElement(question, "category"), path)


def _question(root: ET.Element, chapter: str, name: str, quiz: Quiz) -> None:
    question = ET.SubElement(root, "question", type="multichoice")
    short = plain(quiz.question)
    _text(ET.SubElement(question, "name"), short if len(short) <= NAME_LENGTH else short[: NAME_LENGTH - 1] + "…")
    _text(ET.SubElement(question, "questiontext", format="html"), f"<p>{rich(quiz.question)}</p>")
    settings = {"defaultgrade": "1", "idnumber": f"{chapter}.{name}", "single": "true", "shuffleanswers": "true"}
    for tag, value in (settings | {"answernumbering": "abc"}).items():
        ET.SubElement(question, tag).text = value
    for choice in quiz.choices:
        answer = ET.SubElement(question, "answer", fraction="100" if choice.correct else "0", format="html")
        _text(answer, f"<p>{rich(choice.text)}</p>")
        _text(ET.SubElement(answer, "feedback", format="html"), f"<p>{rich(choice.why)}</p>")
    _text(ET.SubElement(ET.SubElement(question, "tags"), "tag"), chapter)


def _text(parent: ET.Element, text: str) -> None:
    ET.SubElement(parent, "text").text = text
