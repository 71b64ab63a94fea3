"""Ce qui arrive dans une archive : toutes les formes, tous les systèmes, archives abîmées ou piégées."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import stat
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from deliveries import (  # noqa: F401
    NEW,
    OLD,
    PATH,
    archive,
    copy_fixture,
    course_fixture,
    essai_fixture,
    said,
    stored,
    students,
    timestamp,
)
from essai import NAME

from grader import UserError
from grader.__main__ import main
from grader.classroom import archives
from grader.classroom.collect import collect, moodle_numbers, slug


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
    assert {student for student, _ in done.refused} == {"ida-trois", "ida-quatre"}
    for word in ("coupe.ipynb", "recette.ipynb", "rapport.pdf", "de qui"):
        assert word in said(done)
    assert done.unnamed == [f"{NAME}.ipynb"]
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
    monkeypatch.setattr("grader.classroom.collect.MAX_FILE_BYTES", 2_000_000)
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as out:
        link = zipfile.ZipInfo("Lien Nom_1_assignsubmission_file_/tp.ipynb")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("Bombe Nom_2_assignsubmission_file_/tp.ipynb", b"\0" * 50_000_000)
        out.writestr("Bon Nom_3_assignsubmission_file_/tp.ipynb", copy)
    done = collect(course, source)
    assert set(done.stored) == {("bon-nom", NAME)}
    assert any("lien symbolique" in t for t in done.remarks) and any(
        "plus de 1,907\u00a0Mio" in t for t in done.remarks
    )
    (tmp_path / "b.zip").write_bytes(source.read_bytes()[:-200])
    with pytest.raises(UserError, match="n'est pas une archive"):
        collect(course, tmp_path / "b.zip")
    outside = tmp_path / "dehors.ipynb"
    outside.write_bytes(copy)
    folder = tmp_path / "copies" / "malin"
    folder.mkdir(parents=True)
    (folder / "tp.ipynb").symlink_to(outside)
    assert collect(course, tmp_path / "copies").stored == {}


# ---------------------------------------------------------------------------------------------- ce qui arrive


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_772_600_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


WAYS = {
    "x.ipynb": lambda c: c,
    "X.IPYNB": lambda c: c,
    "x.ipynb.txt": lambda c: c,
    "x.txt": lambda c: b"\xef\xbb\xbf" + c,
    "x.json": lambda c: json.dumps(json.loads(c), indent=1).encode(),
    "x.ipynb.json": lambda c: c,
    "sans extension": lambda c: c,
    "rendu.zip": lambda c: zipped({"dossier/x.ipynb": c, "dossier/.DS_Store": b"", "__MACOSX/._x.ipynb": b"\0"}),
    "double.zip": lambda c: zipped({"rendu.zip": zipped({"x.ipynb": c})}),
    "faux.ipynb": lambda c: zipped({"x.ipynb": c}),
    "rendu.tar": lambda c: tarred({"x.ipynb": c}, "w"),
    "rendu.tgz": lambda c: tarred({"a/x.ipynb": c}),
    "x.ipynb.gz": gzip.compress,
    "x.ipynb.xz": lzma.compress,
    "x.ipynb.bz2": bz2.compress,
}


@pytest.mark.parametrize("name", WAYS)
def test_a_notebook_is_found_however_it_was_sent(course, copy, tmp_path, name):
    files = {
        f"Ana Silva_1_assignsubmission_file_/{name}": WAYS[name](copy),
        "Bo Li_2_assignsubmission_file_/x.ipynb": copy,
    }
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert set(done.stored) == {("ana-silva", NAME), ("bo-li", NAME)}, said(done)
    assert json.loads(stored(course)[f"ana-silva/{NAME}/{NAME}.ipynb"].decode("utf-8-sig")) == json.loads(copy)


SENT = {
    "devoir.py": (b"def f(): pass", "programme Python"),
    "page.html": (b"<html>", "page HTML"),
    "rapport.pdf": (b"%PDF", "PDF"),
    "vide.py": (b"", "vide"),
    "donnees.json": (b'{"cells": 3}', "donnees.json"),
    "autre.ipynb": (b'{"cells": [], "nbformat": 4, "nbformat_minor": 5}', "pas le carnet d'un devoir"),
    "x.7z": (b"7z\xbc\xaf\x27\x1c rien", "7z"),
    "x.rar": (b"Rar!\x1a\x07 rien", "RAR"),
    "vide.zip": (zipped({}), "archive"),
    "casse.zip": (zipped({"x.ipynb": b"x" * 999})[:-30], "archive illisible"),
    "pdf.zip": (zipped({"rapport.pdf": b"%PDF"}), "rapport.pdf"),
    "emboite.zip": (
        zipped({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"d.zip": zipped({"e": b"e"})})})})}),
        "emboîtées",
    ),
}


@pytest.mark.parametrize("name", SENT)
def test_whoever_sent_something_else_is_refused_by_name(course, copy, tmp_path, name):
    data, word = SENT[name]
    files = {f"Ana Silva_1_assignsubmission_file_/{name}": data, "Bo Li_2_assignsubmission_file_/x.ipynb": copy}
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert set(done.refused) == {("ana-silva", NAME)} and set(done.stored) == {("bo-li", NAME)}
    assert word in done.refused["ana-silva", NAME]
    assert moodle_numbers(course, NAME)["ana-silva"]["number"] == "1"
    before = stored(course)
    collect(course, tmp_path / "a.zip")
    assert stored(course) == before
    collect(course, archive(tmp_path / "b.zip", {PATH: copy}, (2001, 1, 1, 0, 0, 0)))
    assert stored(course)[f"ana-silva/{NAME}/{NAME}.ipynb"] == copy


def test_an_online_text_and_an_empty_notebook_are_refused_by_name(course, copy, tmp_path):
    files = {
        "Ana Silva_1_assignsubmission_onlinetext_/onlinetext.html": b"<p>voir mon Colab</p>",
        "Bo Li_2_assignsubmission_onlinetext_onlinetext.html": b"<p>x</p>",
        "Cy Roy_3_assignsubmission_file_/x.ipynb": b"",
        "Di Roy_4_assignsubmission_file_/x.ipynb": copy,
        "Di Roy_4_assignsubmission_onlinetext_/onlinetext.html": b"<p>bonjour</p>",
    }
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert set(done.refused) == {("ana-silva", NAME), ("bo-li", NAME)}
    assert all("texte écrit dans Moodle" in text for text in done.refused.values())
    assert set(done.stored) == {("cy-roy", NAME), ("di-roy", NAME)} and "le fichier est vide" in said(done)
    assert students(course) == {"ana-silva", "bo-li", "cy-roy", "di-roy"}


def test_a_refusal_never_takes_a_copys_place(course, copy, tmp_path):
    collect(course, archive(tmp_path / "a.zip", {PATH: copy}, OLD))
    done = collect(course, archive(tmp_path / "b.zip", {PATH.replace("tp.ipynb", "rapport.pdf"): b"%PDF"}, NEW))
    assert stored(course) == {f"ana-silva/{NAME}/{NAME}.ipynb": copy} and "rapport.pdf" in said(done)


# ---------------------------------------------------------------------------------------------- d'où elles viennent


def raw_zip(path: Path, entries: dict[bytes, bytes], flag: int = 0) -> Path:
    """Une archive dont les noms sont ces octets, sans la marque UTF-8 (sauf si flag la met)."""
    files = {f"{i:0{len(raw)}d}"[: len(raw)]: (raw, data) for i, (raw, data) in enumerate(entries.items())}
    content = zipped({short: data for short, (_, data) in files.items()})
    for short, (raw, _) in files.items():
        content = content.replace(short.encode(), raw)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "encode",
    [
        lambda name: name.encode("utf-8"),
        lambda name: unicodedata.normalize("NFD", name).encode("utf-8"),
        lambda name: name.encode("cp850"),
        lambda name: name.encode("cp437"),
        lambda name: name.encode("cp1252"),
    ],
)
@pytest.mark.parametrize("name", ["Zoé Lefèvre", "Éloïse Garçon", "François Müller", "Anaïs Côté"])
def test_accents_come_back_whatever_made_the_archive(course, copy, tmp_path, encode, name):
    try:
        raw = encode(f"{name}_4711_assignsubmission_file_/tp.ipynb")
    except UnicodeEncodeError:
        pytest.skip("cette page de code n'a pas ces lettres")
    collect(course, raw_zip(tmp_path / "a.zip", {raw: copy}))
    (student,) = students(course)
    assert student == slug(name) and moodle_numbers(course, NAME)[student]["name"] == name


def test_archives_of_macos_and_windows(course, copy, tmp_path):
    files = {
        "tp\\Ana Silva_1_assignsubmission_file_\\tp.ipynb": copy,
        "__MACOSX/tp/Ana Silva_1_assignsubmission_file_/._tp.ipynb": b"\0\5\x16\7",
        "tp/.DS_Store": b"\0",
        "tp/Thumbs.db": b"\0",
        "tp/Bo Li_2_assignsubmission_file_/": b"",
        "tp/Bo Li_2_assignsubmission_file_/tp.ipynb": copy,
    }
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert students(course) == {"ana-silva", "bo-li"} and done.remarks == []


def damaged(path: Path, method: int, copy: bytes) -> Path:
    """Trois copies, celle du milieu abîmée."""
    with zipfile.ZipFile(path, "w", method) as out:
        for i, who in enumerate(("Ana Un_1", "Ana Deux_2", "Ana Trois_3")):
            out.writestr(f"{who}_assignsubmission_file_/tp.ipynb", copy + b" " * i)
        start = out.infolist()[1].header_offset
    content = bytearray(path.read_bytes())
    for i in range(start + 120, start + 400):
        content[i] ^= 0x5A
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_stops_nobody(course, copy, tmp_path, method):
    done = collect(course, damaged(tmp_path / "a.zip", method, copy))
    assert {s for s, _ in done.stored} == {"ana-un", "ana-trois"}
    assert set(done.refused) == {("ana-deux", NAME)} and "abîmé" in done.refused["ana-deux", NAME]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda entry: entry.__setitem__(slice(6, 8), b"\x01\x00"), "mot de passe"),
        (lambda entry: entry.__setitem__(slice(8, 10), b"\x63\x00"), "compressé"),
    ],
)
def test_an_entry_python_cannot_read_is_refused_by_name(course, copy, tmp_path, change, word):
    content = bytearray(
        zipped({"Ana Un_1_assignsubmission_file_/tp.ipynb": copy, "Bo Li_2_assignsubmission_file_/x.ipynb": copy})
    )
    local = memoryview(content)[:30].obj
    entry = bytearray(local[:30])
    change(entry)
    content[:30] = entry
    central = content.index(b"PK\x01\x02")
    header = bytearray(content[central + 2 : central + 32])  # les mêmes champs, deux octets plus loin
    change(header)
    content[central + 2 : central + 32] = header
    (tmp_path / "a.zip").write_bytes(content)
    done = collect(course, tmp_path / "a.zip")
    assert set(done.stored) == {("bo-li", NAME)} and word in done.refused["ana-un", NAME]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_archive_is_read(course, copy, tmp_path, mode):
    (tmp_path / "a.tar").write_bytes(tarred({"classe/ana/x.ipynb": copy, "classe/bo/x.ipynb": copy}, mode))
    collect(course, tmp_path / "a.tar")
    assert students(course) == {"ana", "bo"} and timestamp(course, "ana").startswith("2026-03-04")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c" + b"x" * 100, "archive 7z"),
        (b"Rar!\x1a\x07" + b"x" * 100, "archive RAR"),
        (b'{"cells": [], "nbformat": 4}', "c'est un carnet"),
        (b"n'importe quoi", "n'est pas une archive"),
        (b"", "n'est pas une archive"),
        (gzip.compress(b"n'importe quoi", mtime=0), "n'est pas une archive"),
    ],
)
def test_what_cannot_be_opened_is_explained(course, tmp_path, capsys, data, words):
    (tmp_path / "a.bin").write_bytes(data)
    assert main(["collect", str(tmp_path / "a.bin"), "--course", str(course.folder)]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


HOSTILE = "\x1b[2J\x1b]0;pirate\x07Ana\nSilva\u202egnp.exe\u2066\u200f"


def test_hostile_names_never_reach_the_terminal(course, copy, tmp_path, capsys):
    files = {
        f"{HOSTILE}_1_assignsubmission_file_/{HOSTILE}.ipynb": copy,
        f"{HOSTILE}_1_assignsubmission_file_/{HOSTILE}.pdf": b"%PDF",
        f"{HOSTILE}_2_assignsubmission_file_/{HOSTILE}.pdf": b"%PDF",
        f"Copie de {NAME}\n\x1b[31m.ipynb": copy,
        f"{HOSTILE}.txt": b"rien",
    }
    main(["collect", str(archive(tmp_path / "a.zip", files)), "--course", str(course.folder)])
    out = "".join(capsys.readouterr())
    assert len(moodle_numbers(course, NAME)) == 2
    for text in (out, *(p["name"] for p in moodle_numbers(course, NAME).values()), *students(course)):
        assert all(c.isprintable() or c in "\n\u00a0\u202f" for c in text)
    with course.gradebook() as book:
        names = [f"{s.first_name} {s.last_name}" for s in book.students]
    assert all(name.isprintable() for name in names)


def test_bombs_and_crowds_are_bounded(course, copy, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_NESTED_BYTES", 3_000_000)
    monkeypatch.setattr(archives, "MAX_NESTED_FILES", 50)
    zeros = b"{" + b"\0" * 2_000_000
    files = {
        "Ana Un_1_assignsubmission_file_/a.zip": zipped({f"{i}.ipynb": zeros for i in range(20)}),
        "Ana Deux_2_assignsubmission_file_/a.zip": zipped({f"{i}.txt": b"" for i in range(100)}),
        "Ana Trois_3_assignsubmission_file_/a.tgz": tarred({f"{i}.ipynb": zeros for i in range(20)}),
        "Ana Quatre_4_assignsubmission_file_/a.ipynb.gz": gzip.compress(b"{" + b"\0" * 50_000_000),
        "Bo Li_5_assignsubmission_file_/x.ipynb": copy,
    }
    done = collect(course, archive(tmp_path / "a.zip", files))
    assert ("bo-li", NAME) in done.stored
    people = {s for s, _ in (*done.stored, *done.refused)}
    assert people == {"ana-un", "ana-deux", "ana-trois", "ana-quatre", "bo-li"}
    assert stored(course)[f"bo-li/{NAME}/{NAME}.ipynb"] == copy
    assert sum(p.stat().st_size for p in course.folder.rglob("*") if p.is_file()) < 60_000_000


def test_a_damaged_register_of_people_is_explained(course, copy, tmp_path):
    collect(course, archive(tmp_path / "a.zip", {PATH: copy}))
    path = course.folder / "moodle" / "personnes.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(UserError, match="personnes.json est abîmé"):
        collect(course, tmp_path / "a.zip")
