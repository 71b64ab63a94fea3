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
from pathlib import Path
from typing import Any

from atelier.paths import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
RUBRIC = """| critère | points | ce qui fait la différence |
|---|---|---|
| La question | 4 | le problème est dit avec un nombre |
| Le concept | 4 | un dessin à vous ; ce qui casse si l'on en retire un morceau |
| L'expérience | 4 | une chose changée, pariée avant, comparée à égalité |
| Les sources | 4 | un chiffre cité avec papier, tableau et ligne, puis discuté |
| Les limites et les questions | 4 | une limite de votre expérience, et pas seulement du sujet |"""
PLAN: tuple[tuple[str, str], ...] = (
    (
        "Introduction",
        "*Le contexte et l'importance du sujet : quel problème, combien coûte-t-il ?*\n\n*Pourquoi ce sujet ?*",
    ),
    (
        "Le concept clé",
        "*La question, l'idée en dix lignes, un dessin. Où cela se place-t-il dans un Transformer ?*",
    ),
    (
        "Applications et exemples",
        "*Qui s'en sert, pour quoi, avec quel résultat (papier, tableau, ligne) ?*\n\n"
        "*Notre expérience : ce que nous avons changé, ce que nous avions parié.*",
    ),
    ("Avantages et limites", "*Ce que nous avons mesuré, ce que nous citons, ce que nous ne savons pas.*"),
    ("Perspectives", "*Une question ouverte, et comment on y répondrait.*"),
    ("Nos sources", "*Trois lectures au moins.*"),
)
"""Les parties du « Plan type » de la dernière diapositive, et ce que l'on attend sous chacune."""
EXPERIMENT = """import atelier

# Votre expérience, en quinze secondes au plus.
"""


def file_name(subject: str) -> str:
    """« expose_le_decodage_speculatif.ipynb », pour « Le décodage spéculatif »."""
    plain = unicodedata.normalize("NFD", subject.lower()).encode("ascii", "ignore").decode()
    return f"expose_{re.sub(r'[^a-z0-9]+', '_', plain).strip('_') or 'sujet'}.ipynb"


def template(subject: str) -> dict[str, Any]:
    """Le carnet d'un exposé, vide : une partie du plan par diapositive, une cellule de code pour l'expérience."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, text: str, slide: str) -> None:
        id = hashlib.sha256(f"{len(cells)} {text}".encode()).hexdigest()[:12]
        cell = {"cell_type": kind, "id": id, "metadata": {"slideshow": {"slide_type": slide}}, "source": text}
        cells.append(cell | ({"outputs": [], "execution_count": None} if kind == "code" else {}))

    add("markdown", f"# {subject}\n\n*Vos noms*", "slide")
    for title, expected in PLAN:
        add("markdown", f"## {title}\n\n{expected}", "slide")
        if title.startswith("Applications"):
            add("code", EXPERIMENT, "fragment")
    add("markdown", f"### Comment cet exposé est noté\n\n{RUBRIC}", "skip")
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

    slides = notebook.with_suffix(".slides.html")
    slides.write_text(SlidesExporter().from_filename(str(notebook))[0], encoding="utf-8")
    made, program = [slides], browser()
    if program is None:
        return made
    page = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_filename(str(notebook))[0]
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
