"""Les sondes qui reçoivent un petit GPT-2."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from probing import CLOSE, Adapter, agree, from_cell
from torch import nn

from atelier.judging.compare import compare
from atelier.judging.probes import run_case
from atelier.judging.probes_models import tiny_gpt2


def test_tiny_gpt2_depends_on_the_seed_alone():
    torch.manual_seed(5)
    a = tiny_gpt2({"n_layer": 1}, 3)
    torch.manual_seed(6)
    b, c = tiny_gpt2({"n_layer": 1}, 3), tiny_gpt2({"n_layer": 1}, 4)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(a(ids).logits, b(ids).logits) and not torch.allclose(a(ids).logits, c(ids).logits)


def test_tiny_gpt2_is_as_new_each_time():
    """Bâti une fois, puis copié : rien de ce qu'une réponse fait à l'un ne se voit sur le suivant, ni au hasard."""
    from transformers import GPT2Config, GPT2LMHeadModel

    made, drawn = [], []
    for _ in range(3):
        torch.manual_seed(5)
        made.append(tiny_gpt2({"n_layer": 1, "n_embd": 6}, 3))
        drawn.append(torch.rand(3))
        used = made[-1]
        assert used.lm_head.weight is used.transformer.wte.weight and used.config is used.transformer.h[0].attn.config
        used.config.n_layer, used.transformer.h[0].attn.num_heads, used.transformer.h[0].mlp = 7, 1, nn.Identity()
        used.train().requires_grad_(False).transformer.wte.register_forward_hook(lambda *_: None)
        used.transformer.h[0].ln_1.weight.data.zero_()
    torch.manual_seed(5)
    sizes = {"n_layer": 1, "n_embd": 6, "n_head": 2, "vocab_size": 23, "n_positions": 16}
    fresh = GPT2LMHeadModel(GPT2Config(**sizes, attn_implementation="eager", bos_token_id=None, eos_token_id=None))
    drawn.append(torch.rand(3))
    assert all(torch.equal(drawn[0], other) for other in drawn)
    last = tiny_gpt2({"n_layer": 1, "n_embd": 6}, 3)
    assert repr(last).replace("p=0.0", "p=0.1") == repr(fresh) and not last.training
    assert not last.transformer.wte._forward_hooks and all(p.requires_grad for p in last.parameters())
    assert last.config.n_layer == 1 and last.transformer.h[0].attn.num_heads == 2
    assert last.transformer.h[0].ln_1.weight.any()
    assert [n for n, _ in last.named_parameters()] == [n for n, _ in fresh.named_parameters()]


def freeze_all(model):
    return model.requires_grad_(False)


def insert(model, bottleneck, make=Adapter, mlp_only=False):
    freeze_all(model)
    for block in model.transformer.h:
        if not mlp_only:
            block.attn.c_proj = nn.Sequential(block.attn.c_proj, make(model.config.n_embd, bottleneck))
        block.mlp = nn.Sequential(block.mlp, make(model.config.n_embd, bottleneck))
    return model


def insert_with_hooks(model, bottleneck):
    """Une autre façon correcte : des crochets, et les modules enregistrés ailleurs et dans un autre ordre."""
    freeze_all(model)
    model.extra = nn.ModuleList()

    def hook(layer):
        adapter = Adapter(model.config.n_embd, bottleneck)
        model.extra.insert(0, adapter)
        layer.register_forward_hook(lambda _m, _x, out: adapter(out))

    for block in model.transformer.h:
        hook(block.mlp)
        hook(block.attn.c_proj)
    return model


def insert_shared(model, bottleneck):
    one = Adapter(model.config.n_embd, bottleneck)
    return insert(model, bottleneck, lambda d, m: one)


def insert_unfrozen(model, bottleneck):
    return insert(model, bottleneck).requires_grad_(True)


def insert_mlp_only(model, bottleneck):
    return insert(model, bottleneck, mlp_only=True)


def insert_in_a_copy(model, bottleneck):
    return insert(copy.deepcopy(model), bottleneck)


def insert_returns_nothing(model, bottleneck):
    insert(model, bottleneck)


def insert_late_binding(model, bottleneck):
    freeze_all(model)
    model.extra = nn.ModuleList()
    for block in model.transformer.h:
        for layer in (block.mlp, block.attn.c_proj):
            adapter = Adapter(model.config.n_embd, bottleneck)
            model.extra.append(adapter)
            layer.register_forward_hook(lambda _m, _x, out: model.extra[-1](out))
    return model


def insert_unregistered(model, bottleneck):
    freeze_all(model)
    for block in model.transformer.h:
        for layer in (block.mlp, block.attn.c_proj):
            adapter = Adapter(model.config.n_embd, bottleneck)
            layer.register_forward_hook(lambda _m, _x, out, adapter=adapter: adapter(out))
    return model


def insert_after_residual(model, bottleneck):
    freeze_all(model)
    model.extra = nn.ModuleList()
    for block in model.transformer.h:
        for layer in (block.ln_2, block):
            adapter = Adapter(model.config.n_embd, bottleneck)
            model.extra.append(adapter)
            layer.register_forward_hook(
                lambda _m, _x, out, adapter=adapter: (
                    adapter(out) if torch.is_tensor(out) else (adapter(out[0]), *out[1:])
                )
            )
    return model


GPT2 = {"config": {"n_layer": 2}, "seed": 3, "args": {"bottleneck": 3}, "input_ids": torch.tensor([[1, 5, 2, 9, 4]])}


@pytest.mark.parametrize("right", [insert, insert_with_hooks])
def test_transform_leaves_names_and_mechanism_free(right):
    assert agree("gpt2_transform", insert, right, GPT2).ok


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (insert_shared, "formes entraînées"),
        (insert_unfrozen, "formes entraînées"),
        (insert_mlp_only, "formes entraînées"),
        (insert_unregistered, "formes entraînées"),
        (insert_in_a_copy, "rend le modèle reçu"),
        (insert_returns_nothing, "rend le modèle reçu"),
        (insert_after_residual, "logits avec les poids donnés"),
        (insert_late_binding, "tenseurs qui reçoivent un gradient"),
    ],
)
def test_transform_separates_wrong_insertions(wrong, place):
    verdict = agree("gpt2_transform", insert, wrong, GPT2)
    assert not verdict.ok and place in verdict.message


def test_transform_starts_from_the_same_logits():
    value = run_case("gpt2_transform", insert, GPT2)["value"]
    plain = tiny_gpt2(GPT2["config"], GPT2["seed"])(GPT2["input_ids"]).logits
    assert torch.allclose(value["logits au départ"], plain, atol=1e-5)
    assert not torch.allclose(value["logits avec les poids donnés"], plain, atol=1e-2)


def test_a_stand_in_replaces_the_students_own_class_then_leaves():
    broken = from_cell(
        "class Adapter:\n    def __init__(self, d, m):\n        raise RuntimeError('raté')\n\n"
        "def insert(model, bottleneck):\n    model.requires_grad_(False)\n    import torch\n"
        "    for b in model.transformer.h:\n        d = model.config.n_embd\n"
        "        b.attn.c_proj = torch.nn.Sequential(b.attn.c_proj, Adapter(d, bottleneck))\n"
        "        b.mlp = torch.nn.Sequential(b.mlp, Adapter(d, bottleneck))\n    return model\n",
        "insert",
    )
    assert run_case("gpt2_transform", broken, GPT2)["status"] == "raised"
    helped = GPT2 | {"stand_ins": {"Adapter": "Bottleneck"}}

    def with_the_stand_in(model, bottleneck):
        return insert(model, bottleneck, Adapter)

    assert agree("gpt2_transform", with_the_stand_in, broken, helped).ok
    scope = broken.__globals__
    exec("class Call:\n    def __call__(self, *a): return insert(*a)\n    method = __call__", scope)
    exec("def plain(f):\n    def wrapper(*a): return f(*a)\n    return wrapper", scope)
    call, plain = scope["Call"], scope["plain"]
    decorated = [plain(broken), torch.enable_grad()(broken), functools.lru_cache(broken)]
    for other in (call(), call().method, functools.partial(broken), functools.partial(call().method), *decorated):
        assert agree("gpt2_transform", with_the_stand_in, other, helped).ok
    assert broken.__globals__["Adapter"].__init__.__code__.co_filename == "<cellule insert>"
    assert Adapter.__module__ == "probing"


def build(teacher, layers, keep_config=False, share=False, forget_idx=False, untie=False, fresh_words=False):
    config = copy.deepcopy(teacher.config)
    config.n_layer = len(layers)
    student = type(teacher)(config)
    state = teacher.state_dict()
    if not fresh_words:
        student.transformer.wte.load_state_dict(teacher.transformer.wte.state_dict())
    student.transformer.wpe.load_state_dict(teacher.transformer.wpe.state_dict())
    student.transformer.ln_f.load_state_dict(teacher.transformer.ln_f.state_dict())
    for i, layer in enumerate(layers):
        student.transformer.h[i].load_state_dict(teacher.transformer.h[layer].state_dict())
        if share:
            student.transformer.h[i] = teacher.transformer.h[layer]
        if forget_idx:
            student.transformer.h[i].attn.layer_idx = layer
    if keep_config:
        student.config.n_layer = teacher.config.n_layer
    if untie:
        student.lm_head.weight = nn.Parameter(state["lm_head.weight"].clone())
    return student


NEW = {"config": {"n_layer": 3}, "seed": 2, "args": {"layers": [0, 2]}, "input_ids": torch.tensor([[3, 1, 4, 1, 5, 9]])}


@pytest.mark.parametrize(
    ("mistake", "place"),
    [
        ({"keep_config": True}, "n_layer annoncé"),
        ({"share": True}, "partagés"),
        ({"untie": True}, "nombre de paramètres"),
        ({"fresh_words": True}, "logits"),
    ],
)
def test_new_model_separates_students(mistake, place):
    verdict = agree("gpt2_new_model", build, lambda t, layers: build(t, layers, **mistake), NEW)
    assert not verdict.ok and place in verdict.message


def test_new_model_sees_a_stale_cache_index():
    outcome = run_case("gpt2_new_model", lambda t, layers: build(t, layers, forget_idx=True), NEW)
    expected = run_case("gpt2_new_model", build, NEW)
    assert not compare(expected, outcome, NEW, CLOSE).ok
    right = expected["value"]
    assert torch.allclose(right["logits"], right["logits avec cache"], atol=1e-5)
    assert "logits avec cache" in compare(expected, outcome, NEW, CLOSE).message


def test_new_model_sees_what_happened_to_the_teacher():
    def cuts_the_teacher(teacher, layers):
        student = build(teacher, layers)
        teacher.config.n_layer = 1
        with torch.no_grad():
            teacher.transformer.ln_f.bias.add_(1)
        return student

    value = run_case("gpt2_new_model", cuts_the_teacher, NEW)["value"]
    assert value["modifié dans le modèle reçu"] == ["transformer.ln_f.bias", "config.n_layer"]
    assert run_case("gpt2_new_model", build, NEW)["value"]["modifié dans le modèle reçu"] == []
    assert run_case("gpt2_new_model", lambda t, layers: [1], NEW)["status"] == "untransportable"


def greedy(model, ids, n_new):
    """Sans le nom du cache, que transformers a changé en cours de route."""
    if ids.shape[1] + n_new > model.config.n_positions:
        raise ValueError("trop long")
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, do_sample=False, pad_token_id=0
    )


def greedy_without_cache(model, ids, n_new):
    for _ in range(n_new):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids


def test_generate_tells_what_the_cache_spares():
    inputs = {"config": {"vocab_size": 40}, "seed": 11, "input_ids": torch.tensor([[3, 1, 4], [2, 7, 1]]), "n_new": 6}
    value = run_case("generate", greedy, inputs)["value"]
    assert value["jetons"].shape == (2, 9) and value["jetons lus en trop"] == 0
    slow = run_case("generate", greedy_without_cache, inputs)["value"]
    assert torch.equal(slow["jetons"], value["jetons"]) and slow["jetons lus en trop"] > 0
    assert "lus en trop" in agree("generate", greedy, greedy_without_cache, inputs).message
    assert run_case("generate", greedy, inputs | {"n_new": 99})["error"] == "ValueError"


def test_generated_tokens_vary():
    """Avec des poids trop petits, un argmax répète un seul jeton et toute erreur de position passe inaperçue."""
    ids = torch.randint(0, 40, (4, 4), generator=torch.Generator().manual_seed(0))
    varied = 0
    for seed in range(10):
        inputs = {"config": {"vocab_size": 40, "n_embd": 16}, "seed": seed, "input_ids": ids, "n_new": 8}
        tokens = run_case("generate", greedy, inputs)["value"]["jetons"][:, 4:]
        varied += sum(len(set(row.tolist())) >= 3 for row in tokens)
    assert varied >= 24  # sur 40


def freeze_except(model, patterns):
    for name, p in model.named_parameters():
        p.requires_grad_(any(x in name for x in patterns))
    return sorted(name for name, p in model.named_parameters() if p.requires_grad)


def never_freezes(model, patterns):
    for name, p in model.named_parameters():
        if any(x in name for x in patterns):
            p.requires_grad_(True)
    return sorted(name for name, _ in model.named_parameters() if any(x in name for x in patterns))


def never_unfreezes(model, patterns):
    for name, p in model.named_parameters():
        if not any(x in name for x in patterns):
            p.requires_grad_(False)
    return sorted(name for name, _ in model.named_parameters() if any(x in name for x in patterns))


@pytest.mark.parametrize("wrong", [never_freezes, never_unfreezes])
def test_freeze_sees_flags_and_not_only_names(wrong):
    inputs = {"config": {}, "seed": 1, "args": {"patterns": ["ln_", "mlp.c_fc"]}}
    assert agree("freeze", freeze_except, freeze_except, inputs).ok
    verdict = agree("freeze", freeze_except, wrong, inputs)
    assert not verdict.ok and "paramètres qui apprennent" in verdict.message


def adam_bytes(model, bytes_per_value=4):
    return 2 * bytes_per_value * sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_gpt2_call_gives_a_half_frozen_model_and_watches_it():
    inputs = {"config": {}, "seed": 1, "args": {"bytes_per_value": 2}}
    assert agree("gpt2_call", adam_bytes, adam_bytes, inputs).ok

    def all_parameters(model, bytes_per_value):
        return 2 * bytes_per_value * sum(p.numel() for p in model.parameters())

    def unfreezes(model, bytes_per_value):
        found = adam_bytes(model, bytes_per_value)
        model.requires_grad_(True)
        return found

    assert "valeur" in agree("gpt2_call", adam_bytes, all_parameters, inputs).message
    assert "modifié" in agree("gpt2_call", adam_bytes, unfreezes, inputs).message
