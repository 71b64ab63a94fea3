"""Ranger les copies : de qui elles sont, laquelle garder, de quand elle date."""

from __future__ import annotations

import os
import struct
import time
import unicodedata
import zipfile
from datetime import UTC, datetime

import pytest
from deliveries import (  # noqa: F401
    NEW,
    OLD,
    OTHER,
    PATH,
    archive,
    copies_fixture,
    copy_fixture,
    course_fixture,
    essai_fixture,
    folder_of,
    moodle,
    put,
    said,
    stored,
    students,
    timestamp,
    versions,
)
from essai import NAME
from nbgrader.utils import parse_utc

from grader.__main__ import main
from grader.classroom.collect import collect, moodle_numbers, slug


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
    assert students(course) == {"ana-silva-1", "ana-silva-2", "bo-li"}


def test_folders_of_notebooks_whatever_their_shape(course, copy, tmp_path):
    names = (
        "camille/tp1.ipynb",
        f"dominique/{NAME}/{NAME}.ipynb",
        "Élise Roy.ipynb",
        f"farid_{NAME} (2).ipynb",
        "camille/.ipynb_checkpoints/tp1-checkpoint.ipynb",
    )
    done = collect(course, folder_of(tmp_path / "copies", dict.fromkeys(names, copy)))
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


# ---------------------------------------------------------------------------------------------- qui est qui


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            ["tp3-A/notebooks/NAME.ipynb", "tp3-B/notebooks/NAME.ipynb", "tp3-C/notebooks/NAME.ipynb"],
            "tp3-A tp3-B tp3-C",
        ),
        (["A/rendu/x.ipynb", "B/rendu/x.ipynb"], "A B"),
        (["etudiant1/mon travail/x.ipynb", "etudiant2/mon travail/x.ipynb"], "etudiant1 etudiant2"),
        (["promo/groupe A/ana/x.ipynb", "promo/groupe A/bo/x.ipynb", "promo/groupe B/cy/rendu/x.ipynb"], "ana bo cy"),
        (["Lyon/ana/x.ipynb", "Lyon/bo/x.ipynb", "Paris/cy/x.ipynb", "Paris/dé/x.ipynb"], "ana bo cy de"),
        (["submitted/ana/NAME/NAME.ipynb", "submitted/bo/NAME/NAME.ipynb"], "ana bo"),
        (["NAME/ana/x.ipynb", "NAME/bo/x.ipynb"], "ana bo"),
        (["ana+NAME+2026-03-04 05:06:07 UTC+x1/NAME.ipynb", "bo+NAME+2026-03-04 05:06:07 UTC/NAME.ipynb"], "ana bo"),
        (["silvaana_12345_67890_NAME.ipynb", "libo_LATE_12346_67891_NAME-1.ipynb"], "silvaana libo"),
        (
            ["tp_NAME_ana_attempt_2026-03-04-05-06-07_NAME.ipynb", "tp_NAME_bo_attempt_2026-03-04-05-06-07.ipynb"],
            "ana bo",
        ),
        (["copies/SILVA Ana - ch1.ipynb", "copies/LI Bo - ch1.ipynb"], "silva-ana li-bo"),
        (["Copie de SILVA Ana - NAME.ipynb", "NAME_li_bo (2).ipynb"], "silva-ana li_bo"),
        (["TD 1/SILVA Ana - ch1.ipynb", "TD 1/LI Bo - ch1.ipynb", "TD 2/ROY Cy - ch1.ipynb"], "silva-ana li-bo roy-cy"),
        (["groupe1/NAME.ipynb", "groupe2/NAME.ipynb"], "groupe1 groupe2"),
        (["21503456/NAME.ipynb", "21503457/NAME.ipynb"], "21503456 21503457"),
        (["ana/v1/x.ipynb", "ana/v2/x.ipynb", "bo/x.ipynb"], "ana bo"),
        (["ana/quantif.ipynb", "ana/autre essai.ipynb", "bo/x.ipynb"], "ana bo"),
        (["cours-ana-main/notebooks/x.ipynb", "cours-bo-main/notebooks/x.ipynb"], "cours-ana-main cours-bo-main"),
        (["ana.zip/x.ipynb"], "ana.zip"),
    ],
)
@pytest.mark.parametrize("kind", ["archive", "dossier"])
def test_the_path_element_that_tells_copies_apart_is_the_name(course, copy, tmp_path, paths, expected, kind):
    files = {path.replace("NAME", NAME): copy + b" " * i for i, path in enumerate(paths)}
    done = collect(
        course, archive(tmp_path / "a.zip", files) if kind == "archive" else folder_of(tmp_path / "d", files)
    )
    assert students(course) == {s.removesuffix(".zip") for s in expected.split()}, said(done)
    assert done.unnamed == []


