"""`python -m grader words` : l'orthographe, la typographie et le glossaire de tout ce que le cours donne à lire.

Sont lus : les carnets, les énoncés, les indices, les phrases des idées fausses, les quiz, les messages et les aides des
commandes, les docstrings, les gabarits de pages, les pages du dépôt. Ne sont pas lus : le code, les formules, les
adresses, les mots en italique (de l'anglais, un titre d'article), les noms propres, les sigles, les noms du programme.
Le dictionnaire est celui de hunspell ; les mots du métier qu'il n'a pas sont dans `mots.txt`. Le glossaire (`words.py`)
ne vaut que pour les chapitres et leurs figures.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from atelier.text import NBSP, THIN, plural, prose, typeset
from grader import UserError
from grader.authoring.chapters import Chapter, Problem, chapter_names, load_chapter
from grader.authoring.words import docstring, misused, typography
from grader.cli import FrenchParser

LANGUAGE = "fr"
INSTALL = "apt install hunspell hunspell-fr"
LIST = Path(__file__).parent / "mots.txt"
"""Les mots du cours que le dictionnaire n'a pas, un par ligne, triés : la forme exacte, ou en minuscules."""
PAGES = ("*.md", "docs/*.md", "grader/**/*.md")
CODE = ("cours.py", "atelier/**/*.py", "grader/**/*.py", "solutions/*/claims.py", "solutions/*/exercises/*.py")
TEMPLATES = ("grader/report/templates/**/*.j2",)
NOT_PROSE = (
    *("grader/jail/inside/syscalls.py", "atelier/glosses.py", "grader/classroom/layout.py"),
    *("grader/authoring/skeleton.py", "grader/authoring/bootstrap.py", "grader/authoring/words.py"),
)
"""Des tables de mots de machine (messages de torch, noms de dossiers, appels du noyau), des squelettes de programme."""

