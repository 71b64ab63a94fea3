"""`python cours.py bench` : ce que coûte le cours sur cette machine, mesuré, affiché et gardé dans assets/results.

Chaque mesure vient d'une commande que le lecteur peut refaire ; le fichier dit sur quelle machine elle a été prise.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from atelier import packs, paths
from atelier.launch import environment
from atelier.text import number
from grader import variables
from grader.authoring.publish import publish

OUTPUT = ("results", "bench.json")
IMPORTS = 7
CHECKS = 5
STARTS = 120.0


@dataclass(frozen=True)
class Measure:
    """Une ligne du tableau."""

    name: str
    value: float
    unit: str
    detail: str


def main(names: list[str]) -> int:
    """Mesure ces groupes, ou tous, affiche le tableau et l'écrit, groupe par groupe."""
    groups = {
        "installation": setups,
        "imports": imports,
        "check": checks,
        "carnets": notebooks,
        "correction": gradings,
        "attaques": attacks,
        "colibri": colibri,
    }
    if unknown := sorted(set(names) - set(groups)):
        raise SystemExit(f"Pas de mesures «\u00a0{', '.join(unknown)}\u00a0». Il y a\u00a0: {', '.join(groups)}.")
    here = machine()  # lu avant de mesurer : corriger change le nombre de fils de ce processus
    for name in names or groups:
        measured = []
        for measure in groups[name]():
            measured.append(measure)
            print(line(measure), flush=True)
        write(here, name, measured, list(groups))
    print(f"\n{here}\nÉcrit dans {paths.asset(*OUTPUT).relative_to(paths.root())}.")
    return 0


def write(here: str, group: str, measured: list[Measure], order: list[str]) -> None:
    """Met les mesures d'un groupe dans le fichier, à côté de celles que cette machine (`here`) y a déjà laissées."""
    target = paths.asset(*OUTPUT)
    kept: dict[str, Any] = {}
    if target.is_file():
        before = json.loads(target.read_text(encoding="utf-8"))
        kept = before["groupes"] if before.get("machine") == here and "groupes" in before else {}
    kept[group] = {"date": date.today().isoformat(), "mesures": [asdict(m) for m in measured]}
    content = {"machine": here, "groupes": {name: kept[name] for name in order if name in kept}}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def line(measure: Measure) -> str:
    """Une ligne du tableau, alignée."""
    return f"{measure.name:<46} {number(measure.value):>9} {measure.unit:<16} {measure.detail}"


def machine() -> str:
    """Processeur, cœurs, mémoire, système et versions."""
    from atelier import hardware

    memory = ""
    if Path("/proc/cpuinfo").is_file():
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = f"{number(installed / 2**30, decimals=0, unit='Gio')} de mémoire, "
    return f"{os.cpu_count()} cœurs, {memory}{hardware.machine()}"


# --- Installer et ouvrir ---------------------------------------------------------------------------------------------


