"""L'exposé d'un étudiant : un carnet au « Plan type », puis des diapositives et un PDF.

    python -m atelier.talk nouveau "Le décodage spéculatif"
    python -m atelier.talk exporter expose_le_decodage_speculatif.ipynb

Chaque titre de niveau 2 du carnet commence une diapositive. Le PDF est fait par Chromium ou Chrome, s'il y en a un.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.paths import write_atomically
from atelier.text import typeset

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
ASSIGNMENT = "expose"
"""Le devoir de nbgrader sous lequel un exposé est rendu, et noté à la main."""
TITLE = "Exposé"
POINTS = 4
LEVELS = ("0 à 1", "2", "3", "4")


@dataclass(frozen=True)
class Criterion:
    """Un critère du barème : son titre, et ce que vaut chaque niveau, du plus bas au plus haut."""

    title: str
    levels: tuple[str, str, str, str]


CRITERIA: dict[str, Criterion] = {
    "question": Criterion(
        "La question",
        (
            "le sujet est nommé, pas le problème",
            "le problème est dit",
            "il est dit avec un nombre : ce que cela coûte sans la technique",
            "il est relié à ce que le cours a mesuré",
        ),
    ),
    "concept": Criterion(
        "Le concept",
        (
            "des mots de l'article, récités",
            "l'idée est juste",
            "un dessin à vous, et la place exacte dans un Transformer",
            "vous savez ce qui casse si l'on en retire un morceau",
        ),
    ),
    "experience": Criterion(
        "L'expérience",
        (
            "celle du chapitre, telle quelle",
            "une chose changée, exécutée",
            "pariée avant, comparée à égalité (pas, graines, réglage)",
            "plusieurs graines, un intervalle, et une conclusion qui n'en dit pas plus",
        ),
    ),
    "limites": Criterion(
        "Les limites et les questions",
        (
            "aucune limite",
            "une limite générale",
            "une limite de votre expérience",
            "vous répondez juste, ou vous dites « nous ne savons pas, voici comment nous le saurions »",
        ),
    ),
    "sources": Criterion(
        "Les sources",
        (
            "« on a vu que »",
            "trois lectures citées",
            "un chiffre cité avec papier, tableau et ligne",
            "un chiffre cité et discuté : mesuré comment, sur quoi",
        ),
    ),
}
"""Le barème : chaque critère est une cellule de nbgrader, que l'on note sous la partie dont il juge."""
PLAN: tuple[tuple[str, str, str], ...] = (
    (
        "Introduction",
        "*Le contexte et l'importance du sujet : quel problème, combien coûte-t-il ?*\n\n*Pourquoi ce sujet ?*",
        "question",
    ),
    (
        "Le concept clé",
        "*La question, l'idée en dix lignes, un dessin. Où cela se place-t-il dans un Transformer ?*",
        "concept",
    ),
    (
        "Applications et exemples",
        "*Qui s'en sert, pour quoi, avec quel résultat (papier, tableau, ligne) ?*\n\n"
        "*Notre expérience : ce que nous avons changé, ce que nous avions parié.*",
        "experience",
    ),
    ("Avantages et limites", "*Ce que nous avons mesuré, ce que nous citons, ce que nous ne savons pas.*", ""),
    ("Perspectives", "*Une question ouverte, et comment on y répondrait.*", "limites"),
    ("Nos sources", "*Trois lectures au moins.*", "sources"),
)
"""Les parties du « Plan type » de la dernière diapositive, ce que l'on attend sous chacune, le critère qui la juge."""
HOW = (
    f"*Cinq critères de {POINTS} points : chacun est écrit à la fin de la partie dont il juge, et c'est là que la note "
    "et les remarques seront mises. Ces cellules restent où elles sont ; ajoutez toutes celles que vous voulez. Elles "
    "ne paraissent ni dans les diapositives ni dans le PDF.*"
)
HIDDEN = "bareme"
"""L'étiquette des cellules que les diapositives et le PDF ne montrent pas."""
EXPERIMENT = """import atelier

# Votre expérience, en quinze secondes au plus.
"""


def file_name(subject: str) -> str:
    """« expose_le_decodage_speculatif.ipynb », pour « Le décodage spéculatif »."""
    plain = unicodedata.normalize("NFD", subject.lower()).encode("ascii", "ignore").decode()
    return f"expose_{re.sub(r'[^a-z0-9]+', '_', plain).strip('_') or 'sujet'}.ipynb"


