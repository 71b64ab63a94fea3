"""Les pages que l'on suit à la lettre : chaque commande y existe, avec ses options ; chaque lien mène quelque part."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from conftest import ROOT

from grader.authoring.chapters import chapter_names

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "grader" / "conteneur" / "LISEZMOI.md"])
PROGRAMS = {"python -m grader": ["-m", "grader"], "python -m atelier.talk": ["-m", "atelier.talk"]}
PROGRAMS |= {"python cours.py": ["cours.py"], "nbgrader": ["-m", "nbgrader"]}
COMMAND = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, PROGRAMS))})((?: +[^\s`|<>#;&]+)+)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def code(page: Path) -> str:
    """Ce qu'une page donne à taper : ses blocs de code, et ce qui est entre accents graves."""
    pieces = re.findall(r"```[^\n]*\n(.*?)```|`([^`\n]+)`", page.read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(block or inline for block, inline in pieces)


def commands() -> list[tuple[str, str, str]]:
    """(page, programme, ce qui le suit) pour chaque commande écrite dans une page."""
    found = []
    for page in PAGES:
        for program, rest in COMMAND.findall(code(page).replace("\\\n", " ")):
            found.append((page.name, program, rest.strip()))
    return found


@cache
def usage(*line: str) -> str:
    """L'aide d'une commande. Échoue si elle n'existe pas."""
    done = subprocess.run([sys.executable, *line, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(line)} --help : {done.stderr[-500:]}"
    return done.stdout


def test_every_command_of_the_pages_exists_with_its_options() -> None:
    found = commands()
    assert len(found) > 40 and {program for _, program, _ in found} == set(PROGRAMS)
    known = "\n".join(usage(*line) for line in PROGRAMS.values())
    wrong = []
    for page, program, rest in dict.fromkeys(found):
        words = rest.split()
        name = words[0] if re.fullmatch(r"[a-z][a-z_]+", words[0]) else ""
        if name and name not in known:
            wrong.append(f"{page} : « {program} {name} » n'existe pas")
            continue
        options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        told = usage(*PROGRAMS[program], *([name] if name else [])) if options else ""
        wrong += [f"{page} : « {program} {name} » n'a pas d'option {o}" for o in options if o not in f"{told} --aide"]
    assert not wrong, "\n".join(wrong)


def test_every_chapter_named_in_a_page_exists() -> None:
    text = "\n".join(code(page) for page in PAGES)
    names = set(re.findall(r"\bch\d_[a-z0-9_]+\b", text)) - {"ch1_essai"}  # le chapitre d'essai des recettes
    assert names <= {*chapter_names(ROOT)}, names - set(chapter_names(ROOT))


def test_every_link_of_a_page_leads_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                if not (page.parent / target.split("#")[0]).exists():
                    dead.append(f"{page.name} : {target}")
    assert not dead, dead
