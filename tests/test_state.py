"""Le dossier où l'atelier retient ce que fait le lecteur : où il est, et ce qui ne peut pas s'y perdre."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from atelier import journal, keep, paths, restore_work, save_work, state, variants
from atelier.models import load_model

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = "ch3_quantification"
KEPT = (
    'from atelier import journal, state\njournal.record_check("ch3_quantification", "x", True)\nprint(state.folder())'
)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Un dossier d'état vide, comme pour un noyau qui vient de démarrer."""
    monkeypatch.setenv("COURS_ETAT", str(tmp_path / "état"))
    monkeypatch.setenv("COURS_ECHELLE", "essai")
    monkeypatch.delenv("COURS_ENREGISTRER", raising=False)
    for name in ("_pending", "_waiting"):
        monkeypatch.setattr(state, name, {})
    for name in ("_said", "_unreadable"):
        monkeypatch.setattr(state, name, set())


def start(code, cwd=ROOT, **env):
    """Un autre processus Python, comme un second carnet."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **env}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    return out.decode()


# --- Où --------------------------------------------------------------------------------------------------------------


def kernel(cells, cwd, **env):
    """Exécute ces cellules dans un vrai noyau qui commence dans `cwd` ; rend ce qu'affiche la dernière."""
    given = {k: v for k, v in os.environ.items() if k not in ("COURS_ETAT", "JPY_SESSION_NAME", "COURS_RACINE")}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = NotebookClient(notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(cwd)}})
    client.execute(env={**given, "PYTHONPATH": str(ROOT), **env})
    return "".join(o.get("text", "") for o in notebook.cells[-1].outputs).strip()


@pytest.fixture
def clone(tmp_path):
    """Un dossier de cours, dans un dossier parent."""
    root = tmp_path / "Mes cours" / "compresser"
    (root / "notebooks").mkdir(parents=True)
    shutil.copytree(ROOT / "atelier", root / "atelier", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "course.toml", root)
    (root / "assets").symlink_to(ROOT / "assets")
    return root


def test_in_the_course_one_place_whatever_the_folder(clone, tmp_path):
    expected = str(clone / "notebooks" / ".atelier")
    seen = [
        kernel([KEPT], clone / "notebooks", PYTHONPATH=str(clone)),
        kernel([KEPT], clone, PYTHONPATH=str(clone)),
        kernel([KEPT], clone.parent, PYTHONPATH=str(clone)),
        kernel(["import os; os.chdir('/')", KEPT], clone / "notebooks", PYTHONPATH=str(clone)),
        kernel(["import atelier, os; os.chdir('/')", KEPT], clone / "notebooks", PYTHONPATH=str(clone)),
        kernel([KEPT], "/", PYTHONPATH=str(clone), JPY_SESSION_NAME=str(clone / "notebooks" / "ch3.ipynb")),
    ]
    assert seen == [expected] * len(seen)
    kept = json.loads((clone / "notebooks" / ".atelier" / state.PROGRESS).read_text())
    assert kept["exercises"][f"{CHAPTER}/x"]["tries"] == len(seen)
    assert not list(tmp_path.rglob("compresser/.atelier")) and not (clone.parent / ".atelier").exists()


def test_in_a_published_course_too_where_the_workshop_is_installed(clone, tmp_path, monkeypatch):
    package = clone / "atelier"
    for name in ("course.toml", "assets"):
        (clone / name).rename(package / name)
    course = tmp_path / "cours"
    (course / "notebooks").mkdir(parents=True)
    (course / "cours.py").touch()
    seen = [
        kernel([KEPT], course / "notebooks", PYTHONPATH=str(clone)),
        kernel([KEPT], course, PYTHONPATH=str(clone)),
        kernel([KEPT], "/", PYTHONPATH=str(clone), JPY_SESSION_NAME=str(course / "notebooks" / "ch3.ipynb")),
    ]
    assert seen == [str(course / "notebooks" / ".atelier")] * len(seen)
    monkeypatch.setattr(sys, "prefix", str(course / ".venv"))
    assert course in state._courses(tmp_path), "un noyau de ce .venv, qui commence plus haut"


