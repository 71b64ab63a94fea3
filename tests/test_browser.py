"""Le cours dans un vrai navigateur : JupyterLab tel que `cours.py` l'ouvre, en français, et ses carnets exécutés.

Chaque carnet est exécuté en entier, sans que rien y soit résolu : les seules erreurs sont celles des `check`, et elles
n'arrêtent pas la suite. Dans les deux thèmes, tout s'y lit. COURS_CAPTURES=dossier garde une image de chaque écran.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import ROOT, axe_faults, free_port, plain, serving

from atelier.judging.exercise import Misconception
from atelier.launch import lab
from grader.authoring.chapters import load_chapter

TOKEN = "essai"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
RUN_SECONDS = 180
CHAPTER, AUDITED = "ch3_quantification", "ch7_adapters"
"""Le chapitre d'une première heure, et celui qu'axe-core regarde en entier, sorties comprises, dans les deux thèmes."""

CELLS = """
() => {
  const cells = jupyterapp.shell.currentWidget.content.model.cells;
  return [...Array(cells.length).keys()].map(i => cells.get(i)).filter(c => c.type === "code").map(c => ({
    source: c.sharedModel.getSource(),
    count: c.executionCount,
    outputs: c.outputs.toJSON(),
  }));
}
"""


CONTRASTS = """
() => {
  const parse = text => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return {rgb: n.slice(0, 3), alpha: n.length > 3 ? n[3] : 1};
  };
  const over = (top, below) => top.rgb.map((c, i) => c * top.alpha + below[i] * (1 - top.alpha));
  const light = rgb => {
    const [r, g, b] = rgb.map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const poor = {};
  let seen = 0;
  for (const area of document.querySelectorAll(".jp-OutputArea-output, .jp-MarkdownOutput")) {
    const walker = document.createTreeWalker(area, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement, style = getComputedStyle(element);
      if (!node.data.trim() || !element.getClientRects().length || style.visibility === "hidden") continue;
      seen += 1;
      const ground = behind(element), ink = over(parse(style.color), ground);
      const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      const key = `${style.color} sur ${ground.map(Math.round)}`;
      if (ratio < 4.5 && !(key in poor)) poor[key] = [ratio.toFixed(2), node.data.trim().slice(0, 60)];
    }
  }
  return [poor, seen];
}
"""
"""Couples (encre, fond) des sorties et des textes dont le contraste est sous 4,5 (WCAG 2, AA), et textes vus."""


IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
OURS = [".jp-OutputArea-output", ".jp-MarkdownOutput"]
THEIRS = [".noUi-handle"]
"""Ce qui, dans JupyterLab, est à nous (les textes et les sorties), et ce qui, dedans, est à ipywidgets : la poignée
d'un curseur y est sans nom."""
CUT = """
() => [...document.querySelectorAll(".jp-OutputArea-output, .jp-MarkdownOutput")]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && !/auto|scroll/.test(getComputedStyle(e).overflowX))
  .map(e => e.textContent.trim().slice(0, 80))
"""
"""Les sorties et les textes plus larges que leur place, et qu'aucune barre ne fait défiler."""


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Une copie de ce que reçoit un étudiant, où le navigateur peut écrire."""
    folder = tmp_path_factory.mktemp("cours") / "Élève à l’école"
    folder.mkdir()
    for name in ("atelier", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".atelier", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "course.toml", folder)
    (folder / "assets").symlink_to(ROOT / "assets")
    return folder


@pytest.fixture(scope="module")
def address(course) -> Iterator[str]:
    """JupyterLab, lancé par la commande même de cours.py."""
    python, port = Path(sys.executable), free_port()
    line = [*lab.command(python, course, port, browser=False), "--LabApp.expose_app_in_browser=True"]
    env = lab.variables(python, course, TOKEN) | {"COURS_ECHELLE": "essai", "PYTHONPATH": str(course)}
    del env["COURS_ETAT"]
    with serving(line, port, course / "notebooks", env, course / "jupyter.log") as address:
        yield address


@pytest.fixture
def page(browser, address):
    """Une page dont aucune requête ne quitte la machine."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    outside: list[str] = []
    page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") and address not in r.url else None)
    yield page
    page.close()
    assert not outside, "le cours fonctionne hors ligne"


def open_notebook(page, address: str, name: str) -> None:
    """Ouvre un carnet et attend un noyau au repos."""
    page.goto(f"{address}/lab/tree/notebooks/{name}.ipynb?reset&token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(f"() => {IDLE}", timeout=60_000)


def run_all(page) -> list[dict]:
    """« Exécuter toutes les cellules », comme le menu le fait, et rend les cellules de code."""
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"() => ({CELLS})().every(c => c.count !== null || !c.source.trim())", timeout=RUN_SECONDS * 1000
    )
    return page.evaluate(CELLS)


