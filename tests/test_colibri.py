"""Colibri : il se charge comme un GPT-2, et ce que disent sa recette, son journal et sa fiche est vrai."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.text import number
from colibri import card as card_module
from colibri import evaluate, pretrain, run, train
from colibri import recipe as recipe_module

ROOT = Path(__file__).parents[1]
COLIBRI = ROOT / "assets" / "colibri"
CORPORA = ROOT / "assets" / "corpora"


def read(name: str) -> Any:
    return json.loads((COLIBRI / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return evaluate.load_assets()


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return read("recette.json")


def test_se_charge_comme_un_gpt2(loaded: tuple[Any, Any]) -> None:
    from transformers import AutoModelForCausalLM

    model, tokenizer = loaded
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert type(AutoModelForCausalLM.from_pretrained(COLIBRI)) is type(model)
    assert tokenizer.eos_token == recipe_module.END_OF_TEXT
    assert tokenizer.eos_token_id == model.config.eos_token_id == 0
    assert len(tokenizer) == model.config.vocab_size
    assert model.config.activation_function == "gelu_new"


def test_parametres_et_tete_liee(loaded: tuple[Any, Any], recipe: dict[str, Any]) -> None:
    model, _ = loaded
    config = model.config
    d = config.n_embd
    expected = (config.vocab_size + config.n_positions) * d + config.n_layer * (12 * d * d + 13 * d) + 2 * d
    assert sum(p.numel() for p in model.parameters()) == expected == recipe["parametres"]
    assert expected == recipe_module.Recipe(**recipe["reglages"]).n_params
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    assert 2_500_000 <= expected <= 3_200_000
    assert d // config.n_head >= 32 and d % config.n_head == 0


def test_tailles() -> None:
    assert (COLIBRI / "model.safetensors").stat().st_size <= 16 * 2**20
    assert (COLIBRI / "journal.csv").stat().st_size <= 200_000


@pytest.mark.parametrize("name", ["a_validation.txt", "b_validation.txt", "bprime_validation.txt"])
def test_les_jetons_rendent_le_texte(loaded: tuple[Any, Any], name: str) -> None:
    _, tokenizer = loaded
    text = (CORPORA / name).read_text(encoding="utf-8")[:50_000]
    assert tokenizer.decode(tokenizer(text, verbose=False)["input_ids"]) == text


def test_les_jetons_rendent_n_importe_quel_texte(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    text = "  L’été, qu'il fît 37 °C\u00a0?\n\n\tŒuvre « çà et là » — naïf, 漢字, 🐦 .\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_l_elision_reste_avec_l_article(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    assert tokenizer.tokenize("qu'il l'emploi") == ["qu'", "il", "Ġl'", "emploi"]


def test_perplexite_du_debut_de_la_validation(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    docs = evaluate.first_bytes(recipe_module.documents(CORPORA / "a_validation.txt"), 20_000)
    stream = evaluate.read_stream(tokenizer, docs)
    stated = read("evaluation.json")["debut_de_a_validation"]
    figures = stream.figures(evaluate.model_nats(model, stream.ids))
    assert figures["jetons"] == stated["jetons"] and figures["octets"] == stated["octets"]
    assert figures["perplexite"] == pytest.approx(stated["perplexite"], rel=0.005)


def test_l_evaluation_tient_ses_promesses() -> None:
    extracts = read("evaluation.json")["extraits"]
    assert set(extracts) == set(evaluate.EXTRACTS)
    for row in extracts.values():
        ours = row["colibri"]
        assert ours["perplexite"] == pytest.approx(math.exp(ours["nats"] / ours["jetons"]), rel=1e-3)
        assert ours["bits_par_octet"] == pytest.approx(ours["nats"] / math.log(2) / ours["octets"], rel=1e-3)
    for label in ("A validation", "A test"):
        bits = extracts[label]["colibri"]["bits_par_octet"]
        assert bits <= 1.20
        assert bits < 0.9 * extracts[label]["trigramme"]["bits_par_octet"]
        assert bits < 0.6 * extracts[label]["xz_9_bits_par_octet"]


def test_journal_et_recette_disent_la_meme_chose(recipe: dict[str, Any]) -> None:
    rows = run.read_journal(COLIBRI / "journal.csv")
    assert tuple(rows[0]) == recipe_module.JOURNAL_FIELDS
    for field, kind in (("pas", int), ("jetons", int), ("secondes", float)):
        values = [kind(row[field]) for row in rows]
        assert all(a < b for a, b in itertools.pairwise(values)), field
    settings = recipe_module.Recipe(**recipe["reglages"])
    assert all(int(row["jetons"]) == int(row["pas"]) * settings.tokens_per_step for row in rows)
    assert recipe["jetons"] == recipe["pas"] * settings.tokens_per_step
    assert 0 <= recipe["pas"] - int(rows[-1]["pas"]) < 10
    assert recipe["flops_6nd"] == 6 * recipe["parametres"] * recipe["jetons"]
    assert recipe["flops_6nd"] <= 1.001e15
    assert recipe["jetons"] >= 40_000_000 or recipe["provisoire"]
    rate = float(rows[-1]["flops_par_s"])
    tokens = int(rows[-1]["jetons"]) - int(rows[-2]["jetons"])
    seconds = float(rows[-1]["secondes"]) - float(rows[-2]["secondes"])
    assert rate == pytest.approx(6 * recipe["parametres"] * tokens / seconds, rel=0.05)
    assert float(rows[-1]["perte"]) < 0.5 * float(rows[0]["perte"])


def test_le_texte_lu_est_celui_de_la_provenance(recipe: dict[str, Any]) -> None:
    provenance = json.loads((CORPORA / "provenance.json").read_text(encoding="utf-8"))["grand_texte_a"]
    assert recipe["texte"]["sha256"] == provenance["sha256"]
    assert recipe["texte"]["documents"] == provenance["documents"]


def test_la_fiche_donne_les_chiffres_de_l_evaluation(recipe: dict[str, Any]) -> None:
    card = (COLIBRI / "fiche.md").read_text(encoding="utf-8")
    for row in read("evaluation.json")["extraits"].values():
        assert number(row["colibri"]["bits_par_octet"], decimals=3) in card
        assert number(row["colibri"]["perplexite"], decimals=1) in card
    assert number(recipe["jetons"]) in card
    assert all(f"**{prompt}**" in card for prompt in card_module.PROMPTS)
    assert card.count("\nGraine ") == 10


def test_la_perte_d_entrainement_est_celle_de_gpt2(loaded: tuple[Any, Any], recipe: dict[str, Any]) -> None:
    """Notre boucle et `transformers` calculent la même chose, à l'arrondi bfloat16 près."""
    model, tokenizer = loaded
    settings = recipe_module.Recipe(**recipe["reglages"])
    text = (CORPORA / "a_validation.txt").read_text(encoding="utf-8")[:8_000]
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"][: settings.n_positions + 1])[None]
    params = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        ours = pretrain.loss_function(params, ids[:, :-1], ids[:, 1:], settings.n_layer, settings.n_head)
        reference = model(ids[:, :-1], labels=ids[:, 1:], shift_labels=ids[:, 1:]).loss.item()
    assert ours.item() == pytest.approx(reference, rel=0.01)