_GAP = "\ufffc"
_ITALIC = re.compile(r"(?<![*\w])\*(?![*\s])[^*]+\*(?!\*)")
_ENGLISH = re.compile(r"^## In English\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_CHUNK = re.compile(r"[^\s\u00a0\u202f|]+")
_EDGES = f"«»\"“”()[].,;:!?…*'’—–-#>→↔_{_GAP}"
_WORD = re.compile(r"(?=..)[a-zà-öø-ÿœ]+(?:['’-][a-zà-öø-ÿœ]+)*", re.IGNORECASE)
_ELISION = re.compile(r"(?:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu)['’](?=.)", re.IGNORECASE)
_HOLES = re.compile(rf"{_GAP}|\{{+[^{{}}]*\}}+")
_BRACES = re.compile(r"\{[^{}]*\}")
_FRENCH = frozenset(
    "à au aux ce ces cet cette dans de des du elle en est et il la le les ne ou où par pas pour".split()
)
_FRENCH |= frozenset("que qui sans se son sur un une votre vous".split())
"""Une phrase qui porte un de ces mots est du français."""
_QUOTATION = re.compile(r"«[^»]*»")
_UNSEEN = re.compile(r"\{#.*?#\}|<style>.*?</style>|<script.*?</script>", re.DOTALL)
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TAG = re.compile(r"""<[^>]*?(?:alt|title|aria-label)="([^"]*)"[^>]*>|</?[^>]+>""")
_PATTERN = re.compile(r"\\[wWsSdDbBu]|\(\?[:<=!P]")
"""Ce qui trahit une expression régulière."""
_STRING = re.compile(r"""(?<=[\s(,\[])(["'])((?:(?!\1).)* (?:(?!\1).)*)\1(?=[\s),\]])""")


class Passage(NamedTuple):
    """Un texte à lire : son fichier, ses lignes dans ce fichier, et les noms du programme qu'il peut citer."""

    file: str
    first: int
    last: int
    text: str
    names: frozenset[str] = frozenset()
    markdown: bool = True


# --- Ce qui se lit ----------------------------------------------------------------------------------------------------


def passages(root: Path) -> Iterator[Passage]:
    """Tout ce que le dépôt donne à lire en français."""
    for name in chapter_names(root):
        yield from chapter_passages(load_chapter(name, root))
    for path in _files(root, PAGES):
        text = path.read_text(encoding="utf-8")
        yield _passage(root, path, _ENGLISH.sub(lambda found: "\n" * found[0].count("\n"), text))
    for path in _files(root, TEMPLATES):
        yield _passage(root, path, template_text(path.read_text(encoding="utf-8")))
    for path in _files(root, CODE):
        shown = path.relative_to(root).as_posix()
        if shown in NOT_PROSE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from code_passages(shown, tree, names=_names(tree), docstrings_only=shown.startswith("solutions/"))


def chapter_passages(chapter: Chapter) -> Iterator[Passage]:
    """Le carnet, les consignes, les indices, les phrases des idées fausses et les quiz."""
    for cell in chapter.cells:
        if cell.kind == "markdown":
            yield Passage(chapter.file, cell.line, cell.line + cell.source.count("\n"), cell.source)
        elif cell.kind != "quiz":
            tree = ast.increment_lineno(ast.parse(cell.source), cell.line - 1)
            yield from code_passages(chapter.file, tree, _names(tree))
    for id, exercise in chapter.exercises.items():
        names = frozenset(re.findall(r"\w+", chapter.sources.get(id, "")))
        for text in (*exercise.hints, *(m.message for m in exercise.misconceptions)):
            yield Passage(chapter.exercise_file(id), 1, 10_000, text, names)
    for quiz, _ in chapter.asked.values():
        for text in (quiz.question, *(c.text for c in quiz.choices), *(c.why for c in quiz.choices)):
            yield Passage(chapter.quiz_file, 1, 10_000, text)


def code_passages(file: str, tree: ast.AST, names: frozenset[str], docstrings_only: bool = False) -> Iterator[Passage]:
    """Les phrases d'un code : docstrings et chaînes qui ont une espace, morceaux d'une f-chaîne recollés."""
    docstrings = {docstring(node) for node in ast.walk(tree)}
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {*node.values, *(part for spec in _specs(node) for part in ast.walk(spec))}
    for node in ast.walk(tree):
        if node in inside or not isinstance(node, (ast.JoinedStr, ast.Constant)):
            continue
        if node not in docstrings and docstrings_only:
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = _UNSEEN.sub("", "".join(_said(part) for part in parts))
        if not re.search(r"[^\W\d_]\s|\s[^\W\d_]", text) or _PATTERN.search(text):
            continue
        if node not in docstrings and (program := _program(text)):
            inner = code_passages(file, program, names | _names(program))
            yield from (part._replace(first=node.lineno, last=node.end_lineno or node.lineno) for part in inner)
        else:
            yield Passage(file, node.lineno, node.end_lineno or node.lineno, text, names, node in docstrings)


def _said(part: ast.expr) -> str:
    """Un morceau de chaîne ; ce qui est calculé y laisse un trou, une espace insécable y est elle-même."""
    match part:
        case ast.Constant(str(text)):
            return text
        case ast.FormattedValue(ast.Name("NBSP" | "THIN" as name)):
            return {"NBSP": NBSP, "THIN": THIN}[name]
    return _GAP


def _program(text: str) -> ast.Module | None:
    """Le programme qu'est cette chaîne de plusieurs lignes ; None si ce n'en est pas un."""
    try:
        return ast.parse(_HOLES.sub("_", text)) if " " in text else None
    except SyntaxError:
        return None


def template_text(source: str) -> str:
    """Ce qu'un gabarit donne à lire : le texte, les phrases de ses attributs et de ses expressions."""

    def strings(found: re.Match[str]) -> str:
        return (" … ".join(m[2] for m in _STRING.finditer(found[0])) or _GAP) + "\n" * found[0].count("\n")

    text = _UNSEEN.sub(lambda found: "\n" * found[0].count("\n"), source)
    text = _TAG.sub(lambda found: f" {found[1] or ''} ", _EXPRESSION.sub(strings, text))
    return re.sub("&(?:nbsp|#8239);", "\u00a0", text.replace("\\u202f", THIN))


def _passage(root: Path, path: Path, text: str) -> Passage:
    return Passage(path.relative_to(root).as_posix(), 1, text.count("\n") + 1, text)


def _files(root: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def _names(tree: ast.AST) -> frozenset[str]:
    """Les noms qu'un code emploie, dont ceux de ses arguments et de ses attributs, et ses chaînes d'un mot."""
    fields = ("id", "arg", "attr", "name", "value")
    found = {value for node in ast.walk(tree) for key in fields if isinstance(value := getattr(node, key, None), str)}
    return frozenset(name for name in found if name.isidentifier())


def _specs(node: ast.JoinedStr) -> list[ast.expr]:
    return [value.format_spec for value in node.values if isinstance(value, ast.FormattedValue) and value.format_spec]


# --- Ce qui est mal écrit ---------------------------------------------------------------------------------------------


def words(text: str) -> Iterator[tuple[str, bool]]:
    """Les mots d'un texte Markdown, sans code ni italique ni sigle : (mot, il ouvre une phrase)."""
    starts = True
    for found in _CHUNK.finditer(text):
        word = found[0].strip(_EDGES)
        core = _ELISION.sub("", word)
        literal = found[0].strip("[](),.;:")
        code = literal[:1] == literal[-1:] == "'" or found[0].startswith("--")
        if _WORD.fullmatch(word) and not code and not any(c.isupper() for c in core[1:]):
            yield word, starts
        starts = not word or found[0].rstrip(_GAP)[-1:] in ".?!:…»|#*"


def groups(passage: Passage) -> Iterator[tuple[list[tuple[str, bool]], bool]]:
    """Les mots d'un passage, puis ceux de chacune de ses citations ; faux pour ce qui est sûrement du français."""
    text = _ITALIC.sub("…", _BRACES.sub("…", prose(passage.text)))
    yield list(words(_QUOTATION.sub("…", text))), not passage.markdown
    yield from ((list(words(found[0])), True) for found in _QUOTATION.finditer(text))


def without_elision(word: str) -> str:
    """« l'élève » → « élève »."""
    return _ELISION.sub("", word)


def misspelled(found: Iterable[str]) -> set[str]:
    """Ceux de ces mots que ni le dictionnaire ni la liste du cours ne connaissent.

    Lève `UserError` si hunspell, ou son dictionnaire français, n'est pas installé.
    """
    if shutil.which("hunspell") is None:
        raise UserError(f"L'orthographe demande hunspell et son dictionnaire français : {INSTALL}")
    known = course_words()
    asked = {w for w in found if not {w, w.lower(), without_elision(w), without_elision(w).lower()} & known}
    command = ["hunspell", "-d", LANGUAGE, "-i", "utf-8", "-l"]
    done = subprocess.run(command, input="\n".join(sorted(asked)), capture_output=True, encoding="utf-8")
    if done.returncode or "open the dictionary" in done.stderr:
        raise UserError(f"hunspell n'a pas son dictionnaire français : {INSTALL} ({done.stderr.strip()})")
    return asked & set(done.stdout.split("\n"))


@cache
def course_words() -> frozenset[str]:
    """Les mots de `mots.txt`."""
    return frozenset(LIST.read_text(encoding="utf-8").split())


def check_words(found: Iterable[Passage], root: Path) -> list[Problem]:
    """Les fautes de ces textes, avec leur fichier et leur ligne.

    Une majuscule au milieu d'une phrase fait un nom propre, partout. Une citation, ou une chaîne du programme, n'est
    pas du français si le tiers de ses mots sont inconnus et qu'aucun n'est un mot-outil.
    """
    found = list(found)
    read = [(passage, group, doubtful) for passage in found for group, doubtful in groups(passage)]
    unknown = misspelled({word for _, group, _ in read for word, _ in group})
    proper = {
        without_elision(w)
        for _, group, _ in read
        for w, starts in group
        if not starts and without_elision(w)[:1].isupper()
    }
    problems: set[Problem] = set()
    for passage, group, doubtful in read:
        wrong = [word for word, _ in group if word in unknown and not {word, without_elision(word)} & passage.names]
        foreign = 3 * len(wrong) >= len(group) and not any(
            without_elision(word).lower() in _FRENCH for word, _ in group
        )
        if not (doubtful and foreign):
            for word in {word for word in wrong if without_elision(word) not in proper}:
                problems.add(_located(passage, root, word, f"« {word} » n'est pas dans le dictionnaire."))
    for passage in found:
        signs = passage.markdown or passage.text[:1].isupper()
        for rank, fault, around in typography(typeset(passage.text), signs):
            longest = max(around.split(), key=len, default="")
            problems.add(_located(passage, root, longest, f"{fault} : {around.strip()}", rank))
        if passage.file.startswith(("solutions/", "atelier/figures/")):
            for _, message in misused(passage.text, passage.names):
                problems.add(_located(passage, root, message.split("»")[0].strip("« "), message))
    return sorted(problems)


def _located(passage: Passage, root: Path, sought: str, message: str, rank: int = 0) -> Problem:
    """Le défaut, à la première ligne du passage qui porte ce texte, à partir de celle de rang `rank`."""
    lines = _lines(root / passage.file)[passage.first - 1 : passage.last]
    found = next((i for i in range(rank, len(lines)) if sought in lines[i]), rank)
    return Problem(passage.file, passage.first + found, "", message)


@cache
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


def main(argv: list[str]) -> int:
    """`words` : dit chaque faute, avec fichier et ligne. Rend 1 s'il y en a."""
    parser = FrenchParser(
        "python -m grader words",
        "Vérifie l'orthographe, la typographie et le glossaire de tout ce que le cours donne à lire.",
    )
    parser.parse_args(argv)
    from atelier import paths

    problems = check_words(passages(paths.root()), paths.root())
    for problem in problems:
        print(problem)
    where = LIST.relative_to(paths.root()).as_posix()
    advice = f" Un mot juste que le dictionnaire n'a pas s'ajoute à {where}." if problems else ""
    print(f"{plural(len(problems), 'faute')}.{advice}")
    return 1 if problems else 0
