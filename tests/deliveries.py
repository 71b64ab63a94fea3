"""De quoi éprouver le rangement des copies : un cours vide de deux devoirs, et des archives."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import pytest
from essai import (
    CHAPTER,
    DECLARED,
    NAME,
    SOLVED,
    as_bytes,
    build_root,
    course_root,
    filled,
    load_assignment,
    write_chapter,
)

from grader.authoring.build import build_chapter, write
from grader.classroom.collect import collect
from grader.classroom.course import Course, prepare
from grader.classroom.nbglue import assignment

OTHER = "ch2_autre"
RENAMED = {"scale_up": "stretch", "count_true": "tally", "spread": "extent"}


def rename(text: str) -> str:
    for old, new in RENAMED.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(name="essai", scope="module")
def essai_fixture(tmp_path_factory: pytest.TempPathFactory):
    root = build_root(tmp_path_factory.mktemp("racine"))
    with (root / "course.toml").open("a", encoding="utf-8") as out:
        out.write(f'\n[[chapters]]\nname = "{OTHER}"\ntitle = "Autre"\nsubject = "trois autres"\n')
    declared = {rename(id): rename(text) for id, text in DECLARED.items()}
    write_chapter(root / "solutions" / OTHER, rename(CHAPTER), declared)
    folder = tmp_path_factory.mktemp("cours") / "cours"
    with course_root(root):
        assert not write(build_chapter(OTHER, root), root, execute=False)
        prepare(folder)
        template = load_assignment(root).template
        second = {rename(id): rename(source) for id, source in SOLVED.items()}
        copies = {
            "right": filled(template, SOLVED),
            "half": filled(template, {"count_true": SOLVED["count_true"]}),
            "blank": template.blank(),
            "other": filled(assignment(OTHER).template, second),
        }
        yield Course(folder), {kind: as_bytes(notebook) for kind, notebook in copies.items()}


@pytest.fixture(name="course")
def course_fixture(essai) -> Course:
    """Le cours, vidé de ses copies."""
    for name in ("submitted", "moodle", "mis_de_cote"):
        shutil.rmtree(essai[0].folder / name, ignore_errors=True)
    with essai[0].gradebook() as book:
        for student in book.students:
            book.remove_student(student.id)
    return essai[0]


@pytest.fixture(name="copies")
def copies_fixture(essai) -> dict[str, bytes]:
    """Une copie juste, à moitié faite, blanche, d'un autre devoir."""
    return essai[1]


@pytest.fixture(name="copy")
def copy_fixture(essai) -> bytes:
    return essai[1]["right"]


def archive(path: Path, files: dict[str, bytes], when: tuple[int, ...] | None = None) -> Path:
    """Une archive zip. when : la date de toutes ses entrées."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, when or time.localtime()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, data)
    return path


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def stored(course: Course) -> dict[str, bytes]:
    """Les carnets rangés."""
    root = course.folder / "submitted"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.ipynb") if p.is_file()}


def students(course: Course, name: str = NAME) -> set[str]:
    return {path.split("/")[0] for path in stored(course) if path.split("/")[1] == name}


def timestamp(course: Course, student: str, name: str = NAME) -> str:
    return (course.path("submitted", student, name) / "timestamp.txt").read_text(encoding="utf-8").strip()


def said(done) -> str:
    return "\n".join(done.remarks)


def moodle(*people: str, file: str = "tp.ipynb") -> list[str]:
    return [f"{person}_assignsubmission_file_/{file}" for person in people]


def put(course: Course, path: Path, people: dict[str, bytes]) -> dict[str, str]:
    """Ramasse une archive Moodle ; rend personne → identifiant, d'après le contenu rangé."""
    files = {moodle(person)[0]: data for person, data in people.items()}
    collect(course, archive(path, files))
    by_data = {data: path.split("/")[0] for path, data in stored(course).items()}
    return {person: by_data.get(data, "") for person, data in people.items()}


def versions(copy: bytes, count: int) -> list[bytes]:
    return [copy + b"\n" * i for i in range(count)]


OLD, NEW = (2026, 3, 4, 5, 6, 8), (2026, 3, 5, 5, 6, 8)
PATH = "Ana Silva_1_assignsubmission_file_/tp.ipynb"