def rubric(name: str) -> str:
    """Le texte de la cellule notée du critère `name` : son titre, ses points, ses quatre niveaux."""
    criterion = CRITERIA[name]
    head = f"**{criterion.title}, sur {POINTS}**\n\n| {' | '.join(LEVELS)} |\n|{'---|' * len(LEVELS)}\n"
    return typeset(f"{head}| {' | '.join(criterion.levels)} |")


def template(subject: str) -> dict[str, Any]:
    """Le carnet d'un exposé, vide : une partie du plan par diapositive, et sous elle la cellule où elle est notée."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, text: str, slide: str, **metadata: Any) -> None:
        id = hashlib.sha256(f"{len(cells)} {text}".encode()).hexdigest()[:12]
        about = {"slideshow": {"slide_type": slide}, **metadata}
        cell = {"cell_type": kind, "id": id, "metadata": about, "source": text}
        cells.append(cell | ({"outputs": [], "execution_count": None} if kind == "code" else {}))

    add("markdown", f"# {subject}\n\n*Vos noms*", "slide")
    add("markdown", typeset(HOW), "skip", tags=[HIDDEN])
    for title, expected, criterion in PLAN:
        add("markdown", typeset(f"## {title}\n\n{expected}"), "slide")
        if criterion == "experience":
            add("code", EXPERIMENT, "fragment")
        if criterion:
            kind = {"task": True, "grade": False, "solution": False, "locked": True, "schema_version": 3}
            task = kind | {"grade_id": criterion, "points": POINTS}
            add("markdown", rubric(criterion), "skip", tags=[HIDDEN], nbgrader=task, deletable=False, editable=False)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}, "title": subject, "lang": "fr"}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def start(subject: str, folder: Path) -> Path:
    """Écrit le carnet et rend son chemin. Lève `FileExistsError` s'il y en a déjà un de ce nom : rien n'est écrasé."""
    path = folder / file_name(subject)
    if path.exists():
        raise FileExistsError(f"{path} existe déjà : ouvrez-le, ou choisissez un autre titre.")
    write_atomically(path, (json.dumps(template(subject), ensure_ascii=False, indent=1) + "\n").encode())
    return path


def browser() -> str | None:
    """Le Chromium ou le Chrome de cette machine, s'il y en a un."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def export(notebook: Path) -> list[Path]:
    """Écrit, à côté du carnet, ses diapositives (.slides.html) et, s'il y a un navigateur, son PDF. Rend les chemins.

    Les diapositives emploient reveal.js, que le navigateur va chercher sur le réseau ; le PDF n'en a pas besoin.
    Lève `FileNotFoundError` si le carnet manque, `RuntimeError` si le navigateur n'a pas écrit le PDF.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"pas de carnet {notebook}.")
    from nbconvert import HTMLExporter, SlidesExporter
    from traitlets.config import Config

    from atelier.export import configure

    settings = Config({"TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": [HIDDEN]}})
    configure(settings)
    slides = notebook.with_suffix(".slides.html")
    slides.write_text(SlidesExporter(config=settings).from_filename(str(notebook))[0], encoding="utf-8")
    made, program = [slides], browser()
    if program is None:
        return made
    page = HTMLExporter(config=settings).from_filename(str(notebook))[0]
    style = "<style>@media print { h2 { break-before: page } pre, img, table { break-inside: avoid } }</style></head>"
    pdf = notebook.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "expose.html")
        source.write_text(page.replace("</head>", style, 1), encoding="utf-8")
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profil"]
        command += ["--no-pdf-header-footer", f"--print-to-pdf={pdf.resolve()}", source.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=180, check=False)
    if not pdf.is_file():
        raise RuntimeError(f"{program} n'a pas écrit le PDF : {done.stderr.decode(errors='replace')[-300:]}")
    return [*made, pdf]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m atelier.talk", description="Commencer un exposé, puis l'exporter.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("nouveau", help="un carnet au plan type").add_argument("sujet")
    commands.add_parser("exporter", help="diapositives et PDF").add_argument("carnet", type=Path)
    given = parser.parse_args(argv)
    try:
        made = [start(given.sujet, Path.cwd())] if given.command == "nouveau" else export(given.carnet)
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in made:
        print(path)
    if given.command == "exporter" and len(made) == 1:
        print("Pas de PDF : ni Chromium ni Chrome sur cette machine. Ouvrez les diapositives et imprimez-les.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
