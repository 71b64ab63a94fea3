"""Charger un modèle : colibri, un dossier, le hub (sur un instantané local du même format), et les formes de GPT-2."""

import shutil

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from atelier import models, paths, perplexity
from atelier.evidence import perplexity_of
from atelier.models import gpt2_shape, load_model, load_tokenizer


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """Un cache du hub comme huggingface_hub l'écrit, avec un petit GPT-2 dedans."""
    repo = tmp_path / "hub" / "models--openai-community--gpt2"
    folder = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(folder.name)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64, n_positions=16)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(paths.asset("colibri", name), folder / name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_hub_name_reads_a_local_snapshot(snapshot):
    model = load_model("gpt2")
    assert model.config.n_embd == 32 and not model.training
    assert load_tokenizer("gpt2").convert_tokens_to_ids("<|endoftext|>") is not None


def test_without_the_hub_a_french_sentence_and_colibri(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load_model("gpt2")
    assert model.num_parameters() == load_model("colibri").num_parameters()
    said = capsys.readouterr().out
    assert "le hub ne répond pas" in said and "Colibri" in said


def test_unknown_name_says_what_is_known():
    with pytest.raises(ValueError, match="colibri"):
        load_model("gpt5")


def test_a_folder(tmp_path):
    tiny = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64, n_positions=16)).eval()
    tiny.save_pretrained(tmp_path / "mon modèle")
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "mon modèle", on="cpu")(ids).logits, tiny(ids).logits)


@pytest.mark.parametrize("size", ["small", "medium", "large", "xl"])
def test_shapes_are_gpt2_s(size):
    layers, d, _ = models.GPT2_SIZES[size]
    block = gpt2_shape(size, n_layer=1)
    counted = block.num_parameters() + (layers - 1) * (12 * d * d + 13 * d)
    assert counted == {"small": 124439808, "medium": 354823168, "large": 774030080, "xl": 1557611200}[size]
    assert block.lm_head.weight is block.transformer.wte.weight


def test_shapes_compute_finite_numbers():
    with torch.inference_mode():
        logits = gpt2_shape("small", n_layer=2)(torch.arange(16)[None]).logits
    assert torch.isfinite(logits).all() and logits.std() > 0
    with pytest.raises(ValueError, match="small"):
        gpt2_shape("énorme")


@pytest.mark.parametrize(
    "n, context, stride", [(1, 4, 2), (10, 4, 2), (11, 4, 4), (9, 4, 1), (3, 8, 4), (257, 256, 128)]
)
def test_windows_count_each_target_once_with_enough_context(n, context, stride):
    seen = []
    for begin, stop, new in perplexity._windows(n, context, stride):
        assert 0 < stop - begin <= context and 0 < new
        targets = range(stop - new, stop)
        assert begin == 0 or targets[0] - begin >= context - stride
        seen.extend(targets)
    assert seen == list(range(n))


def test_perplexity_against_one_target_at_a_time():
    """Oracle : chaque jeton prédit seul, par la perte de Hugging Face, dans la fenêtre que dit le protocole."""
    torch.manual_seed(1)
    tok = load_tokenizer()
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=len(tok), n_positions=8)).eval()
    text = "Le colibri vole.\n\nIl boit le nectar des fleurs, puis repart aussitôt."
    ids = perplexity.encode_documents(text, tok)
    total, context, stride = 0.0, 8, 4
    for t in range(1, len(ids)):
        k = max(0, -(-(t - context) // stride))
        begin = k * stride
        with torch.inference_mode():
            logits = model(ids[begin:t][None]).logits[0, -1]
        total -= torch.log_softmax(logits, -1)[ids[t]].item()
    got = perplexity.evaluate_perplexity(model, text, max_tokens=10_000)
    assert got.tokens == len(ids) - 1
    assert got.perplexity == pytest.approx(torch.tensor(total / got.tokens).exp().item(), rel=1e-4)
    assert len(got.losses) == perplexity.PARTS
    assert perplexity_of(got.losses) == pytest.approx(got.perplexity, rel=0.02), "les parts sont égales à un jeton près"
    n_bytes = len(text.replace("\n\n", "").encode())
    assert got.bits_per_byte == pytest.approx(total / torch.tensor(2.0).log().item() / n_bytes, rel=1e-4)


def test_perplexity_does_not_depend_on_the_batch_and_restores_training_mode():
    tok = load_tokenizer()
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=len(tok), n_positions=32)).train()
    values = {b: perplexity.evaluate_perplexity(model, max_tokens=300, batch_size=b).perplexity for b in (1, 3, 64)}
    assert max(values.values()) == pytest.approx(min(values.values()), rel=1e-5)
    assert model.training


def test_perplexity_refuses_what_it_cannot_measure():
    model = load_model()
    with pytest.raises(ValueError, match="pas entre 1"):
        perplexity.evaluate_perplexity(model, max_tokens=50, stride=0)
    with pytest.raises(ValueError, match="extrait"):
        perplexity.evaluate_perplexity(model, "inconnu")