def assert_readable(page, theme: str) -> None:
    """Dans ce thème de JupyterLab, tout texte du carnet se lit sur son fond."""
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", f"JupyterLab {theme}")
    page.wait_for_selector(f'body[data-jp-theme-name="JupyterLab {theme}"]', state="attached")
    page.wait_for_timeout(500)
    poor, seen = page.evaluate(CONTRASTS)
    assert not poor, f"thème {theme} : {poor}"
    assert seen > 50, "le carnet n'est pas affiché"


def capture(page, name: str, folder: Path) -> None:
    """Une image de chaque écran du carnet."""
    folder.mkdir(parents=True, exist_ok=True)
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    step = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').clientHeight") - 60
    for number, top in enumerate(range(0, max(height - step, 1), step)):
        page.evaluate("top => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = top }", top)
        page.wait_for_timeout(150)
        page.screenshot(path=folder / f"{name}-{number:02}.png")


def errors(cells: list[dict]) -> list[tuple[int, str, str]]:
    """(rang, première ligne de la cellule, erreur) de chaque cellule de code qui a échoué."""
    return [
        (rank, cell["source"].splitlines()[0], f"{output['ename']}: {output['evalue']}")
        for rank, cell in enumerate(cells)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def is_check(cell: dict) -> bool:
    """Vrai pour une cellule qui n'est qu'un `check(…)`."""
    return cell["source"].strip().startswith("check(")


def test_the_interface_is_french(page, address):
    open_notebook(page, address, "ch0_accueil")
    assert page.evaluate("document.documentElement.lang").startswith("fr")
    menus = page.locator(".lm-MenuBar-itemLabel").all_inner_texts()
    assert {"Fichier", "Édition", "Noyau", "Aide"} <= set(menus)
    exported = page.request.get(f"{address}/nbconvert/html/notebooks/ch3_quantification.ipynb?token={TOKEN}").text()
    assert '<html lang="fr">' in exported and "<math" in exported and "<script src" not in exported


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_untouched_notebook_runs_to_its_end_and_fails_only_at_its_checks(page, address, name):
    open_notebook(page, address, name)
    cells = run_all(page)
    wrong = [error for error in errors(cells) if not is_check(cells[error[0]])]
    assert not wrong
    checks = [cell for cell in cells if is_check(cell)]
    failed = [error for error in errors(cells) if is_check(cells[error[0]])]
    assert len(failed) == len(checks), "un exercice non écrit doit arrêter son check, et lui seul"
    for cell in checks:
        shown = [o for o in cell["outputs"] if o["output_type"] == "error"][0]["traceback"]
        assert "reste à écrire" in "".join(shown) and "Traceback" not in "".join(shown)
    pictures = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert not pictures, "une figure s'affiche par show(fig, alt=…), qui lui donne un texte alternatif"
    assert not page.evaluate("[...document.querySelectorAll('.jp-OutputArea img')].filter(i => !i.alt.trim()).length")
    for theme in ("Light", "Dark"):
        assert_readable(page, theme)
        if name == AUDITED:
            assert not axe_faults(page, include=OURS, exclude=THEIRS), theme
        if folder := os.environ.get("COURS_CAPTURES"):
            capture(page, f"{name}-{theme}", Path(folder))


def cell_at(page, start: str):
    """La cellule dont le texte commence ainsi, à l'écran."""
    rank = page.evaluate(
        """start => jupyterapp.shell.currentWidget.content.widgets
          .findIndex(w => w.model.sharedModel.getSource().startsWith(start))""",
        start,
    )
    cell = page.locator(".jp-Notebook .jp-Cell").nth(rank)
    cell.scroll_into_view_if_needed()
    return cell


def write(page, cell, text: str) -> None:
    """Remplace au clavier le texte d'une cellule."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def run_here(page, keys: str = "Control+Enter") -> None:
    """Exécute la cellule où l'on est, au clavier, et attend sa réponse."""
    page.keyboard.press(keys)
    page.wait_for_timeout(200)
    page.wait_for_function(
        f"() => {IDLE} && !document.querySelector('.jp-mod-active .jp-InputPrompt')?.textContent.includes('*')",
        timeout=60_000,
    )


def new_cell(page, cell, text: str):
    """« Échap, b » sous cette cellule, puis le texte. Rend la cellule écrite."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.insert_text(text)
    return page.locator(".jp-Notebook .jp-Cell.jp-mod-active")


def answers(name: str) -> tuple[str, str, Misconception, Sequence[str]]:
    """La cellule résolue de l'exercice, la même avec une idée fausse, cette idée fausse, et ses indices."""
    chapter = load_chapter(CHAPTER, ROOT)
    solved = "\n".join(line for line in chapter.sources[name].split("\n") if "### " not in line)
    mistake = chapter.exercises[name].misconceptions[0]
    return solved, mistake.wrong.apply(solved), mistake, chapter.exercises[name].hints


def test_a_first_hour_as_a_student_spends_it(page, address):
    """Mauvaise réponse, indices, correction, bits, quiz au clavier, curseur, interruption, redémarrage, thème, zoom."""
    solved, wrong, mistake, hints = answers("decode_float")
    open_notebook(page, address, CHAPTER)
    page.evaluate(
        """async () => {
          const panel = jupyterapp.shell.currentWidget;
          for (let i = 0; i < panel.content.widgets.length && !document.querySelector(".noUi-handle"); i++) {
            panel.content.activeCellIndex = i;
            panel.content.deselectAll();
            if (panel.content.activeCell.model.type === "code")
              await jupyterapp.commands.execute("notebook:run-cell");
          }
        }"""
    )
    # Une mauvaise réponse, l'idée fausse reconnue, deux indices, la bonne réponse.
    exercise, check = cell_at(page, "def decode_float"), cell_at(page, "check(decode_float)")
    write(page, exercise, wrong)
    run_here(page, "Shift+Enter")
    run_here(page)
    said = plain(check.inner_text())
    assert "✗" in said and plain(mistake.message)[:60] in " ".join(said.split())
    asked = new_cell(page, check, "hint(decode_float)")
    for hint in hints[:2]:
        run_here(page)
        assert plain(hint)[:60] in " ".join(plain(asked.inner_text()).split())
    write(page, exercise, solved)
    run_here(page, "Shift+Enter")
    run_here(page)
    assert "✔ decode_float" in plain(check.inner_text())
    # Un bit que l'on clique change le nombre ; le quiz se répond au clavier, et le dit.
    bits = cell_at(page, "ch3.explore_bits")
    before = bits.inner_text()
    bits.locator("button[title*='bit 0']").click()
    page.wait_for_function("([cell, before]) => cell.innerText !== before", arg=[bits.element_handle(), before])
    assert "nombre négatif" in bits.inner_text()
    quiz = cell_at(page, 'quiz("formats")')
    quiz.locator("input[type=radio]").first.focus()
    for keys in (["Space"], ["Tab", "Space"]):
        told = quiz.locator("[role=status]").inner_text()
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function(
            "([cell, told]) => cell.querySelector('[role=status]').innerText !== told",
            arg=[quiz.element_handle(), told],
        )
        assert re.match("✔ Oui|✗ Non", quiz.locator("[role=status]").inner_text())
    # Un curseur que l'on traîne redessine la figure.
    handle = page.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    picture = page.locator(".jp-OutputArea-output:has(.noUi-handle) img").first
    before = picture.get_attribute("src")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=8)
    page.mouse.up()
    deadline = time.monotonic() + 20
    while picture.get_attribute("src") == before:  # l'image est remplacée, pas changée
        assert time.monotonic() < deadline, "la figure n'a pas changé"
        page.wait_for_timeout(100)
    assert picture.get_attribute("alt").strip()
    # Dans le thème sombre, à 200 %, rien ne sort de la page ; axe-core n'a rien de sérieux à dire de nos sorties.
    page.set_viewport_size({"width": 650, "height": 450})
    assert_readable(page, "Dark")
    assert not page.evaluate(CUT)
    page.set_viewport_size({"width": 1300, "height": 900})
    assert not axe_faults(page, include=OURS, exclude=THEIRS)
    # Une boucle sans fin s'interrompt (I, I), en français ; sa cellule s'efface (D, D).
    endless = new_cell(page, quiz, "while True: pass")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(f"() => !({IDLE})")
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    page.wait_for_function(f"() => {IDLE}", timeout=30_000)
    assert "interrompu" in endless.inner_text()
    page.keyboard.press("d")
    page.keyboard.press("d")
    # Redémarré (0, 0), il dit ce qu'il faut réexécuter d'abord.
    page.keyboard.press("0")
    page.keyboard.press("0")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_timeout(500)
    page.wait_for_function(f"() => {IDLE}", timeout=60_000)
    for start, name in (("check(absmax_scale)", "absmax_scale"), ("def absmax_scale", "torch")):
        early = cell_at(page, start)
        early.locator(".cm-content").click()
        run_here(page)
        assert name in early.inner_text() and "redémarr" in early.inner_text()


def test_the_welcome_page_leads_to_the_chapters_and_corrects_a_function(page, address, course):
    open_notebook(page, address, "ch0_accueil")
    cells = run_all(page)
    text = json.dumps(cells, ensure_ascii=False)
    assert "Piste" in text and "Machine" in text and "Votre progression" in text
    links = page.locator(".jp-OutputArea a[href]").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    opened = [link for link in links if link.split("?")[0].endswith(".ipynb")]
    assert sorted(link.split("?")[0].split("/")[-1].removesuffix(".ipynb") for link in opened) == NOTEBOOKS[1:]
    page.evaluate(
        """() => {
          const cells = jupyterapp.shell.currentWidget.content.widgets.map(w => w.model);
          const cell = cells.find(c => c.sharedModel.getSource().startsWith("def midpoint"));
          cell.sharedModel.setSource(cell.sharedModel.getSource().replace("a + b / 2", "(a + b) / 2"));
        }"""
    )
    assert "✔ midpoint" in json.dumps(run_all(page), ensure_ascii=False)
