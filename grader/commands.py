"""Lignes de commande de l'enseignant : init, publish, collect, grade, feedback, report, quiz, hub. Chacune rend un code
(0, 1 ou 2)."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import nullcontext
from pathlib import Path

from atelier.text import plural
from grader import PRELOADED
from grader.cli import FrenchParser


def init(argv: list[str]) -> int:
    """`init COURSE [CHAPITRE…]`."""
    parser = FrenchParser("python -m grader init", "Prépare un dossier de cours nbgrader, ou met le sien à jour.")
    parser.add_argument("course", metavar="DOSSIER", type=Path, help="dossier à créer")
    parser.add_argument(
        "chapters",
        metavar="CHAPITRE",
        nargs="*",
        help="les chapitres à y mettre (tous, sinon) ; « expose » y ajoute l'exposé",
    )
    options = parser.parse_args(argv)
    from grader.classroom.course import prepare

    for name, exercises, points in prepare(options.course, options.chapters):
        print(f"{name}\u00a0: {plural(exercises, 'exercice')}, {plural(points, 'point')}")
    print(
        f"Le cours est prêt dans {options.course}. Les carnets à distribuer sont dans release/\u202f; "
        "nbgrader et formgrader s'y lancent comme d'habitude."
    )
    return 0


def publish(argv: list[str]) -> int:
    """`publish --to DIR [--solved CHAPITRE…]`."""
    parser = FrenchParser(
        "python -m grader publish",
        "Écrit le dossier que reçoivent les étudiants, sans réponse (ou avec les corrigés que vous nommez).",
    )
    parser.add_argument("--to", metavar="DOSSIER", type=Path, required=True, help="où l'écrire (vide, ou dépôt git)")
    parser.add_argument(
        "--solved",
        "--corriges",
        metavar="CHAPITRE",
        nargs="+",
        default=[],
        help="y joindre, dans corriges/, les carnets résolus de ces chapitres (après leur date limite)",
    )
    options = parser.parse_args(argv)
    from atelier import paths
    from atelier.text import number
    from grader.authoring.publish import publish as write_bundle

    files = write_bundle(paths.root(), options.to, options.solved)
    size = number(round(sum((options.to / path).stat().st_size for path in files) / 1e6, 1), unit="Mo")
    answers = f"corrigés\u00a0: {', '.join(options.solved)}" if options.solved else "aucune solution"
    print(f"{options.to}\u00a0: {len(files)} fichiers, {size}, {answers}.")
    return 0


def collect(argv: list[str]) -> int:
    """`collect ARCHIVE|DIR [--course DIR]`."""
    parser = FrenchParser(
        "python -m grader collect",
        "Range dans submitted/ une archive (Moodle, Canvas, GitHub…) ou un dossier de carnets.",
        "Code de sortie\u00a0: 0 si chaque carnet a trouvé son étudiant, 1 si l'un d'eux n'est à personne, ou si rien "
        "n'a été rangé.",
    )
    parser.add_argument("source", metavar="ARCHIVE|DOSSIER", type=Path, help="l'archive (.zip, .tar…), ou le dossier")
    add_course(parser)
    options = parser.parse_args(argv)
    import_elsewhere()
    from grader.classroom.collect import collect as sort_copies
    from grader.classroom.course import Course

    done = sort_copies(Course(options.course), options.source)
    for (student, assignment), origin in sorted(done.stored.items()):
        print(f"{student} → {assignment} ({origin})")
    for student, assignment in sorted(done.refused):
        print(f"{student} → {assignment}\u00a0: aucun carnet, refusé")
    for text in done.remarks:
        print(f"À savoir\u00a0: {text}", file=sys.stderr)
    count = len(done.stored)
    print(f"{plural(count, 'copie rangée', 'copies rangées')}.")
    return 1 if done.unnamed or not done.stored else 0


def grade(argv: list[str]) -> int:
    """`grade ASSIGNMENT [--course DIR] [--json OUT] [--jobs N | --dask ADRESSE] [--only ÉTUDIANT] …`."""
    parser = FrenchParser(
        "python -m grader grade",
        "Corrige les copies d'un devoir. Celles qui le sont déjà ne sont pas reprises\u00a0: "
        "une correction interrompue se continue en relançant la même commande.",
        "Code de sortie\u00a0: 0 si tout est corrigé, 1 si une copie demande un regard (refusée, ou sans note "
        "enregistrée), 2 si la correction n'a pas pu se faire ou s'est arrêtée.",
    )
    parser.add_argument("assignment", metavar="DEVOIR", help="par exemple ch3_quantification")
    add_course(parser)
    parser.add_argument("--json", metavar="FICHIER", type=Path, help="écrire aussi une fiche par étudiant et exercice")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", metavar="N", type=int, default=0, help="processus qui corrigent (un par cœur, sinon)")
    where.add_argument(
        "--dask", metavar="ADRESSE", help="corriger sur une grappe dask, par exemple tcp://10.0.0.1:8786"
    )
    parser.add_argument(
        "--only", "--seulement", metavar="ÉTUDIANT", action="append", default=[], help="lui seulement (répétable)"
    )
    parser.add_argument("--redo", "--refaire", action="store_true", help="reprendre aussi les copies déjà corrigées")
    parser.add_argument(
        "--replay", "--graine", metavar="N", type=int, help="rejouer les cas cachés tirés avec cette graine"
    )
    parser.add_argument(
        "--unsealed",
        "--sans-isolement",
        action="store_true",
        help="exécuter les copies avec vos droits, sans rien enfermer\u00a0: pour votre propre code seulement",
    )
    options = parser.parse_args(argv)
    if options.jobs < 0:
        parser.error("--jobs demande un nombre positif")
    if not options.dask:
        import_elsewhere()
    from grader.classroom.course import Course
    from grader.classroom.marking import check_destination, mark, summary, write_records
    from grader.jail.outside import seal

    if options.json:
        check_destination(options.json.resolve())
    pool = None
    if options.dask:
        from grader.classroom.cluster import Cluster

        pool = Cluster(options.dask)
    with seal.unsealed() if options.unsealed else nullcontext():
        marked = mark(
            Course(options.course),
            options.assignment,
            options.jobs,
            options.replay,
            only=options.only,
            redo=options.redo,
            pool=pool,
        )
    if options.json:
        write_records(marked, options.json)
    print(summary(marked))
    return 1 if marked.refused or marked.unsaved else 0


def import_elsewhere() -> None:
    """Lance le processus dont naîtront ceux qui corrigent : il importe torch pendant que celui-ci en fait autant."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(list(PRELOADED))
        forkserver.ensure_running()