def test_fetched_assignments_share_one_place_beside_them(tmp_path):
    course = tmp_path / "course"
    for name in ("ch1_rappel_gpt2", CHAPTER, "ch4"):
        (course / name).mkdir(parents=True)
    expected = str(course / ".atelier")
    vscode = f"__vsc_ipynb_file__ = {str(course / CHAPTER / 'ch3.ipynb')!r}"
    seen = [
        kernel([KEPT], course / "ch1_rappel_gpt2"),
        kernel([KEPT], course / CHAPTER),
        kernel([KEPT], course / "ch4"),
        kernel([KEPT], course),
        kernel([KEPT], tmp_path),
        kernel(["import os; os.chdir('/tmp')", KEPT], course / CHAPTER),
        kernel([vscode, KEPT], tmp_path.parent),
    ]
    assert seen == [expected] * len(seen)


def test_a_store_already_there_is_found(tmp_path):
    folder = tmp_path / "carnets" / "semaine 3"
    folder.mkdir(parents=True)
    (tmp_path / "carnets" / ".atelier").mkdir()
    (tmp_path / "carnets" / ".atelier" / state.BOARD).write_text("[]")
    assert kernel([KEPT], folder) == str(tmp_path / "carnets" / ".atelier")


def test_a_given_place_wins_and_does_not_move_with_the_current_folder(tmp_path):
    moved = "import os, atelier\nos.chdir('/')"
    assert kernel([moved, KEPT], tmp_path, COURS_ETAT="le mien") == str(tmp_path / "le mien")


def test_what_older_versions_left_is_read_as_it_is(tmp_path):
    """Les fichiers d'avant gardent leur nom et leur forme : rien n'est à convertir, rien n'est perdu."""
    folder = state.folder()
    folder.mkdir()
    old = {"exercises": {f"{CHAPTER}/x": {"tries": 7, "passed": True, "hints": 2}}, "quizzes": {}, "reader": "abc"}
    (folder / state.PROGRESS).write_text(json.dumps(old))
    line = {"name": "int8", "chapter": CHAPTER, "perplexity": 12.0, "bytes": 10, "ms": 1.0, "rank": 3}
    (folder / state.BOARD).write_text(json.dumps([line]))
    journal.record_check(CHAPTER, "x", False)
    found = journal.read()
    assert found["exercises"][f"{CHAPTER}/x"] == {"tries": 8, "passed": True, "hints": 2} and found["reader"] == "abc"
    assert next(r for r in variants.rows() if r["name"] == "int8")["perplexity"] == 12.0


# --- Deux noyaux à la fois -------------------------------------------------------------------------------------------


def test_two_kernels_at_once_lose_nothing():
    code = """
        import sys, torch
        from atelier import journal, variants
        from atelier.perplexity import Evaluation
        variants.evaluate_perplexity = lambda model, max_tokens: Evaluation(2.0, 1.0, 1, 1.0)
        variants.window = lambda model: lambda: None
        variants.shape_of = lambda model: None
        model = torch.nn.Linear(2, 2)
        for i in range(25):
            journal.record_check("ch3_quantification", "x", False)
            journal.record_answer("ch3_quantification", f"q{{i}}", True)
            variants.save_variant(f"{name}-{{i}}", model, 10, "ch3_quantification", keep_weights=True)
    """
    running = [start(code.format(name=name)) for name in ("a", "b", "c")]
    for process in running:
        finish(process)
    kept = journal.read()
    assert kept["exercises"][f"{CHAPTER}/x"]["tries"] == 75 and len(kept["quizzes"]) == 25
    mine = [r for r in variants.rows() if r["by"] == "vous"]
    assert len(mine) == 75 and len({r["rank"] for r in mine}) == 75
    assert len(list((state.folder() / state.VARIANTS).glob("*.safetensors"))) == 75


def test_the_lock_of_a_killed_kernel_is_free_at_once():
    held = start("from atelier import state\nwith state._locked():\n    print('tenu', flush=True)\n    input()", ROOT)
    assert held.stdout.readline()
    held.send_signal(signal.SIGKILL)
    held.wait()
    (state.folder() / ".partiel-mort").write_text("ce qu'il écrivait")
    began = time.monotonic()
    journal.record_check(CHAPTER, "x", True)
    assert time.monotonic() - began < state.LOCK_SECONDS / 2
    assert not (state.folder() / ".partiel-mort").exists()