def setups() -> Iterator[Measure]:
    """Première installation d'un dossier d'étudiant, puis deuxième démarrage jusqu'à JupyterLab."""
    with tempfile.TemporaryDirectory(prefix="cours-") as scratch:
        folder = Path(scratch, "cours")
        publish(paths.root(), folder)
        start = time.perf_counter()
        subprocess.run([base_python(), "cours.py", "--no-open"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        detail = "sans .venv\u202f; paquets pris dans le cache de pip quand ils y sont"
        yield Measure("première installation", time.perf_counter() - start, "s", detail)
        yield Measure("deuxième démarrage", start_seconds(folder), "s", "jusqu'à la réponse de JupyterLab")


def base_python() -> str:
    """Le Python qui a servi à créer cet environnement : celui que taperait un étudiant."""
    return getattr(sys, "_base_executable", None) or sys.executable


def start_seconds(folder: Path) -> float:
    """Durée de `python cours.py`, dans un dossier déjà installé, jusqu'à ce que JupyterLab réponde ; l'arrête ensuite.

    Lève `RuntimeError` si quelque chose s'installe, ou si rien ne répond.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURS_", "VIRTUAL_ENV"))}
    env |= {"BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    process = subprocess.Popen([base_python(), "cours.py"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    try:
        while not (address := re.search(r"http://127\.0\.0\.1:(\d+)/lab/tree/notebooks/ch0_accueil\.ipynb", said)):
            text = process.stdout.readline()
            said += text
            if not text or re.match(rf"\d/{environment.STEPS} ", text):
                raise RuntimeError(f"un deuxième démarrage ne devrait qu'ouvrir le cours\u00a0:\n{said}")
        while not answers(int(address.group(1))):
            if process.poll() is not None or time.perf_counter() - start > STARTS:
                raise RuntimeError(f"JupyterLab ne répond pas\u00a0:\n{said}")
            time.sleep(0.1)
        return time.perf_counter() - start
    finally:
        process.terminate()
        process.communicate(timeout=30)


def answers(port: int) -> bool:
    """Vrai si un serveur écoute sur ce port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- Dans le carnet --------------------------------------------------------------------------------------------------


def imports() -> Iterator[Measure]:
    """`import atelier`, dans un Python neuf."""
    code = "import time; start = time.perf_counter(); import atelier; print(time.perf_counter() - start)"
    run = [sys.executable, "-c", code]
    times = [float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) for _ in range(IMPORTS)]
    yield Measure("import atelier", statistics.median(times), "s", f"médiane de {IMPORTS} processus neufs")


def checks() -> Iterator[Measure]:
    """Durée d'un `check` réussi, pour chaque exercice du cours."""
    from atelier import check
    from grader.authoring.chapters import load_chapter

    durations: dict[str, float] = {}
    with state_elsewhere():
        for chapter, pack in packs.load_packs().items():
            loaded = load_chapter(chapter) if pack["exercises"] else None
            for name in pack["exercises"]:
                assert loaded is not None
                answer = loaded.reference(name)
                durations[name] = median(partial(quiet, check, answer), CHECKS)
    if durations:
        slowest = max(durations, key=lambda name: durations[name])
        detail = f"médiane de {len(durations)} exercices, chacun par sa médiane de {CHECKS}"
        yield Measure("check, exercice médian", statistics.median(durations.values()), "s", detail)
        yield Measure("check, exercice le plus lent", durations[slowest], "s", slowest)


def quiet(call: Callable[..., object], *arguments: object) -> None:
    """Appelle sans rien afficher."""
    with contextlib.redirect_stdout(io.StringIO()):
        call(*arguments)


def median(run: Callable[[], object], repeats: int) -> float:
    """Durée médiane d'un appel, en secondes, après un premier appel non compté."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextlib.contextmanager
def state_elsewhere() -> Iterator[None]:
    """La progression du lecteur n'est pas touchée par les mesures."""
    with tempfile.TemporaryDirectory() as folder, variables(COURS_ETAT=folder):
        yield


def notebooks() -> Iterator[Measure]:
    """Durée de chaque carnet résolu, de haut en bas, à l'échelle de cette machine."""
    import nbformat
    from nbclient import NotebookClient

    from atelier import scale

    for path in sorted((paths.root() / "solutions").glob("*/*.ipynb")):
        with state_elsewhere(), tempfile.TemporaryDirectory() as scratch:
            client = NotebookClient(
                nbformat.read(path, as_version=4), kernel_name="python3", resources={"metadata": {"path": scratch}}
            )
            start = time.perf_counter()
            client.execute()
            seconds = time.perf_counter() - start
        yield Measure(
            f"carnet {path.stem}", seconds, "s", f"résolu, échelle «\u00a0{scale().name}\u00a0», noyau compris"
        )


# --- Corriger, et Colibri --------------------------------------------------------------------------------------------


def gradings() -> Iterator[Measure]:
    """Une copie corrigée : notre chaîne et celle de nbgrader, sur les mêmes copies."""
    from grader.bench.grading import measure_crowd, measure_grading

    yield from (Measure(**row) for row in measure_grading())
    yield from (Measure(**row) for row in measure_crowd())


def attacks() -> Iterator[Measure]:
    """Toutes les attaques connues, lentes comprises, entre des copies honnêtes. Lève `RuntimeError` si l'une passe."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_attaques.py"]
    start = time.perf_counter()
    run = subprocess.run(
        command, cwd=paths.root(), env={**os.environ, "COURS_LENT": "1"}, capture_output=True, text=True
    )
    if run.returncode != 0:
        raise RuntimeError(f"une attaque est passée, ou n'a pas pu être essayée\u00a0:\n{run.stdout[-3000:]}")
    counted = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.append('tests'); import attaques; print(len(attaques.ATTACKS))"],
        cwd=paths.root(),
        check=True,
        capture_output=True,
        text=True,
    )
    detail = f"{int(counted.stdout)} attaques nommées, aucune ne passe"
    yield Measure("attaques, en tout", time.perf_counter() - start, "s", detail)


def colibri() -> Iterator[Measure]:
    """Colibri sur tout l'extrait de validation de A."""
    from atelier import evaluate_perplexity, load_model
    from atelier.perplexity import extract

    text = extract("a_validation")
    found = evaluate_perplexity(load_model("colibri"), text, max_tokens=len(text))
    detail = f"a_validation en entier, {number(found.tokens)} jetons, {number(found.seconds, unit='s')}"
    yield Measure("Colibri, bits par octet", found.bits_per_byte, "bits", detail)
    yield Measure("Colibri, perplexité", found.perplexity, "par jeton", detail)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