def feedback(argv: list[str]) -> int:
    """`feedback ASSIGNMENT [--course DIR]`."""
    parser = FrenchParser(
        "python -m grader feedback",
        "Écrit les pages de retour dans feedback/, avec nbgrader, et refait celles dont la copie corrigée, les notes "
        "ou les commentaires ont changé. Les autres ne sont pas touchées.",
        "Code de sortie\u00a0: 0 si tous les retours sont à jour, 1 si une copie n'a pas pu avoir le sien, 2 si la "
        "commande n'a pas pu se faire.",
    )
    parser.add_argument("assignment", metavar="DEVOIR", help="par exemple ch3_quantification")
    add_course(parser)
    options = parser.parse_args(argv)
    from grader.classroom.course import Course
    from grader.report.feedback import Feedback, summary

    course = Course(options.course)
    pages = Feedback(course, options.assignment)
    done = pages.renew()
    print(summary(done, course.path("feedback")))
    if archive := pages.for_moodle():
        print(f"{archive}\u00a0: les mêmes, à déposer dans Moodle (Téléverser plusieurs fichiers de feedback).")
    return 1 if done.failed else 0


def report(argv: list[str]) -> int:
    """`report ASSIGNMENT [--course DIR]`."""
    parser = FrenchParser("python -m grader report", "Écrit les notes (CSV, Moodle) et le bilan de la classe.")
    parser.add_argument("assignment", metavar="DEVOIR", help="par exemple ch3_quantification")
    add_course(parser)
    parser.add_argument(
        "--worksheet",
        "--feuille",
        metavar="FICHIER",
        type=Path,
        help="feuille d'évaluation téléchargée de Moodle, à remplir",
    )
    options = parser.parse_args(argv)
    from grader.classroom.course import Course
    from grader.report.write import write_report

    course = Course(options.course)
    folder = course.folder / "bilans" / options.assignment
    written = write_report(course, options.assignment, folder, options.worksheet)
    print((folder / "bilan.txt").read_text(encoding="utf-8"))
    for path, what in written:
        print(f"{path}\u00a0: {what}")
    return 0


def quiz(argv: list[str]) -> int:
    """`quiz --to FICHIER [CHAPITRE…]`."""
    parser = FrenchParser(
        "python -m grader quiz", "Écrit les questions des chapitres (tous, si aucun n'est nommé) au format Moodle XML."
    )
    parser.add_argument("chapters", nargs="*", metavar="CHAPITRE", help="par exemple ch3_quantification")
    parser.add_argument("--to", metavar="FICHIER", type=Path, required=True, help="le fichier .xml à écrire")
    options = parser.parse_args(argv)
    from atelier import paths
    from grader import UserError
    from grader.authoring.chapters import chapter_names, load_chapter
    from grader.authoring.questions import moodle_questions

    known = chapter_names(paths.root())
    if unknown := [name for name in options.chapters if name not in known]:
        raise UserError(f"Chapitre inconnu\u00a0: {', '.join(unknown)}. Chapitres écrits\u00a0: {', '.join(known)}.")
    chapters = [load_chapter(name, paths.root()) for name in options.chapters or known]
    data = moodle_questions(chapters)
    paths.write_atomically(options.to, data)
    count = data.count(b'type="multichoice"')
    print(f"{options.to}\u00a0: {plural(count, 'question')}, à importer dans Moodle (Banque de questions, Importer).")
    return 0


def hub(argv: list[str]) -> int:
    """`hub [--course DIR] [--exchange DIR] [--port N]`."""
    from grader.classroom import hub as school

    parser = FrenchParser(
        "python -m grader hub",
        "Écrit la configuration d'un JupyterHub qui donne ce cours, dans l'environnement du Python qui lit cette "
        "ligne\u00a0: voir docs/jupyterhub.md. L'enseignant est le compte à qui appartient le dossier du cours.",
    )
    add_course(parser)
    parser.add_argument(
        "--exchange",
        "--echange",
        metavar="DOSSIER",
        type=Path,
        default=school.EXCHANGE,
        help=f"où devoirs, copies et retours s'échangent ({school.EXCHANGE})",
    )
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="le port du hub, sur 127.0.0.1 (8000)")
    options = parser.parse_args(argv)
    from grader.classroom.course import Course

    school.check_programs(Path(sys.prefix))
    for path in school.write(Course(options.course), Path(sys.prefix), options.exchange.resolve(), options.port):
        print(path)
    config = Path(sys.prefix, "etc", "jupyterhub", "jupyterhub_config.py")
    print(f"Pour lancer le hub\u00a0: {sys.prefix}/bin/jupyterhub -f {config}")
    return 0


def add_course(parser: FrenchParser) -> None:
    parser.add_argument(
        "--course", metavar="DOSSIER", type=Path, default=Path(), help="le dossier du cours (celui où vous êtes)"
    )