def test_a_lock_that_is_held_keeps_the_work_in_memory_then_writes_it(monkeypatch, capsys):
    monkeypatch.setattr(state, "LOCK_SECONDS", 0.2)
    with state._locked():
        journal.record_check(CHAPTER, "x", True)
        assert "retient" in capsys.readouterr().out
        assert not (state.folder() / state.PROGRESS).exists()
        assert journal.is_passed(journal.read(), CHAPTER, "x")
    journal.record_check(CHAPTER, "y", True)
    kept = json.loads((state.folder() / state.PROGRESS).read_text())
    assert set(kept["exercises"]) == {f"{CHAPTER}/x", f"{CHAPTER}/y"}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_folder_without_locks_is_written_all_the_same(code, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle, how):
        raise OSError(code, "pas de verrou ici")

    monkeypatch.setattr(fcntl, "flock", refuse)
    journal.record_check(CHAPTER, "x", True)
    assert json.loads((state.folder() / state.PROGRESS).read_text())["exercises"]


def test_after_a_full_disk_everything_is_written_and_covers_nothing(monkeypatch, capsys):
    real, full = os.fsync, OSError(errno.ENOSPC, "plus de place")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(full))
    journal.record_check(CHAPTER, "mine", True)
    assert "plus de place" in capsys.readouterr().out and not list(state.folder().glob(".partiel-*"))
    finish(start("from atelier import journal\njournal.record_check('ch3_quantification', 'theirs', True)"))
    monkeypatch.setattr(os, "fsync", real)
    journal.record_check(CHAPTER, "mine", True)
    kept = json.loads((state.folder() / state.PROGRESS).read_text())["exercises"]
    assert kept[f"{CHAPTER}/mine"]["tries"] == 2 and f"{CHAPTER}/theirs" in kept


# --- Ce qui est abîmé ------------------------------------------------------------------------------------------------


def write_three():
    for name in ("x", "y", "z"):
        journal.record_check(CHAPTER, name, True)
    return state.folder() / state.PROGRESS


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "other", "binary", "nested"])
def test_a_damaged_file_is_kept_aside_and_the_version_before_comes_back(damage, capsys):
    path = write_three()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "zeros": bytes(len(whole)),
            "other": b"[1, 2]",
            "binary": b"\xff\xfe\x00\x80",
            "nested": b"[" * 100_000,
        }[damage]
    )
    spoiled = path.read_bytes()
    assert set(journal.read()["exercises"]) >= {f"{CHAPTER}/x", f"{CHAPTER}/y"}
    journal.record_check(CHAPTER, "w", True)
    said = capsys.readouterr().out
    assert said.count("illisible") == 1 and said.count("version précédente") == 1
    assert (state.folder() / "progression.abimee-1.json").read_bytes() == spoiled
    assert set(json.loads(path.read_text())["exercises"]) >= {f"{CHAPTER}/{n}" for n in "xyw"}


def test_the_board_has_the_same_care(capsys):
    def row(name):
        return {"name": name, "chapter": CHAPTER, "perplexity": 9.0, "bytes": 1, "ms": 1.0, "rank": 50, "by": "vous"}

    for name in ("a", "b"):
        state.update(state.BOARD, variants._clean, lambda rows, name=name: rows.append(row(name)))
    path = state.folder() / state.BOARD
    path.write_bytes(path.read_bytes()[:40])
    assert [r["name"] for r in variants.rows() if r["by"] == "vous"] == ["a"]
    assert "tableau.json" in capsys.readouterr().out
    path.write_text(json.dumps([row("a"), {"name": "sans rien"}, 3, row("b") | {"perplexity": "beaucoup"}]))
    assert [r["name"] for r in variants.rows() if r["by"] == "vous"] == ["a"]
    assert "tableau.json" not in capsys.readouterr().out.replace("tableau.json contenait", "")
    asides = [p.read_text() for p in state.folder().glob("tableau.abimee-*")]
    assert len(asides) == 2 and any("sans rien" in text for text in asides)


