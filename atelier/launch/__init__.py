"""La maison : ce que fait `python cours.py`. Bibliothèque standard seulement.

place.py dit si cette machine et ce dossier conviennent, environment.py installe, moving.py répare une installation
déplacée, lab.py ouvre JupyterLab, checks.py lance les tests ; ici, la ligne de commande.
"""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from atelier.launch import checks, environment, lab, place
from atelier.launch.place import Trouble

COMMANDS = ("test", "bench", "mesures")

HELP = """\
python cours.py                      installe ce qu'il faut (la première fois), puis ouvre le cours
python cours.py --no-open            installe, et s'arrête là
python cours.py --port 9000          ouvre JupyterLab sur ce port
python cours.py --here               utilise le Python qui lit cette ligne (conda, mamba) au lieu de .venv

Dans le dépôt complet, pour qui enseigne ou écrit le cours\u00a0:
python cours.py test [options]       lance les tests ; les options vont à pytest (par exemple -k check)
python cours.py bench [GROUPES]      mesure le cours sur cette machine et l'écrit dans assets/results/bench.json
python cours.py mesures CHAPITRE     refait les longues mesures d'un chapitre (ou celles nommées à la suite)
python cours.py mesures tableau      rechronomètre toutes les lignes du tableau, tour à tour (machine au repos)
"""


@dataclass
class Options:
    """Une ligne de commande comprise."""

    command: str = "ouvrir"
    help: bool = False
    stay_closed: bool = False
    here: bool = False
    port: int | None = None
    rest: list[str] = field(default_factory=list)


def parse(argv: list[str]) -> Options:
    """La ligne de commande, comprise ; lève `Trouble` sinon."""
    options = Options()
    words = list(argv)
    if words and words[0] in COMMANDS:
        options.command = words.pop(0)
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if word in ("-h", "--help", "--aide"):
            options.help = True
        elif word in ("--no-open", "--sans-ouvrir"):
            options.stay_closed = True
        elif word in ("--here", "--ici"):
            options.here = True
        elif name == "--port":
            value = value or (words.pop(0) if words else "")
            if not value.isdecimal():
                raise Trouble(f"--port attend un nombre, par exemple --port 9000, et non «\u00a0{value}\u00a0».")
            options.port = int(value)
        else:
            options.rest.append(word)
    if options.command == "mesures" and not options.rest and not options.help:
        raise Trouble("Quel chapitre mesurer\u202f? Par exemple\u00a0: python cours.py mesures ch3_quantification")
    if options.rest and options.command == "ouvrir":
        raise Trouble(f"Cette commande n'est pas comprise\u00a0: {' '.join(options.rest)}\n\n{HELP}")
    return options


def run(options: Options, root: Path) -> int:
    """Exécute une ligne de commande comprise, pour le cours de ce dossier ; rend le code de sortie."""
    if options.help:
        print(HELP, end="")
        return 0
    if options.command != "ouvrir":
        needed = {"test": "tests", "bench": "grader", "mesures": "solutions"}[options.command]
        if not (root / needed).is_dir():
            raise Trouble(
                f"«\u00a0{options.command}\u00a0» demande le dossier {needed}/, qui est dans le dépôt du cours, "
                "pas dans ce que reçoivent les étudiants."
            )
    extras = environment.extras(root, testing=options.command in ("test", "bench"))
    if options.here:
        python = environment.current_python()
    else:
        python = environment.prepare(root, extras, previous_will_do=options.command == "ouvrir")
    if options.command == "test":
        return checks.run(python, root, options.rest)
    if options.command == "bench":
        return subprocess.call(
            [python, "-m", "grader.bench.course", *options.rest], cwd=root, env=environment.variables(python)
        )
    if options.command == "mesures":
        return checks.measure(python, root, options.rest)
    if options.stay_closed:
        print("Tout est prêt. Pour ouvrir le cours\u00a0: python cours.py")
        return 0
    return lab.open_course(python, root, options.port)


def main(argv: list[str], root: str) -> int:
    """Point d'entrée de cours.py, qui est dans `root` : les soucis prévus deviennent une phrase, jamais une trace."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # un carnet ou un éditeur peut l'avoir remplacé
            stream.reconfigure(errors="replace", line_buffering=True)
    try:
        return run(parse(argv), Path(root).resolve())
    except Trouble as trouble:
        print(f"\n{trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{place.sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrompu. Relancez «\u00a0python cours.py\u00a0» quand vous voudrez\u00a0: rien n'est perdu.",
            file=sys.stderr,
        )
        return 130
