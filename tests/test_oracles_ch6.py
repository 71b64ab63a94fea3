"""Les références du chapitre 6, contre des bibliothèques qui ne leur doivent rien."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from atelier.figures.ch6 import tasks
from atelier.figures.ch6.memory import saved_bytes, training_bytes
from atelier.judging.probes_models import tiny_gpt2
from atelier.models import load_model, load_tokenizer

TINY = {"n_layer": 3, "n_head": 2, "n_embd": 8, "vocab_size": 40, "n_positions": 32}
CHAPTER = "ch6_finetuning"


# --- pool_last_token, contre GPT2ForSequenceClassification ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_pooling_is_that_of_hf_sequence_classification(reference: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=40, n_positions=32, num_labels=3, pad_token_id=0)
    model = GPT2ForSequenceClassification(config).eval()
    lengths = [9, *torch.randint(1, 9, (3,), generator=generator).tolist()]
    ids, mask = tasks.padded([torch.randint(1, 40, (n,), generator=generator).tolist() for n in lengths])
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        hidden = model.transformer(ids, attention_mask=mask).last_hidden_state
        found = model.score(reference("pool_last_token")(hidden, mask))
    torch.testing.assert_close(found, expected)


def test_pooling_reads_the_same_token_on_both_sides(reference: Any) -> None:
    sequences = [[5, 6, 7], [8, 9, 10, 11], [12]]
    found = []
    for side in ("right", "left"):
        ids, mask = tasks.padded(sequences, side=side)
        found.append(reference("pool_last_token")(ids[..., None].float(), mask)[:, 0].tolist())
    assert found == [[7.0, 11.0, 12.0]] * 2


# --- train_head, contre torch.optim.SGD et scikit-learn ---------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 7, 100])
def test_head_is_that_of_sgd(reference: Any, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    features, labels = torch.randn(30, 6, generator=generator), torch.randint(0, 4, (30,), generator=generator)
    head = torch.nn.Linear(6, 4)
    for p in head.parameters():
        torch.nn.init.zeros_(p)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    weight, bias = reference("train_head")(features, labels, 4, 0.3, steps)
    torch.testing.assert_close(weight, head.weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bias, head.bias.detach(), rtol=1e-4, atol=1e-6)


def test_head_converges_to_the_logistic_regression_of_scikit_learn(reference: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (120,), generator=generator)
    features = torch.randn(120, 2, generator=generator, dtype=torch.float64) + 0.7 * labels[:, None]
    weight, bias = reference("train_head")(features, labels, 3, 0.5, 20_000)
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000).fit(features.numpy(), labels.numpy())
    mine = torch.softmax(features @ weight.T + bias, dim=1)
    torch.testing.assert_close(mine, torch.from_numpy(theirs.predict_proba(features.numpy())), rtol=0, atol=1e-3)


# --- freeze_except ----------------------------------------------------------------------------------------------------


def test_only_what_was_named_moves(reference: Any) -> None:
    model = tiny_gpt2(TINY, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = reference("freeze_except")(model, ["h.1.mlp", "ln_f"])
    loss = model(torch.arange(12)[None], labels=torch.arange(12)[None]).loss
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    moved = sorted(name for name, p in model.named_parameters() if not torch.equal(p, before[name]))
    assert moved == names == sorted(n for n in before if "h.1.mlp" in n or "ln_f" in n)


# --- align_labels, contre la recette de Hugging Face ------------------------------------------------------------------


def _recipe(word_ids: list[int | None], labels: list[int]) -> list[int]:
    """Le `tokenize_and_align_labels` de la documentation de transformers."""
    previous, out = None, []
    for word in word_ids:
        if word is None:
            out.append(-100)
        elif word != previous:
            out.append(labels[word])
        else:
            out.append(-100)
        previous = word
    return out


def test_alignment_is_that_of_the_recipe_on_real_word_ids(reference: Any) -> None:
    """Sur les word_ids() d'un vrai découpeur, et sur ceux du chapitre."""
    tokenizer = load_tokenizer("colibri")
    for line in tasks.tagged("test")[:20]:
        labels = [tasks.UPOS.index(tag) for tag in line["etiquettes"]]
        encoded = tokenizer([f" {word}" for word in line["mots"]], is_split_into_words=True)
        for word_ids in (encoded.word_ids(), tasks.words_to_tokens(line["mots"])[1]):
            assert reference("align_labels")(word_ids, labels) == _recipe(word_ids, labels)


# --- lm_labels, contre la perte de transformers calculée exemple par exemple ------------------------------------------


def test_labels_give_the_loss_of_the_answers_alone(reference: Any) -> None:
    model = tiny_gpt2(TINY, 2)
    sequences, lengths = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14]], [2, 1, 3]
    surprises = []
    with torch.no_grad():
        for sequence, n in zip(sequences, lengths, strict=True):
            logits = model(torch.tensor([sequence])).logits[0]
            surprises += [
                torch.nn.functional.cross_entropy(logits[t - 1], torch.tensor(sequence[t])).item()
                for t in range(n, len(sequence))
            ]
        ids, mask = tasks.padded(sequences)
        labels = reference("lm_labels")(ids, mask, torch.tensor(lengths))
        found = model(ids, attention_mask=mask, labels=labels).loss.item()
    assert found == pytest.approx(sum(surprises) / len(surprises), rel=1e-5)


# --- training_memory_bytes, contre de vrais tenseurs ------------------------------------------------------------------