def test_parts_that_another_version_wrote_are_left_as_they_are():
    state.folder().mkdir()
    (state.folder() / state.PROGRESS).write_text(json.dumps({"exercises": {}, "quizzes": None, "avenir": {"ch3": [1]}}))
    journal.record_check(CHAPTER, "x", True)
    assert json.loads((state.folder() / state.PROGRESS).read_text())["avenir"] == {"ch3": [1]}


def test_odd_entries_are_put_aside(capsys):
    state.folder().mkdir()
    odd = {"exercises": {f"{CHAPTER}/x": {"hints": -4, "tries": "beaucoup"}, "z": 3}, "quizzes": None}
    (state.folder() / state.PROGRESS).write_text(json.dumps(odd))
    journal.progress()
    journal.record_check(CHAPTER, "x", True)
    kept = json.loads((state.folder() / state.PROGRESS).read_text())["exercises"]
    assert kept == {f"{CHAPTER}/x": {"hints": -4, "tries": 1, "passed": True}}
    (aside,) = state.folder().glob("progression.abimee-*")
    assert json.loads(aside.read_text()) == odd and "contenait" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_never_replaced(monkeypatch, capsys):
    path = write_three()
    real = Path.read_bytes

    def refused(self):
        if self == path:
            raise OSError(errno.EIO, "erreur d'entrée-sortie")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    journal.record_check(CHAPTER, "w", True)
    assert "ne se laisse pas lire" in capsys.readouterr().out
    monkeypatch.setattr(Path, "read_bytes", real)
    assert set(json.loads(path.read_text())["exercises"]) == {f"{CHAPTER}/{n}" for n in "xyz"}
    journal.record_check(CHAPTER, "v", True)
    assert set(json.loads(path.read_text())["exercises"]) == {f"{CHAPTER}/{n}" for n in "xyzwv"}


def test_a_read_only_folder_is_said_once_and_keeps_everything_for_the_session(monkeypatch, tmp_path, capsys):
    (tmp_path / "fichier").write_text("")
    monkeypatch.setenv("COURS_ETAT", str(tmp_path / "fichier" / "état"))
    journal.record_check(CHAPTER, "x", True)
    variants.save_variant("essai", load_model("colibri", on="cpu"), 10, CHAPTER, keep_weights=True)
    journal.record_check(CHAPTER, "y", True)
    assert capsys.readouterr().out.count("n'accepte pas d'écriture") == 1
    assert journal.is_passed(journal.read(), CHAPTER, "x")
    assert "essai" in [r["name"] for r in variants.rows()]
    variants.load_variant("essai")
    assert "la vôtre" in capsys.readouterr().out


# --- Variantes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shape", "missing"])
@pytest.mark.parametrize("name", ["int4-gptq", "à moi"])
def test_a_damaged_variant_says_what_to_do(name, damage, capsys):
    from safetensors.torch import save

    model = load_model("colibri", on="cpu")
    variants.save_variant(name, model, 10, CHAPTER, keep_weights=True)
    path = state.folder() / state.VARIANTS / f"{name}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n",
            "shape": save({k: torch.zeros(3) for k, _ in model.named_parameters()}),
            "missing": save({"x": torch.zeros(3)}),
        }[damage]
    )
    capsys.readouterr()
    if name == "int4-gptq":
        variants.load_variant(name)
        said = capsys.readouterr().out
        assert "celle de l'auteur" in said
    else:
        with pytest.raises(ValueError) as caught:
            variants.load_variant(name)
        said = str(caught.value)
    assert "abîmée" in said and "Quantification" in said and "save_variant" in said


@pytest.mark.parametrize("name", ["../dehors", "a/b", "", ".caché", "x" * 61, "a\nb"])
def test_a_variant_stays_in_its_folder(name):
    with pytest.raises(ValueError, match="nom de variante"):
        variants.save_variant(name, load_model("colibri", on="cpu"), 10, CHAPTER, keep_weights=True)


def test_a_variant_that_diverged_is_on_the_board_but_not_on_the_figure(capsys):
    odd = {"name": "folle", "chapter": CHAPTER, "perplexity": float("inf"), "bytes": 1, "ms": 1.0, "rank": 60}
    state.update(state.BOARD, variants._clean, lambda rows: rows.append(odd))
    variants.board()
    assert "folle" in capsys.readouterr().out
    assert paths.root() == ROOT