def test_les_lots_se_retrouvent(tmp_path: Path) -> None:
    """Une reprise relit les mêmes fenêtres, et une époque lit chaque fenêtre une fois."""
    tokens = np.arange(1_000, dtype=np.uint16)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "starts.npy", np.arange(0, 1_001, 50))
    settings = recipe_module.Recipe(n_positions=16)
    batches = pretrain.Batches(tmp_path, settings)
    epoch = [batches.window(i) for i in range(2 * batches.per_epoch)]
    again = pretrain.Batches(tmp_path, settings).window(batches.per_epoch + 3)
    assert np.array_equal(again, epoch[batches.per_epoch + 3])
    first = np.concatenate([window[:-1] for window in epoch[: batches.per_epoch]])
    assert len(set(first.tolist())) == len(first)


def test_plan_d_apprentissage() -> None:
    settings = recipe_module.Recipe(warmup_steps=10, decay_share=0.4)
    assert pretrain.schedule(1, 0.0, settings) == pytest.approx(0.1)
    assert pretrain.schedule(100, 0.5, settings) == 1.0
    assert pretrain.schedule(100, 0.8, settings) == pytest.approx(0.5)
    assert pretrain.schedule(100, 1.0, settings) == 0.0


def test_orthogonalise() -> None:
    """Muon ramène les valeurs singulières près de 1."""
    matrices = torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(pretrain.orthogonalise(matrices))
    assert 0.6 < values.min() and values.max() < 1.3


def test_trigramme_est_une_loi_de_probabilite() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 8, 500)
    trigram = evaluate.Trigram(tokens, 8)
    for context in ((0, 1), (3, 3), (7, 2)):
        total = 0.0
        for token in range(8):
            whole = trigram.nats(np.array([*context, token]))
            total += math.exp(trigram.nats(np.array([*context])) - whole)
        assert total == pytest.approx(1.0)


@pytest.mark.lent
def test_une_reprise_est_exacte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deux fois quatre pas donnent les mêmes poids que huit pas de suite."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    tiny = {"n_vocab": 256, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 32, "micro_batch": 2}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in tiny.items()] + ["--decay-share=0.01"]
    per_step = recipe_module.Recipe(**tiny).tokens_per_step
    weights = []
    for folder, budgets in (("reprise", (4, 8)), ("suite", (8,))):
        work = tmp_path / folder
        work.mkdir()
        np.save(work / "tokens.npy", np.random.default_rng(0).integers(0, 256, 20_000).astype(np.uint16))
        np.save(work / "starts.npy", np.arange(0, 20_001, 100))
        for steps in budgets:
            assert train.main(["train", "--work", str(work), f"--tokens={steps * per_step}", *options]) == 0
        checkpoint = torch.load(work / "checkpoint.pt", weights_only=True)
        assert checkpoint["step"] == 8
        weights.append(checkpoint["params"])
    assert torch.equal(*weights)
