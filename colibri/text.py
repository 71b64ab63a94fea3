"""Nettoyage du texte : normalisation, filtre de langue, balisages HTML, XML et roff."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import lxml.etree
import lxml.html

FRENCH_WORDS = frozenset(
    "le la les l un une des du de d et est à au aux en dans que qui qu il elle on nous vous ils ce "
    "cet cette ces se s son sa ses sur par pour pas ne n plus ou où si avec sont être leur leurs y a "
    "sans mais c j je me m tu te t lui même tout tous peut doit été comme dont votre vos notre nos "
    "cela avoir fait entre ainsi aussi lors chaque".split()
)
ENGLISH_WORDS = (
    frozenset(
        "the of and is to in for that with this be are by from it not you can will which or an as at "
        "if has have was when your should may must used use only these but all any using".split()
    )
    - FRENCH_WORDS
)

_LETTERS = re.compile(r"[a-zA-ZÀ-ÖØ-öø-ÿœŒæÆ]+")
_SPACES = re.compile(r"[\s\u00a0\u202f\u2000-\u200a]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufff0-\uffff\ue000-\uf8ff\u2028\u2029]")
_MARKUP = re.compile(r"[{}<>|\\]{2}|\\[a-z]+\{|</|&[a-z]+;")
_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys((0x2019, 0x2018, 0x02BC, 0x00B4, 0x2032), "'"),
    **dict.fromkeys((0x2010, 0x2011, 0x2212), "-"),
    **dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0x200E, 0x200F, 0xFEFF)),
    0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi",
}  # fmt: skip


def normalise(text: str) -> str:
    """Texte en NFC, sur une ligne, espaces simples ; « » et espaces français gardés."""
    text = unicodedata.normalize("NFC", text).translate(_CHARACTERS)
    text = _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()
    text = re.sub(r" ([,.)\]])", r"\1", text)
    text = re.sub(r"([(\[]) ", r"\1", text)
    text = re.sub(r"« ?", "« ", re.sub(r" ?»", " »", text)) if "«" in text or "»" in text else text
    text = re.sub(r"(?<=[a-zà-ÿ»])([.!?])(?=[A-ZÀ-Ý][a-zà-ÿ' ])", r"\1 ", text)
    return unicodedata.normalize("NFC", text)


def is_french(text: str, share: float = 0.17) -> bool:
    """Vrai si la part des mots-outils français atteint `share` et domine l'anglais."""
    words = [word.lower() for word in _LETTERS.findall(text)]
    if len(words) < 4:
        return False
    french = sum(word in FRENCH_WORDS for word in words)
    english = sum(word in ENGLISH_WORDS for word in words)
    return french / len(words) >= share and english <= 0.25 * french


def is_prose(text: str, shortest: int = 40, share: float = 0.17) -> bool:
    """Vrai pour un paragraphe de prose française : ni titre, ni code, ni tableau."""
    if len(text) < shortest or _MARKUP.search(text):
        return False
    plain = sum(char.isalpha() or char in " '’,.-;:" for char in text)
    if plain / len(text) < 0.85 or not is_french(text, share):
        return False
    return len(text) >= 80 or text[-1] in '.!?:;»…"'


# ---------------------------------------------------------------------------- HTML et XML

_BLOCKS = frozenset(
    "p div li dd dt h1 h2 h3 h4 h5 h6 blockquote td th tr ul ol dl section article body caption "
    "figcaption br hr center form main aside details summary para simpara title term listitem item "
    "note tip warning important caution sect1 sect2 sect3 sect4 chapter entry row formalpara "
    "variablelist varlistentry page steps".split()
)
_SKIPPED = frozenset(
    "script style pre table nav header footer svg math figure head screen programlisting synopsis "
    "informaltable code_block media mediaobject indexterm literallayout info credit revision graphic "
    "textarea select option button funcsynopsis cmdsynopsis userinput_block".split()
)


def blocks(root: lxml.etree._Element, keep_tables: bool = False) -> list[str]:
    """Paragraphes d'un arbre HTML, DocBook ou Mallard."""
    paragraphs: list[str] = []
    buffer: list[str] = []
    skipped = _SKIPPED - {"table"} if keep_tables else _SKIPPED

    def flush() -> None:
        line = normalise("".join(buffer))
        buffer.clear()
        if line:
            paragraphs.append(line)

    def visit(element: lxml.etree._Element) -> None:
        if not isinstance(element.tag, str):
            return
        tag = element.tag.rsplit("}", 1)[-1].lower()
        if tag in skipped:
            flush()
            return
        if tag in _BLOCKS:
            flush()
        buffer.append(element.text or "")
        for child in element:
            visit(child)
            buffer.append(child.tail or "")
        if tag in _BLOCKS:
            flush()

    visit(root)
    flush()
    return paragraphs


def html_root(page: bytes) -> lxml.etree._Element | None:
    """Racine d'une page HTML, dans le jeu de caractères qu'elle déclare."""
    declared = re.search(rb'charset=["\']?([\w-]+)', page[:3000])
    encoding = declared.group(1).decode() if declared else "utf-8"
    parser = lxml.html.HTMLParser(encoding=encoding, remove_comments=True, huge_tree=True)
    try:
        return lxml.html.fromstring(page, parser=parser) if page.strip() else None
    except lxml.etree.ParserError:
        return None


