"""Ranger les copies : archives Moodle, dossiers de toutes formes, archives piégées."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from essai import NAME, SOLVED, as_bytes, build_root, course_root, filled, load_assignment

from grader import UserError
from grader.collect import collect, moodle_numbers, slug
from grader.course import Course, prepare


@pytest.fixture(scope="module")
def essai(tmp_path_factory: pytest.TempPathFactory):
    root = build_root(tmp_path_factory.mktemp("racine"))
    folder = tmp_path_factory.mktemp("cours") / "cours"
    with course_root(root):
        prepare(folder)
        yield Course(folder), as_bytes(filled(load_assignment(root).template, SOLVED))


@pytest.fixture
def course(essai) -> Course:
    """Le cours, vidé de ses copies."""
    import shutil

    shutil.rmtree(essai[0].folder / "submitted", ignore_errors=True)
    shutil.rmtree(essai[0].folder / "moodle", ignore_errors=True)
    return essai[0]


@pytest.fixture
def copy(essai) -> bytes:
    return essai[1]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def stored(course: Course) -> dict[str, bytes]:
    root = course.folder / "submitted"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_moodle_archive_in_folders_and_flat(course, copy, tmp_path):
    source = archive(
        tmp_path / "a.zip",
        {
            "Zoé Ødegård_4711_assignsubmission_file_/tp1 (1).ipynb": copy,
            "Jean-Luc O'Neil_4712_assignsubmission_file_tp1.ipynb": copy,
            "李 明_4713_assignsubmission_file_/tp1.ipynb": copy,
        },
    )
    collect(course, source)
    assert set(stored(course)) == {
        f"{student}/{NAME}/{NAME}.ipynb" for student in ("zoe-odegard", "jean-luc-o-neil", "participant-4713")
    }
    assert moodle_numbers(course, NAME)["zoe-odegard"] == {"number": "4711", "name": "Zoé Ødegård"}
    with course.gradebook() as book:
        student = book.find_student("jean-luc-o-neil")
        assert (student.first_name, student.last_name) == ("Jean-Luc", "O'Neil")


def test_homonyms_keep_their_number(course, copy, tmp_path):
    source = archive(
        tmp_path / "a.zip",
        {f"Ana Silva_{n}_assignsubmission_file_/tp.ipynb": copy for n in (1, 2)}
        | {"Bo Li_3_assignsubmission_file_/tp.ipynb": copy},
    )
    collect(course, source)
    assert {p.split("/")[0] for p in stored(course)} == {"ana-silva-1", "ana-silva-2", "bo-li"}


def test_folders_of_notebooks_whatever_their_shape(course, copy, tmp_path):
    for name in (
        "camille/tp1.ipynb",
        f"dominique/{NAME}/{NAME}.ipynb",
        "Élise Roy.ipynb",
        f"farid_{NAME} (2).ipynb",
        "camille/.ipynb_checkpoints/tp1-checkpoint.ipynb",
    ):
        path = tmp_path / "copies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(copy)
    done = collect(course, tmp_path / "copies")
    assert {student for student, _ in done.stored} == {"camille", "dominique", "elise-roy", "farid"}
    assert done.remarks == []


def test_two_files_from_one_student_keep_the_last(course, copy, tmp_path):
    folder = tmp_path / "copies" / "gaelle"
    folder.mkdir(parents=True)
    (folder / "b-ancien.ipynb").write_bytes(copy.replace(b"factor * x", b"factor + x"))
    (folder / "a-nouveau.ipynb").write_bytes(copy)
    os.utime(folder / "b-ancien.ipynb", (1, 1))
    done = collect(course, tmp_path / "copies")
    assert stored(course) == {f"gaelle/{NAME}/{NAME}.ipynb": copy}
    assert any("b-ancien.ipynb laissé de côté" in text for text in done.remarks)
    again = copy + b"\n"
    (folder / "a-nouveau.ipynb").write_bytes(again)
    assert any("remplace celle déjà rangée" in text for text in collect(course, tmp_path / "copies").remarks)
    assert stored(course)[f"gaelle/{NAME}/{NAME}.ipynb"] == again


def test_what_is_not_a_copy_is_said_and_what_is_broken_is_kept(course, copy, tmp_path):
    source = archive(
        tmp_path / "a.zip",
        {
            "Ida Un_1_assignsubmission_file_/tp.ipynb": copy,
            "Ida Deux_2_assignsubmission_file_/coupe.ipynb": copy[:-100],
            "Ida Trois_3_assignsubmission_file_/recette.ipynb": b'{"cells": [], "nbformat": 4}',
            "Ida Quatre_4_assignsubmission_file_/rapport.pdf": b"%PDF",
            f"{NAME}.ipynb": copy,
        },
    )
    done = collect(course, source)
    assert {student for student, _ in done.stored} == {"ida-un", "ida-deux"}
    said = "\n".join(done.remarks)
    for word in ("coupe.ipynb", "recette.ipynb", "rapport.pdf", "de qui"):
        assert word in said
    assert stored(course)[f"ida-deux/{NAME}/{NAME}.ipynb"] == copy[:-100]


def test_paths_of_an_archive_never_leave_submitted(course, copy, tmp_path):
    files = {
        f"{prefix}Pirate {i}_{i}_assignsubmission_file_/tp.ipynb": copy
        for i, prefix in enumerate(("../../", "/etc/", "C:\\Windows\\", "a/../../b/"))
    }
    files["..\\..\\x_9_assignsubmission_file_/../../../tp.ipynb"] = copy

    def others() -> set[Path]:
        return {p for p in tmp_path.parent.rglob("*") if not {"submitted", "moodle", "gradebook.db"} & set(p.parts)}

    before = others()
    collect(course, archive(tmp_path / "a.zip", files))
    assert all(p.endswith(f"/{NAME}/{NAME}.ipynb") and ".." not in p for p in stored(course))
    assert len(stored(course)) == 5
    assert others() - before == {tmp_path / "a.zip"}


def test_links_bombs_and_damaged_archives(course, copy, tmp_path, monkeypatch):
    monkeypatch.setattr("grader.collect.MAX_FILE_BYTES", 2_000_000)
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as out:
        link = zipfile.ZipInfo("Lien Nom_1_assignsubmission_file_/tp.ipynb")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("Bombe Nom_2_assignsubmission_file_/tp.ipynb", b"\0" * 50_000_000)
        out.writestr("Bon Nom_3_assignsubmission_file_/tp.ipynb", copy)
    done = collect(course, source)
    assert set(done.stored) == {("bon-nom", NAME)}
    assert any("lien symbolique" in t for t in done.remarks) and any("plus de 1 Mo" in t for t in done.remarks)
    (tmp_path / "b.zip").write_bytes(source.read_bytes()[:-200])
    with pytest.raises(UserError, match="n'est pas une archive"):
        collect(course, tmp_path / "b.zip")
    outside = tmp_path / "dehors.ipynb"
    outside.write_bytes(copy)
    folder = tmp_path / "copies" / "malin"
    folder.mkdir(parents=True)
    (folder / "tp.ipynb").symlink_to(outside)
    assert collect(course, tmp_path / "copies").stored == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Zoé Ødegård", "zoe-odegard"),
        ("../../x", "x"),
        ("Œuvre", "oeuvre"),
        ("a" * 200, "a" * 60),
        ("李明", ""),
        ("", ""),
    ],
)
def test_slugs_are_safe_names(name, expected):
    assert slug(name) == expected