@pytest.mark.parametrize("patterns", [["transformer"], ["h.2.", "ln_f"], ["ln_f"]])
def test_memory_is_that_of_real_tensors(reference: Any, patterns: list[str]) -> None:
    model = tiny_gpt2(TINY, 0).to(torch.bfloat16)
    reference("freeze_except")(model, patterns)
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    copies = [p.detach().float() for p in trained]
    for twin, p in zip(copies, trained, strict=True):
        twin.grad = p.grad.float()
    optimizer = torch.optim.Adam(copies)
    optimizer.step()
    held = [*model.parameters(), *(p.grad for p in trained), *copies]
    held += [state[k] for state in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    total = sum(t.numel() * t.element_size() for t in held)
    count = sum(p.numel() for p in trained)
    assert reference("training_memory_bytes")(model.num_parameters(), count) == total


def test_counted_activations_shrink_when_the_bottom_is_frozen(reference: Any) -> None:
    """Le crochet compte : rien sous le premier bloc qui apprend, et presque tout si c'est le premier."""
    model, ids = load_model("colibri"), torch.arange(64)[None]
    kept = {}
    for patterns in (["transformer"], ["h.0."], ["h.4.", "ln_f"], ["ln_f"]):
        reference("freeze_except")(model, patterns)
        kept[patterns[0]] = training_bytes(model, lambda: model(ids, labels=ids).loss)["activations"]
    assert kept["ln_f"] < kept["h.4."] < kept["h.0."] <= kept["transformer"]


def test_saved_bytes_of_a_known_product() -> None:
    """y = tanh(x·w) garde x (pour w) et y (pour tanh) : deux zones, et pas le poids."""
    layer, x = torch.nn.Linear(10, 20, bias=False), torch.randn(5, 10)
    _, kept = saved_bytes(layer, lambda: torch.tanh(layer(x)).sum())
    assert kept == 4 * (5 * 10 + 5 * 20)


# --- finetuning_storage_bytes : les nombres de la diapositive ---------------------------------------------------------


def test_storage_of_the_slide(reference: Any) -> None:
    storage = reference("finetuning_storage_bytes")
    assert storage(170 * 10**9, 1) == 340 * 10**9
    assert storage(170 * 10**9, 100) == 34 * 10**12
    assert storage(170 * 10**9, 100, 2, 17 * 10**8) == 680 * 10**9


# --- Les données et les tâches ----------------------------------------------------------------------------------------


def test_words_and_tokens_keep_the_sentence() -> None:
    tokenizer = load_tokenizer("colibri")
    line = tasks.tagged("test")[0]
    ids, word_ids = tasks.words_to_tokens(line["mots"])
    assert len(ids) == len(word_ids) and word_ids[0] is None
    assert sorted({w for w in word_ids if w is not None}) == list(range(len(line["mots"])))
    text = tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False)
    assert text.replace(" ", "") == "".join(line["mots"]).replace(" ", "")


def test_a_larger_sample_contains_the_smaller_one() -> None:
    _, examples = tasks.subjects("validation")
    small, large = (examples.sample(n, seed=3) for n in (20, 60))
    assert torch.equal(small.labels, large.labels[:20])
    width = small.ids.shape[1]
    assert torch.equal(small.ids * small.mask, (large.ids * large.mask)[:20, :width])


def test_translation_is_greedy_and_stops_at_the_end() -> None:
    model = load_model("colibri")
    said = tasks.translate(model, ["Open dialog", "Undo: Data Input"], n_new=4)
    alone = [tasks.translate(model, [text], n_new=4)[0] for text in ("Open dialog", "Undo: Data Input")]
    assert said == alone


def test_chat_labels_are_those_of_the_library_s_own_chat_template(reference: Any) -> None:
    """Contre le masque que transformers tire d'un gabarit de conversation (`return_assistant_tokens_mask`)."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer("colibri").backend_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '\\n' }}"
        "{% endgeneration %}"
        "{% else %}{{ m.content + '\\n' }}{% endif %}{% endfor %}"
    )
    said = [
        ("system", "Répondez."),
        ("user", "Où ?"),
        ("assistant", "Ici."),
        ("user", "Et là ?"),
        ("assistant", "Non."),
    ]
    messages = [{"role": role, "content": text} for role, text in said]
    found = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    turns = [(role, tokenizer(text + "\n")["input_ids"]) for role, text in said]
    ids, labels = reference("chat_labels")(turns)
    assert ids.tolist() == found["input_ids"]
    expected = [i if m else -100 for i, m in zip(found["input_ids"], found["assistant_masks"], strict=True)]
    assert labels.tolist() == expected and ids.dtype == labels.dtype == torch.int64


# --- train_step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_five_steps_are_those_of_the_formulas(reference: Any, max_norm: float) -> None:
    """Perte position par position, norme sur tous les gradients mis bout à bout, w − lr·g : rien de torch.optim."""
    model = tiny_gpt2({"n_layer": 2, "vocab_size": 17}, 5)
    by_hand = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for seed in range(5):
        ids = torch.randint(0, 17, (3, 7), generator=torch.Generator().manual_seed(seed))
        log_p = by_hand(ids).logits.log_softmax(-1)
        loss = -torch.stack([log_p[b, t, ids[b, t + 1]] for b in range(3) for t in range(6)]).mean()
        grads = torch.autograd.grad(loss, list(by_hand.parameters()))
        norm = torch.cat([g.flatten() for g in grads]).norm().item()
        with torch.no_grad():
            for p, g in zip(by_hand.parameters(), grads, strict=True):
                p -= 0.2 * g * min(1.0, max_norm / norm)
        assert reference("train_step")(model, ids, optimizer, max_norm) == pytest.approx((loss.item(), norm), rel=1e-4)
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