@pytest.mark.parametrize(
    "name",
    [
        "Copie de NAME.ipynb",
        "Copy of NAME.ipynb",
        "Copie de Copie de NAME.ipynb",
        "Untitled.ipynb",
        "Untitled1.ipynb",
        "Sans titre.ipynb",
        "Sans titre 3.ipynb",
        "mon_tp_v3.ipynb",
        "MonTPfinal.ipynb",
        "NAME (1).ipynb",
        "NAME-Copy1.ipynb",
        "ch1-corrigé-final.ipynb",
        "rendu/NAME.ipynb",
        "notebooks/tp1.ipynb",
        "groupe A/Copie de NAME.ipynb",
        "NAME_20261129_1530.ipynb",
    ],
)
def test_what_names_nobody_is_asked_for(course, copy, tmp_path, name):
    source = tmp_path / "copies"
    folder_of(source, {name.replace("NAME", NAME): copy, "SILVA Ana - ch1.ipynb": copy})
    if "/" in name:
        folder_of(source, {name.replace("NAME", NAME).replace(".ipynb", " (2).ipynb"): copy})
    done = collect(course, source)
    assert students(course) == {"silva-ana"}
    assert name.replace("NAME", NAME) in done.unnamed
    assert "de qui" in said(done) and "dossier au nom de l'étudiant" in said(done)
    assert main(["collect", str(source), "--course", str(course.folder)]) == 1


