"""Les attaques de tests/attaques.py, corrigées d'un coup entre des étudiants honnêtes.

Aucun point immérité, aucune fuite, les honnêtes ont tout, le lot finit, rien n'a changé sur la machine. Les attaques
rapides tournent à chaque fois ; les lentes (bombes, boucles) sous COURS_LENT=1 et dans l'intégration continue.
"""

from __future__ import annotations

import hashlib
import html.parser
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from attaques import ATTACKS, Attack
from conftest import ROOT, STRICT
from essai import NAME, SOLVED, as_bytes, build_root, cell_of, course_root, filled, load_assignment

from grader.classroom.collect import collect
from grader.classroom.course import Course, prepare
from grader.classroom.marking import Marked, mark
from grader.jail.outside import seal
from grader.jail.outside.dialogue import COPY_SECONDS
from grader.report.write import write_report

if seal.missing() and not STRICT:
    pytest.skip(seal.missing(), allow_module_level=True)

FAST = [name for name, attack in ATTACKS.items() if not attack.slow]
SLOW = [name for name, attack in ATTACKS.items() if attack.slow]
HONEST_EVERY = 6
JOBS = 2
FULL = {"scale_up": 2.0, "count_true": 1.0, "spread": 3.0}


@dataclass
class Outside:
    """Ce qui ne doit ni fuir, ni être joint, ni changer."""

    mark: str = field(default_factory=lambda: f"marque{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: f"canari{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.mark}")
        self.abstract.listen()
        for s in (self.tcp, self.abstract):
            s.setblocking(False)

    def joined(self) -> list[str]:
        """Les prises où quelqu'un s'est présenté."""
        found = []
        for name, s in (("tcp", self.tcp), ("abstraite", self.abstract)):
            try:
                s.accept()
                found.append(name)
            except BlockingIOError:
                pass
        return found


@dataclass
class Batch:
    """Un lot corrigé."""

    root: Path
    course: Course
    outside: Outside
    marked: Marked
    seconds: float
    changed: list[str]

    def scores(self, student: str) -> dict[str, float]:
        return {r.exercise: r.score for r in self.marked.results[student]}

    def said(self, student: str) -> str:
        """Tout ce que la correction dit de cette copie, à elle ou à l'enseignant."""
        texts = [f"{r.message}\n{r.feedback}" for r in self.marked.results[student]]
        return "\n".join([*texts, *self.marked.remarks.get(student, [])])


def student_of(name: str) -> str:
    return f"{ATTACKS[name].family}-{name}".replace("é", "e").replace("ô", "o")


def submission(attack: Attack, template, words: dict[str, str]) -> bytes:
    """Le carnet de l'attaquant."""

    def told(source: str) -> str:
        for word, value in words.items():
            source = source.replace(word, value)
        return source

    answers = SOLVED | ({"spread": attack.function} if attack.function else {})
    nb = filled(template, {k: told(v) for k, v in answers.items()})
    if attack.cell:
        nb.cells.insert(1, nbformat.v4.new_code_cell(told(attack.cell)))
    if attack.change:
        nb = attack.change(nb)
    data = told(as_bytes(nb).decode()).encode()
    return attack.render(data) if attack.render else data


def fingerprint(*folders: Path) -> dict[str, str]:
    """Fichier → empreinte, pour tout ce qui ne doit pas changer."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            mine = path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
            if mine and not {".git", "__pycache__", ".venv"} & set(path.parts):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def grade_all(names: list[str], tmp: pytest.TempPathFactory):
    root = build_root(tmp.mktemp("racine"))
    folder = tmp.mktemp("cours") / "cours"
    outside = Outside()
    with course_root(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURS_SECRET", outside.secret)
        prepare(folder)
        (folder / "secret.txt").write_text(outside.secret)
        course, template = Course(folder), load_assignment(root).template
        words = {"@DEPOT@": str(root), "@COURS@": str(folder), "@PORT@": str(outside.tcp.getsockname()[1])}
        words |= {"@PRISE@": outside.mark, "@MARQUE@": outside.mark, "TROUVÉ": "TROUV\\u00c9"}
        honest = as_bytes(filled(template, SOLVED | {"spread": SOLVED["spread"] + f"# {outside.secret}\n"}))
        for rank, name in enumerate(names):
            if rank % HONEST_EVERY == 0:
                place(course, f"honnete-{rank}").write_bytes(honest)
            path, data = place(course, student_of(name)), submission(ATTACKS[name], template, words)
            if ATTACKS[name].place:
                ATTACKS[name].place(path, data, folder)
            else:
                path.write_bytes(data)
        watched = [ROOT / "atelier", ROOT / "grader", root / "solutions", root / "notebooks", folder / "submitted"]
        before, packages = fingerprint(*watched), site_listing()
        start = time.monotonic()
        marked = mark(course, NAME, jobs=JOBS)
        seconds = time.monotonic() - start
        after = fingerprint(*watched)
        changed = [p for p in {*before, *after} if before.get(p) != after.get(p)]
        changed += sorted(site_listing() ^ packages)
        yield Batch(root, course, outside, marked, seconds, changed)


def place(course: Course, student: str) -> Path:
    path = course.path("submitted", student, NAME) / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    return path


def site_listing() -> set[str]:
    """Ce que contient, en surface, le dossier des paquets de ce Python."""
    folders = [p for p in sys.path if p.endswith("site-packages")]
    return {os.path.join(p, name) for p in folders for name in os.listdir(p)}


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    yield from grade_all(FAST, tmp_path_factory)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    yield from grade_all(SLOW, tmp_path_factory)


def check_attack(batch: Batch, name: str) -> None:
    attack, student = ATTACKS[name], student_of(name)
    scores, said = batch.scores(student), batch.said(student)
    assert student not in batch.marked.unsaved, said
    assert scores["spread"] == attack.deserved, f"points immérités ou perdus : {said}"
    assert attack.others <= scores["scale_up"] + scores["count_true"] <= 3.0, said
    assert batch.outside.secret not in said and "TROUVÉ" not in said, f"fuite : {said}"


def check_batch(batch: Batch, names: list[str]) -> None:
    honest = [s for s in batch.marked.results if s.startswith("honnete-")]
    assert len(honest) == -(-len(names) // HONEST_EVERY)
    assert {s: batch.scores(s) for s in honest} == dict.fromkeys(honest, FULL)
    with batch.course.gradebook() as book:
        for student in batch.marked.results:
            total = book.find_submission_notebook(NAME, NAME, student).score
            assert total == sum(batch.scores(student).values()), student
    assert batch.changed == []
    assert batch.outside.joined() == []
    assert not [p for p in Path("/proc").glob("[0-9]*") if batch.outside.mark in command_of(p)]
    for folder in (Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"), Path.home()):
        assert not [
            p for p in folder.glob("*") if p.name in ("lettre", "sitecustomize.py", f"{batch.outside.mark}.pth")
        ]
    assert batch.seconds < COPY_SECONDS * len(batch.marked.results) / JOBS, "chacune s'est tenue à sa limite"


def command_of(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("name", FAST)
def test_a_fast_attack_gains_nothing(fast, name):
    check_attack(fast, name)


def test_around_the_fast_attacks_nothing_suffers(fast):
    check_batch(fast, FAST)
    print(f"{len(fast.marked.results)} copies, {fast.seconds:.0f} s")


@pytest.mark.lent
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_attack_gains_nothing(slow, name):
    check_attack(slow, name)


@pytest.mark.lent
def test_around_the_slow_attacks_nothing_suffers(slow):
    check_batch(slow, SLOW)
    print(f"{len(slow.marked.results)} copies, {slow.seconds:.0f} s")


def test_there_are_enough_attacks_of_every_kind():
    kinds = Counter(a.family for a in ATTACKS.values())
    assert len(ATTACKS) >= 60 and min(kinds.values()) >= 5 and len(kinds) == 7


# --- ce que l'enseignant ouvre ----------------------------------------------------------------------------------------

RISKY = (
    "script",
    "iframe",
    "object",
    "embed",
    "svg",
    "annotation-xml",
    "maction",
    "style",
    "link",
    "form",
    "base",
    "meta",
    "img",
)


class Page(html.parser.HTMLParser):
    """Les balises risquées d'une page, et ce qu'aucune page ne doit contenir."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in RISKY:
            self.tags[tag] += 1
        if tag == "math" and not {name for name, _ in attributes} <= {"xmlns", "display"}:  # atelier.export.mathml
            self.wrong.append(f"<{tag}> avec {attributes}")
        for name, value in attributes:
            scheme = re.sub(r"[\s\x00-\x1f]", "", value or "").lower()
            if name.startswith("on") or re.match(r"(javascript|vbscript|data:text)", scheme):
                self.wrong.append(f"<{tag} {name}={value!r}>")
            if name == "src" and tag == "img" and not scheme.startswith("data:image/"):
                self.wrong.append(f"image d'ailleurs : {value}")


def test_the_pages_the_instructor_opens_run_nothing(fast):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for pattern in ("page-*", "honnete-0"):
        command = [sys.executable, "-m", "nbgrader", "generate_feedback", NAME, "--student", pattern]
        done = subprocess.run(
            command, cwd=fast.course.folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    pages = {p.parent.parent.name: Page(p.read_text()) for p in fast.course.folder.glob(f"feedback/*/{NAME}/*.html")}
    honest = pages.pop("honnete-0")
    assert len(pages) == sum(a.family == "page" for a in ATTACKS.values())
    for student, page in pages.items():
        assert page.wrong == honest.wrong == [], student
        assert {t: n for t, n in page.tags.items() if n > honest.tags[t]} == {}, student


def test_the_report_runs_nothing(fast, tmp_path):
    written = write_report(fast.course, NAME, tmp_path / "bilan", None)
    for path, _ in written:
        if path.suffix == ".html":
            page = Page(path.read_text())
            assert page.wrong == [] and fast.outside.secret not in path.read_text().replace(
                f"# {fast.outside.secret}", ""
            )
            assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)


def test_graded_notebooks_hold_no_active_content(fast):
    published = load_assignment(fast.root).template.notebook.metadata
    known = {"kernelspec", "language_info", "atelier", *published}
    for student in fast.marked.results:
        path = fast.course.path("autograded", student, NAME) / f"{NAME}.ipynb"
        nb = nbformat.read(path, as_version=4)
        nbformat.validate(nb)
        assert path.stat().st_size < 3_000_000, student
        kinds = {mime for c in nb.cells for o in c.get("outputs", []) for mime in o.get("data", {})}
        assert kinds <= {"text/plain", "image/png", "image/jpeg"}, student
        assert not [c for c in nb.cells if c.cell_type == "raw" or c.get("attachments")], student
        assert not [c for c in nb.cells if c.cell_type == "markdown" and re.search(r"<[a-z/!?]", c.source, re.I)]
        assert set(nb.metadata) <= known, student


@pytest.mark.parametrize("student", ["page-retour-mis-en-scene", "page-nom-sur-plusieurs-lignes"])
def test_a_student_cannot_stage_the_feedback(fast, student):
    feedback = next(r.feedback for r in fast.marked.results[student] if r.exercise == "spread")
    assert not [line for line in feedback.splitlines() if line.startswith("✔")]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", feedback)


# --- une archive hostile ----------------------------------------------------------------------------------------------


def test_a_hostile_archive_writes_nowhere_else(fast, tmp_path):
    root = build_root(tmp_path / "racine")
    with course_root(root):
        prepare(tmp_path / "cours")
        course, copy = Course(tmp_path / "cours"), as_bytes(filled(load_assignment(root).template, SOLVED))
        archive = tmp_path / "depot.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for name in ("../../evade.ipynb", "/abs/olu.ipynb", "a/../../../b/x.ipynb", "C:\\x\\y.ipynb", "~/z.ipynb"):
                out.writestr(name, copy)
            for person in (
                "<script>alert(1)<",
                "....",
                "gradebook.db",
                "CON",
                "a" * 300,
                "é\u202e\u0000x",
                "-rf",
                "*?[",
            ):
                out.writestr(f"{person}_42_assignsubmission_file_/x.ipynb", copy)
            link = zipfile.ZipInfo("Lien Mou_43_assignsubmission_file_/x.ipynb")
            link.external_attr = 0o120777 << 16
            out.writestr(link, "/etc/passwd")
            out.writestr("Bombe Zip_44_assignsubmission_file_/x.ipynb", b"0" * 120_000_000)
        before = {p for p in tmp_path.rglob("*") if "cours" not in p.relative_to(tmp_path).parts}
        done = collect(course, archive)
        after = {p for p in tmp_path.rglob("*") if "cours" not in p.relative_to(tmp_path).parts}
        assert after == before
        stored = [p for p in (tmp_path / "cours" / "submitted").rglob("*") if p.is_file()]
        assert all(p.name in (f"{NAME}.ipynb", "timestamp.txt") and not p.is_symlink() for p in stored)
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", student) for student, _ in done.stored)
        assert not {"lien-mou", "bombe-zip"} & {student for student, _ in done.stored}


def test_the_answer_of_an_attacker_is_read_as_text_only(fast):
    """Aucune attaque n'a fait exécuter du code du côté sûr : il n'y en aurait de trace que là."""
    assert "EMPOISONNE" not in os.environ
    path = fast.course.path("autograded", "honnete-0", NAME) / f"{NAME}.ipynb"
    assert fast.outside.secret in cell_of(nbformat.read(path, as_version=4), "spread").source