def test_the_board_of_a_chapter_does_not_tell_what_comes_after(capsys):
    variants.board(until="ch3_quantification")
    told = capsys.readouterr().out
    assert "int4-gptq" in told and "wanda-50" not in told and "aux chapitres suivants" in told
    ahead = {"name": "en-avance", "chapter": "ch8_lora", "perplexity": 12.0, "bytes": 10, "ms": 1.0, "rank": 70}
    state.update(state.BOARD, variants._clean, lambda rows: rows.append(ahead))
    variants.board(until="ch3_quantification")
    assert "en-avance" in capsys.readouterr().out  # la vôtre, d'où qu'elle vienne


# --- Là où la machine s'efface ---------------------------------------------------------------------------------------


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Les fichiers de Colab, tels que le cours s'en sert : ce qui a été téléchargé, ce qu'on y dépose."""
    files = types.ModuleType("google.colab.files")
    files.downloaded, files.sent = [], {}
    files.download, files.upload = files.downloaded.append, lambda: files.sent
    for name, module in (("google", None), ("google.colab", None), ("google.colab.files", files)):
        monkeypatch.setitem(sys.modules, name, module or types.ModuleType(name))
    monkeypatch.setattr(state, "DRIVE", tmp_path / "MyDrive")
    state._located.cache_clear()
    yield files
    state._located.cache_clear()


def test_work_comes_back_on_another_machine(colab, monkeypatch, tmp_path):
    """Progression, tableau et variante, par une archive ; ce que la nouvelle machine avait déjà est gardé à côté."""
    journal.record_check(CHAPTER, "absmax_scale", True)
    variants.save_variant("essai-colab", load_model("colibri"), 12, CHAPTER, "essai", keep_weights=True)
    place = state.folder()
    before = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    archive = save_work(tmp_path / "travail.zip")
    assert colab.downloaded == [str(archive)]
    monkeypatch.setenv("COURS_ETAT", str(tmp_path / "machine neuve"))
    journal.record_check(CHAPTER, "affine_qparams", True)
    mine = (state.folder() / state.PROGRESS).read_bytes()
    colab.sent["travail.zip"] = archive.read_bytes()
    restore_work()
    weights = [name for name in before if name.startswith(state.VARIANTS)]
    for name in (state.PROGRESS, state.BOARD, *weights):
        assert (state.folder() / name).read_bytes() == before[name]
    assert weights and journal.is_passed(journal.read(), CHAPTER, "absmax_scale")
    (aside,) = state.folder().glob("avant_*")
    assert (aside / state.PROGRESS).read_bytes() == mine


@pytest.mark.parametrize("kind", ["vide", "texte", "tronquée", "dehors", "étrangère", "énorme"])
def test_a_wrong_archive_changes_nothing(kind, tmp_path, monkeypatch):
    journal.record_check(CHAPTER, "absmax_scale", True)
    before = (state.folder() / state.PROGRESS).read_bytes()
    path = tmp_path / "travail.zip"
    names = {"dehors": ("../progression.json", "variantes/../../x"), "étrangère": ("carnet.ipynb",)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in names.get(kind, (state.PROGRESS,)):
            archive.writestr(name, "{}")
    if kind == "énorme":
        monkeypatch.setattr(keep, "MOST", 1)
    if kind in ("vide", "texte", "tronquée"):
        path.write_bytes({"vide": b"", "texte": b"bonjour", "tronquée": path.read_bytes()[:-30]}[kind])
    with pytest.raises(ValueError, match="archive"):
        restore_work(path)
    assert (state.folder() / state.PROGRESS).read_bytes() == before and not list(state.folder().glob("avant_*"))
    assert not (tmp_path / "x").exists()


def test_colab_s_drive_keeps_the_work_when_it_is_mounted(colab, monkeypatch):
    monkeypatch.delenv("COURS_ETAT")
    assert "save_work" in state.volatile()
    state.DRIVE.mkdir()
    state._located.cache_clear()
    assert state.folder() == state.DRIVE / "cours" / state.FOLDER and not state.volatile()