def html_blocks(page: bytes | str) -> list[str]:
    """Paragraphes d'une page ou d'un fragment HTML."""
    if isinstance(page, str):
        page = b'<meta charset="utf-8">' + page.encode()
    root = html_root(page)
    return [] if root is None else blocks(root)


def xml_blocks(page: bytes) -> list[str]:
    """Paragraphes d'une page DocBook ou Mallard."""
    parser = lxml.etree.XMLParser(
        recover=True, resolve_entities=False, remove_comments=True, huge_tree=True, no_network=True
    )
    root = lxml.etree.fromstring(page, parser)
    return [] if root is None else blocks(root)


# ---------------------------------------------------------------------------- pages de manuel

_ROFF_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", ",": "\u0327", "~": "\u0303"}
_ROFF_ESCAPES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\f[BIRPC1234]|\\f\([A-Z]{2}|\\f\[[A-Z]*\]|\\s[-+]?\d+", ""),
        (r"\\-", "-"),
        (r"\\[ ~0]", " "),
        (r"\\[&%:/,|^c]", ""),
        (r"\\\(aq|\\\[aq\]|\\\([oc]q|\\\[[oc]q\]|\\'", "'"),
        (r"\\\(dq|\\\[dq\]|\\\([lr]q|\\\[[lr]q\]|\\\(Lq", '"'),
        (r"\\\(bu|\\\[bu\]", "• "),
        (r"\\\(Fo|\\\[Fo\]", "« "),
        (r"\\\(Fc|\\\[Fc\]", " »"),
        (r"\\\(e[mn]|\\\[e[mn]\]", "–"),
        (r"\\\(co|\\\[co\]", "©"),
        (r"\\\(oe|\\\[oe\]", "œ"),
        (r"\\\(ha|\\\[ha\]", "^"),
        (r"\\\(ti|\\\[ti\]", "~"),
        (r"\\\(rs|\\\[rs\]|\\e", r"\\"),
        (r"\\\*\(..|\\\*\[[^\]]*\]|\\\*.|\\[mMkn]\[[^\]]*\]|\\\"[^\n]*", ""),
        (r"\\\((..)|\\\[[^\]]*\]|\\[hvwlL]'[^']*'", ""),
    )
]
_ROFF_FONTS = frozenset("B I BR IR RB RI BI IB SB SM Nm Xr Fl Ar Pa Em Sy Li Cm Ev Dv Ql Dq Sq Va Fn".split())
_ROFF_SKIP = re.compile(r"[.'] *(nf|EX|TS|Vb|EQ|PS|ig|de|Bd)\b")
_ROFF_RESUME = re.compile(r"[.'] *(fi|EE|TE|Ve|EN|PE|Ed)\b")
_ROFF_MACRO = re.compile(r"[.'] *([A-Za-z0-9]+) *(.*)")
_ROFF_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')


def _roff_plain(text: str) -> str:
    """Échappements roff remplacés ; les accents peuvent s'écrire `\\('e` (pages de dpkg)."""

    def accent(found: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", found.group(2) + _ROFF_ACCENTS[found.group(1)])

    text = re.sub(r"\\[(\[](['`^:,~])([A-Za-z])\]?", accent, text)
    for pattern, replacement in _ROFF_ESCAPES:
        text = pattern.sub(replacement, text)
    return text


def _roff_arguments(macro: str, argument: str) -> str:
    words = [quoted or bare for quoted, bare in _ROFF_ARGUMENT.findall(_roff_plain(argument))]
    return (" " if macro in ("B", "I", "SM", "SB") else "").join(words)


def roff_sections(page: str) -> list[list[str]]:
    """Paragraphes d'une page de manuel, groupés par section (.SH, .SS)."""
    sections: list[list[str]] = [[]]
    current: list[str] = []
    skip = 0
    heading = False  # la ligne qui suit .TP est un terme, pas de la prose

    def flush() -> None:
        if current:
            sections[-1].append(normalise(" ".join(current)))
            current.clear()

    for line in _roff_lines(page):
        if _ROFF_SKIP.match(line):
            flush()
            skip += 1
        elif _ROFF_RESUME.match(line) or (skip and line.strip() == ".."):
            skip = max(0, skip - 1)
        elif skip:
            continue
        elif (macro := _ROFF_MACRO.match(line)) and macro.group(1) not in _ROFF_FONTS:
            flush()
            if macro.group(1) in ("SH", "SS"):
                sections.append([])
            heading = macro.group(1) == "TP"
        elif not line.strip():
            flush()
        else:
            text = _roff_arguments(*macro.groups()) if macro else _roff_plain(line.strip())
            if heading:
                flush()
            current.append(text)
            if heading:
                flush()
            heading = False
    flush()
    return sections


def _roff_lines(page: str) -> Iterator[str]:
    return (line for line in page.split("\n") if not line.startswith(('.\\"', "'\\\"")))