@pytest.mark.parametrize(
    "people",
    [
        ("Ana Silva_12", "Ana Silva_13"),
        ("Ana Silva 12_40", "Ana Silva_12", "Ana Silva_13"),
        ("Émile Roy_1", "Emile Roy_2"),
        ("李 X_1", "王 X_2"),
        ("李明_1", "王明_2"),
        (f"{'Jean ' * 20}Un_1", f"{'Jean ' * 20}Deux_2"),
        ("ANA SILVA_1", "ana silva_2", "Ana-Silva_3"),
        ("Ana\u200bSilva_1", "AnaSilva_2"),
        ("Participant_1", "Participant_2"),
        ("=1+1_1", "＝1+1_2"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_two_people_never_share_an_identifier(course, copy, tmp_path, people, together):
    data = dict(zip(people, versions(copy, len(people)), strict=True))
    if together:
        found = put(course, tmp_path / "a.zip", data)
    else:
        found = {}
        for i, person in enumerate(people):
            found |= put(course, tmp_path / f"{i}.zip", {person: data[person]})
    assert len(set(found.values())) == len(people) and "" not in found.values()
    assert len({id.casefold() for id in found.values()}) == len(people)
    assert all(len(id) <= 60 for id in found.values())
    numbers = moodle_numbers(course, NAME)
    assert {id: p["number"] for id, p in numbers.items()} == {found[p]: p.rsplit("_", 1)[1] for p in people}
    assert put(course, tmp_path / "encore.zip", data) == found


@pytest.mark.parametrize(
    ("first", "second"),
    [("Ana Silva", "Ána Silva"), ("李 X", "王 X"), ("zoe", "Zoe"), ("李明", "王明"), ("x" * 70, "x" * 71)],
)
def test_folders_of_different_names_are_different_people(course, copy, tmp_path, first, second):
    one, two = versions(copy, 2)
    collect(course, archive(tmp_path / "a.zip", {f"{first}/tp.ipynb": one, f"{second}/tp.ipynb": two}))
    assert sorted(stored(course).values()) == sorted([one, two])
    assert len({s.casefold() for s in students(course)}) == 2
    before = stored(course)
    collect(course, archive(tmp_path / "b.zip", {f"{second}/tp.ipynb": two, "autre/tp.ipynb": copy}))
    assert before.items() <= stored(course).items()


def test_composed_and_decomposed_accents_are_one_person(course, copy, tmp_path):
    for i, form in enumerate(("NFC", "NFD")):
        name = unicodedata.normalize(form, "Zoé Lefèvre")
        collect(course, archive(tmp_path / f"{i}.zip", {f"{name}/tp.ipynb": copy, f"Bo{form}/tp.ipynb": copy}))
    assert students(course) == {"zoe-lefevre", "BoNFC", "BoNFD"}


def test_the_number_decides_from_one_archive_and_assignment_to_the_next(course, copies, tmp_path):
    one, two = versions(copies["right"], 2)
    found = put(course, tmp_path / "a.zip", {"Ana Silva_1": one, "Ana Silva_2": two, "Bo Li_3": one + b" "})
    other = versions(copies["other"], 3)
    alone = put(course, tmp_path / "b.zip", {"Ana Silva_2": other[0]})
    assert alone == {"Ana Silva_2": found["Ana Silva_2"]}
    married = put(course, tmp_path / "c.zip", {"Ana Silva Roy_1": other[1], "Bo Li_3": other[2]})
    assert married == {"Ana Silva Roy_1": found["Ana Silva_1"], "Bo Li_3": found["Bo Li_3"]}
    new = put(course, tmp_path / "d.zip", {"Bo Li_4": copies["other"] + b"  "})
    assert new["Bo Li_4"] not in found.values()
    assert moodle_numbers(course, NAME)[found["Ana Silva_2"]]["number"] == "2"


def test_moodle_numbers_each_assignment_apart(course, copies, tmp_path):
    """Les numéros de Moodle sont par devoir : une classe entière qui en change est la même classe."""
    people = ["Ana Silva", "Bo Li", "Cy Dé"]
    first = put(
        course,
        tmp_path / "a.zip",
        dict(zip([f"{p}_{i}" for i, p in enumerate(people)], versions(copies["right"], 3), strict=True)),
    )
    second = put(
        course,
        tmp_path / "b.zip",
        dict(zip([f"{p}_{i + 50}" for i, p in enumerate(people)], versions(copies["other"], 3), strict=True)),
    )
    assert sorted(first.values()) == sorted(second.values()) == ["ana-silva", "bo-li", "cy-de"]
    assert moodle_numbers(course, NAME)["ana-silva"]["number"] == "0"
    assert moodle_numbers(course, OTHER)["ana-silva"]["number"] == "50"
    late = put(course, tmp_path / "c.zip", {"Cy Dé_52": copies["other"] + b" "})
    assert late == {"Cy Dé_52": "cy-de"}


def test_a_name_known_from_moodle_names_a_folder_and_an_identifier_too(course, copies, tmp_path):
    put(course, tmp_path / "a.zip", {"Zoé Roy_1": copies["right"], "Ana Silva_2": copies["right"] + b" "})
    collect(
        course, folder_of(tmp_path / "d", {"Zoé Roy/x.ipynb": copies["other"], "ana-silva/x.ipynb": copies["other"]})
    )
    assert students(course) == students(course, OTHER) == {"zoe-roy", "ana-silva"}


def test_students_already_in_the_gradebook_are_recognised(course, copy, tmp_path):
    with course.gradebook() as book:
        book.add_student("asilva", first_name="Ana", last_name="SILVA")
        book.add_student("bo-li", first_name="Bo", last_name="Li")
        book.add_student("bo-li-2", first_name="Bo", last_name="Li")
        book.add_student("21503456")
    names = ("Silva Ana_1", "Bo Li_2", "Bo Li_3", "Cy Roy_4")
    found = put(course, tmp_path / "a.zip", dict(zip(names, versions(copy, 4), strict=True)))
    assert list(found.values()) == ["asilva", "bo-li-2", "bo-li-3", "cy-roy"]
    collect(course, folder_of(tmp_path / "d", {"21503456/x.ipynb": copy, "bo-li-2/x.ipynb": copy}))
    assert students(course) == {*found.values(), "21503456"}


def test_homonyms_without_a_number_are_asked_for(course, copies, tmp_path):
    found = put(
        course, tmp_path / "a.zip", dict(zip(("Ana Silva_1", "Ana Silva_2"), versions(copies["right"], 2), strict=True))
    )
    before = stored(course)
    done = collect(
        course, folder_of(tmp_path / "d", {"Ana Silva/x.ipynb": copies["half"], "bo/x.ipynb": copies["right"]})
    )
    assert all(id in said(done) for id in found.values()) and len(done.unnamed) == 1
    assert before.items() <= stored(course).items()


def test_homonyms_of_two_groups(course, copy, tmp_path):
    one, two, three = versions(copy, 3)
    files = {"Groupe 1/Ana Silva/x.ipynb": one, "Groupe 2/Ana Silva/x.ipynb": two, "Groupe 2/Bo/x.ipynb": three}
    collect(course, archive(tmp_path / "a.zip", files))
    assert sorted(stored(course).values()) == sorted([one, two, three])
    before = stored(course)
    collect(course, archive(tmp_path / "b.zip", files))
    assert stored(course) == before


def test_the_same_students_in_two_deliveries_are_the_same(course, copies, tmp_path):
    files = {
        f"remise {n}/{who}/x.ipynb": copies[kind] for n, kind in ((1, "half"), (2, "right")) for who in ("ana", "bo")
    }
    collect(course, archive(tmp_path / "a.zip", files))
    assert stored(course) == {f"{who}/{NAME}/{NAME}.ipynb": copies["right"] for who in ("ana", "bo")}


def test_github_repositories_hold_every_chapter(course, copies, tmp_path):
    files = {}
    for who in ("ana", "bo"):
        files[f"tp1-{who}/notebooks/{NAME}.ipynb"] = copies["right"]
        files[f"tp1-{who}/notebooks/{OTHER}.ipynb"] = copies["other"]
        files |= {f"tp1-{who}/atelier/m{i}.py": b"x = 1\n" for i in range(30)}
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert set(done.stored) == {(f"tp1-{who}", name) for who in ("ana", "bo") for name in (NAME, OTHER)}
    assert len(done.remarks) <= 4 and not done.refused
    more = {f"tp2-{who}/notebooks/{OTHER}.ipynb": copies["other"] + b" " for who in ("ana", "bo", "cy")}
    collect(course, archive(tmp_path / "b.zip", more))
    assert students(course, OTHER) == {"tp1-ana", "tp1-bo", "tp2-cy"}


# ---------------------------------------------------------------------------------------------- laquelle garder


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (("right", NEW), ("half", OLD), "right"),
        (("half", NEW), ("right", OLD), "half"),
        (("right", OLD), ("half", NEW), "half"),
        (("right", OLD), ("half", OLD), "right"),
        (("half", OLD), ("right", OLD), "right"),
        (("right", OLD), ("blank", OLD), "right"),
        (("blank", OLD), ("right", OLD), "right"),
        (("right", OLD), ("broken", NEW), "right"),
        (("broken", NEW), ("right", OLD), "right"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_the_copy_that_is_kept(course, copies, tmp_path, first, second, kept, together):
    contents = {**copies, "broken": copies["right"][:-50]}
    if together:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
            for i, (kind, when) in enumerate((first, second)):
                out.writestr(zipfile.ZipInfo(f"Ana Silva_1_assignsubmission_file_/{i}.ipynb", when), contents[kind])
        results = [collect(course, tmp_path / "a.zip")]
    else:
        results = [
            collect(course, archive(tmp_path / f"{i}.zip", {PATH: contents[kind]}, when))
            for i, (kind, when) in enumerate((first, second))
        ]
    loser = next(kind for kind, _ in (first, second) if kind != kept)
    assert stored(course) == {f"ana-silva/{NAME}/{NAME}.ipynb": contents[kept]}
    aside = [p.read_bytes() for p in (course.folder / "mis_de_cote").rglob("*.ipynb")]
    assert aside == [contents[loser]]
    assert any("laissé de côté" in text or "remplace celle déjà rangée" in text for text in results[-1].remarks)
    when = next(when for kind, when in (first, second) if kind == kept)
    assert parse_utc(timestamp(course, "ana-silva")) == datetime.fromtimestamp(
        time.mktime((*when, 0, 0, -1)), UTC
    ).replace(tzinfo=None)


def test_collecting_again_changes_nothing_and_an_older_archive_neither(course, copies, tmp_path):
    old = archive(
        tmp_path / "old.zip", {PATH: copies["half"], "Bo Li_2_assignsubmission_file_/x.ipynb": copies["half"]}, OLD
    )
    new = archive(tmp_path / "new.zip", {PATH: copies["right"]}, NEW)

    def everything() -> dict[str, bytes]:
        return {
            str(p.relative_to(course.folder)): p.read_bytes()
            for top in ("submitted", "moodle", "mis_de_cote")
            for p in (course.folder / top).rglob("*")
            if p.is_file()
        }

    collect(course, old)
    first = collect(course, new)
    after = everything()
    assert collect(course, new).stored == first.stored and everything() == after
    again = collect(course, old)
    assert everything() == after
    assert any("ana-silva" in t and "laissé de côté" in t for t in again.remarks)
    assert set(again.stored) == {("ana-silva", NAME), ("bo-li", NAME)}
    assert not list(course.folder.glob(".collecte-*")) and not list(course.folder.rglob("*.partiel"))


def test_a_copy_never_takes_another_assignments_place(course, copies, tmp_path):
    collect(course, archive(tmp_path / "a.zip", {PATH: copies["right"]}, OLD))
    wrong = f"Ana Silva_1_assignsubmission_file_/{NAME}.ipynb"
    collect(course, archive(tmp_path / "b.zip", {wrong: copies["other"]}, NEW))
    assert stored(course) == {
        f"ana-silva/{NAME}/{NAME}.ipynb": copies["right"],
        f"ana-silva/{OTHER}/{OTHER}.ipynb": copies["other"],
    }


def test_a_teachers_file_is_not_lost(course, copies, tmp_path):
    """Une copie rangée sans `collect` (échange nbgrader, main de l'enseignant) obéit aux mêmes règles."""
    target = folder_of(course.path("submitted", "ana", NAME), {f"{NAME}.ipynb": copies["right"]})
    (target / "timestamp.txt").write_text("2026-03-05 00:00:00 UTC", encoding="utf-8")
    collect(
        course,
        folder_of(tmp_path / "d", {"ana/x.ipynb": copies["half"], "ana/timestamp.txt": b"2026-03-04 00:00:00 UTC"}),
    )
    assert stored(course)[f"ana/{NAME}/{NAME}.ipynb"] == copies["right"]
    assert timestamp(course, "ana") == "2026-03-05 00:00:00 UTC"


def test_an_interrupted_collection_loses_nothing(course, copies, tmp_path, monkeypatch):
    names = ("Ana Silva_1", "Ana Silva_2", "Bo Li_3")
    data = dict(zip(names, versions(copies["right"], 3), strict=True))
    source = archive(tmp_path / "a.zip", {moodle(p)[0]: d for p, d in data.items()})
    real, count = os.replace, [0]

    def stop(*arguments) -> None:
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        collect(course, source)
    monkeypatch.undo()
    found = put(course, tmp_path / "a.zip", data)
    assert len(set(found.values())) == 3 and len(stored(course)) == 3


# ---------------------------------------------------------------------------------------------- dates


def test_dates_travel_to_nbgrader(course, copy, tmp_path):
    info = zipfile.ZipInfo("Un Un_1_assignsubmission_file_/x.ipynb", NEW)
    info.extra = struct.pack("<HHBi", 0x5455, 5, 1, int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()))
    unknown = zipfile.ZipInfo("Deux Deux_2_assignsubmission_file_/x.ipynb", (1980, 1, 1, 0, 0, 0))
    future = zipfile.ZipInfo("Trois Trois_3_assignsubmission_file_/x.ipynb", (2090, 1, 1, 0, 0, 0))
    forged = zipfile.ZipInfo("Quatre Quatre_4_assignsubmission_file_/x.ipynb", OLD)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for entry in (info, unknown, future, forged):
            out.writestr(entry, copy)
        out.writestr("Quatre Quatre_4_assignsubmission_file_/timestamp.txt", "2020-01-01 00:00:00 UTC")
    collect(course, tmp_path / "a.zip")
    assert timestamp(course, "un-un") == "2026-01-02 03:04:05 UTC"
    assert not (course.path("submitted", "deux-deux", NAME) / "timestamp.txt").exists()
    assert not (course.path("submitted", "trois-trois", NAME) / "timestamp.txt").exists()
    assert timestamp(course, "quatre-quatre").startswith("2026-03-04")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-03-04 05:06:07.123456 UTC", True),
        ("2026-03-04 05:06:07 Europe/Paris\n", True),
        ("hier", False),
        ("\x1b[2J", False),
        ("2026-99-99 00:00:00 UTC", False),
        ("", False),
    ],
)
def test_a_timestamp_beside_the_copy_is_kept(course, copy, tmp_path, text, kept):
    files = {f"ana/{NAME}/{NAME}.ipynb": copy, f"ana/{NAME}/timestamp.txt": text.encode(), "bo/x.ipynb": copy}
    done = collect(course, folder_of(tmp_path / "submitted", files))
    path = course.path("submitted", "ana", NAME) / "timestamp.txt"
    assert path.exists() is kept
    if kept:
        assert path.read_text(encoding="utf-8").strip() == text.strip()
        assert course.directory.get_existing_timestamp(str(path.parent)) is not None
    else:
        assert "timestamp.txt" in said(done) and "\x1b" not in said(done)
    assert not (course.path("submitted", "bo", NAME) / "timestamp.txt").exists()  # la date d'un fichier ne prouve rien
