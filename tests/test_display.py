"""Figures, tableaux, résultats enregistrés et tableau du cours, dans un vrai noyau quand c'est lui qui compte."""

import matplotlib
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from transformers import GPT2Config, GPT2LMHeadModel

from atelier import display, paths, variants
from atelier.perplexity import Evaluation
from atelier.text import number

matplotlib.use("Agg")


def run(cells, tmp_path, **env):
    """Exécute des cellules dans un vrai noyau, dossier courant vide, et rend le carnet."""
    import os

    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = NotebookClient(nb, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}, timeout=120)
    client.execute(env={**os.environ, "COURS_ETAT": str(tmp_path / "etat"), "PYTHONPATH": str(paths.root()), **env})
    return nb


def test_alt_text_reaches_the_exported_page(tmp_path):
    nb = run(
        [
            "from atelier import show, table\nimport matplotlib.pyplot as plt\n"
            "fig, ax = plt.subplots()\nax.plot([1, 2])\nshow(fig, alt='Une droite <qui> monte de « 1 » à « 2 ».')",
            "table([['a', 1.5], ['b', 12345]], header=['nom', 'valeur'], caption='Légende')",
        ],
        tmp_path,
    )
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(nb)
    assert 'alt="Une droite &lt;qui&gt; monte de «\u00a01\u00a0» à «\u00a02\u00a0»."' in page
    assert page.count("<img") == 1  # la figure n'est pas affichée une seconde fois par le noyau
    assert '<th scope="col"' in page and "<caption" in page and "12\u202f345" in page


def test_a_figure_without_alt_is_refused():
    import matplotlib.pyplot as plt

    with pytest.raises(ValueError, match="texte alternatif"):
        display.show(plt.figure(), alt=" ")


def test_ticks_are_french_whatever_the_scale():
    import matplotlib.pyplot as plt

    fig, (plain, log) = plt.subplots(1, 2)
    plain.plot([0, 0.25, 0.5], [-1.5, 0, 1.5])
    plain.set_xticks([0.25, 0.5], ["un quart", "0.5"])  # écrites à la main : on n'y touche pas
    log.loglog([1e-5, 1e6], [1, 9])
    display.show(fig, alt="Deux droites.")
    texts = [[t.get_text() for t in axis.get_ticklabels()] for axis in (plain.xaxis, plain.yaxis, log.xaxis, log.yaxis)]
    assert texts[0] == ["un quart", "0.5"] and {"−1,5", "0", "0,5"} <= set(texts[1])
    assert {"0,001", "1\u202f000", "10⁶"} <= set(texts[2]) and not [
        t for t in sum(texts[1:], []) if "." in t or "$" in t
    ]
    assert {t.get_text() for t in log.get_ymajorticklabels()} & {"1", "10"}


def test_the_integer_part_of_a_number_is_always_whole():
    assert number(1263.4, 3) == "1\u202f263"
    assert number(9999.7, 2) == "10\u202f000"
    assert number(372.0, 2) == "372"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Une copie vide du cours : course.toml et assets/, pour enregistrer sans toucher au vrai."""
    (tmp_path / "course.toml").write_bytes((paths.root() / "course.toml").read_bytes())
    (tmp_path / "assets" / "results").mkdir(parents=True)
    (tmp_path / "assets" / "colibri").symlink_to(paths.asset("colibri"))
    (tmp_path / "assets" / "corpora").symlink_to(paths.asset("corpora"))
    monkeypatch.setenv("COURS_RACINE", str(tmp_path))
    monkeypatch.setenv("COURS_ETAT", str(tmp_path / "etat"))
    paths.root.cache_clear()
    paths.course.cache_clear()
    yield tmp_path
    paths.root.cache_clear()
    paths.course.cache_clear()


def tiny() -> GPT2LMHeadModel:
    from atelier.models import load_tokenizer

    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=len(load_tokenizer()), n_positions=32)
    return GPT2LMHeadModel(config).eval()


def test_board_keeps_one_row_per_variant_and_prefers_yours(course, monkeypatch, capsys):
    monkeypatch.setenv("COURS_ECHELLE", "essai")
    monkeypatch.setenv("COURS_ENREGISTRER", "1")
    for name in ("fp32", "int8"):
        variants.save_variant(name, tiny(), n_bytes=1000, chapter="ch3_quantification")
    assert {r["by"] for r in variants.rows()} == {"auteur"}
    kept = variants.rows()
    with monkeypatch.context() as smaller:
        shorter = Evaluation(1.5, 1.0, 100, 1.0, (0.4,) * 5)
        smaller.setattr(variants, "evaluate_perplexity", lambda *_, **__: shorter)
        assert variants.save_variant("fp32", tiny(), 7, "ch3_quantification")["losses"] == (0.4,) * 5
    assert variants.rows() == kept, "l'auteur ne remplace pas une ligne par une autre, mesurée sur moins de jetons"
    variants.save_variant("fp32", tiny(), 7, "ch3_quantification")
    assert variants.rows() == kept, "un carnet que l'auteur exécute ne remplace pas la ligne d'une mesure"
    with monkeypatch.context() as measuring:
        measuring.setenv("COURS_MESURES", "1")
        variants.save_variant("fp32", tiny(), 1000, "ch3_quantification", "mesurée")
    assert [r["what"] for r in variants.rows()] == ["mesurée", ""], "une mesure la remplace"
    monkeypatch.delenv("COURS_ENREGISTRER")
    for size in (500, 400):
        variants.save_variant("int8", tiny(), n_bytes=size, chapter="ch3_quantification")
    assert [(r["name"], r["by"], r["bytes"]) for r in variants.rows()] == [
        ("fp32", "auteur", 1000),
        ("int8", "vous", 400),
    ]
    variants.board()
    assert "int8" in capsys.readouterr().out


def test_names_on_the_board_cover_neither_each_other_nor_a_point():
    """Même serrés : sept variantes de tailles et de perplexités presque égales, et une loin."""
    sizes = [
        (2.83, 13.5),
        (2.83, 12.1),
        (2.96, 12.06),
        (2.95, 12.3),
        (2.9, 12.2),
        (3.0, 12.4),
        (2.8, 12.9),
        (12.2, 11.6),
    ]
    lines = [
        {"name": f"variante-{i}", "by": "auteur", "bytes": round(1e6 * b), "perplexity": p}
        for i, (b, p) in enumerate(sizes)
    ]
    fig = variants.figure(lines)
    ax = fig.axes[0]
    fig.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text()]
    points = [ax.transData.transform((b, p)) for b, p in sizes]
    assert len(boxes) == len(lines)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_variants_come_back_yours_first(course, monkeypatch, capsys):
    monkeypatch.setenv("COURS_ECHELLE", "essai")
    from atelier.models import load_model

    with pytest.raises(ValueError, match="pas de variante"):
        variants.load_variant("moitie")
    model = load_model("colibri", on="cpu")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.mul_(0.5)
    variants.save_variant("moitie", model, 10, "ch3_quantification", keep_weights=True)
    back = variants.load_variant("moitie")
    assert "la vôtre" in capsys.readouterr().out
    for (name, a), (_, b) in zip(model.named_parameters(), back.named_parameters(), strict=True):
        assert torch.allclose(a, b.cpu(), rtol=1e-3, atol=1e-6), name
    assert back.lm_head.weight is back.transformer.wte.weight


def test_read_only_folder_measures_but_keeps_nothing(course, monkeypatch, capsys):
    monkeypatch.setenv("COURS_ECHELLE", "essai")
    (course / "etat").write_text("un fichier à la place du dossier")
    row = variants.save_variant("int8", tiny(), n_bytes=1000, chapter="ch3_quantification")
    assert row["perplexity"] > 1 and "lecture seule" in capsys.readouterr().out
