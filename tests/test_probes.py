"""Les sondes, sur de vrais objets torch et transformers : chaque mesure sépare une réponse juste d'une fausse."""

from __future__ import annotations

import copy
import functools
import linecache
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from atelier.judging.codec import dumps, loads
from atelier.judging.compare import compare
from atelier.judging.exercise import Tolerance
from atelier.judging.probes import PROBES, Interruption, run_case, without_source
from atelier.judging.probes_models import tiny_gpt2
from grader.jail.outside.dialogue import read_outcome

CLOSE = Tolerance(rtol=1e-4, atol=1e-5)


def agree(probe, right, student, inputs):
    """Le jugement de `student` face à `right`, en passant par le codec comme à la correction."""
    expected, got = (loads(dumps(run_case(probe, f, inputs))) for f in (right, student))
    return compare(expected, got, inputs, CLOSE)


def from_cell(source, name="f"):
    """Une fonction définie dans une cellule de carnet : son texte n'est que dans linecache."""
    filename = f"<cellule {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    space = {}
    exec(compile(source, filename, "exec"), space)
    return space[name]


# --- Un cas ----------------------------------------------------------------------------------------------------------


def test_a_value_comes_with_the_names_of_changed_inputs_and_what_was_printed():
    def f(x, y=3):
        print("bonjour", y)
        x.add_(1)
        return x.sum(), [y, None, "a"], {"k": 2.5}

    x = torch.zeros(2)
    outcome = run_case("call", f, {"x": x, "y": 4})
    assert outcome["value"] == (torch.tensor(2.0), [4, None, "a"], {"k": 2.5})
    assert outcome["modified"] == ["x"]
    assert outcome["printed"] == "bonjour 4\n"
    assert x.tolist() == [0, 0]


def test_printing_without_end_is_cut():
    outcome = run_case("call", lambda n: [print("x" * 100) for _ in range(n)] and None, {"n": 100_000})
    assert outcome["status"] == "value" and len(outcome["printed"]) == 2000


def test_non_contiguous_inputs_stay_so():
    x = torch.arange(6.0).reshape(2, 3).t()
    assert run_case("call", lambda x: x.is_contiguous(), {"x": x})["value"] is False


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("non"), "ValueError"),
        (SystemExit(1), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (RecursionError(), "RecursionError"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_whatever_the_student_raises_is_an_outcome(error, name):
    def f(x):
        raise error

    outcome = run_case("call", f, {"x": 1})
    assert (outcome["status"], outcome["error"]) == ("raised", name)
    assert name in outcome["mro"] and "object" not in outcome["mro"]


def test_a_homemade_class_cannot_take_the_name_of_a_builtin_error():
    forged = type("ValueError", (Exception,), {"__module__": "carnet"})

    def f(x):
        raise forged("x")

    outcome = run_case("call", f, {"x": 1})
    assert "ValueError" not in outcome["mro"]
    assert not compare({"status": "raised", "error": "ValueError"}, outcome, {}, CLOSE).ok


def test_a_message_that_cannot_be_written_is_no_trouble():
    class Odd(ValueError):
        def __str__(self):
            raise RuntimeError

    def f(x):
        raise Odd

    assert run_case("call", f, {"x": 1})["message"] == ""


def test_the_stub_is_not_an_error():
    def f(x):
        raise NotImplementedError("À vous d'écrire f.")

    outcome = run_case("call", f, {"x": 1})
    assert (outcome["status"], outcome["message"]) == ("todo", "À vous d'écrire f.")


def test_an_operation_that_torch_lacks_is_not_the_stub():
    def f(x):
        return torch.ops.aten._nested_tensor_size(x)

    outcome = run_case("call", f, {"x": torch.ones(2)})
    assert (outcome["status"], outcome["error"]) == ("raised", "NotImplementedError")


def test_the_line_is_the_students_own_even_from_a_cell():
    f = from_cell("import torch\n\ndef f(x):\n    y = torch.ones(3)\n    return torch.matmul(y, x)\n")
    outcome = run_case("call", f, {"x": torch.ones(2, 2)})
    assert outcome["where"] == "ligne 5\u00a0: return torch.matmul(y, x)"


def test_the_line_is_the_innermost_of_the_students_frames():
    f = from_cell("def inner(x):\n    return x / 0\n\ndef f(x):\n    return inner(x)\n")
    assert run_case("call", f, {"x": 1})["where"] == "ligne 2\u00a0: return x / 0"


def test_a_wrong_number_of_arguments_has_no_line_of_ours():
    outcome = run_case("call", lambda: 1, {"x": 1})
    assert (outcome["error"], outcome["where"]) == ("TypeError", "")


def test_a_numpy_float_counts_as_the_float_it_is():
    outcome = run_case("call", lambda x: (np.float64(x), 1), {"x": -0.0})
    assert outcome["status"] == "value" and type(outcome["value"][0]) is float
    assert str(outcome["value"][0]) == "-0.0"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ones(3), "NumPy (ndarray)"),
        (np.float32(1.5), "NumPy (float32)"),
        (np.int64(1), "NumPy (int64)"),
        (np.bool_(True), "NumPy (bool"),
        ((i for i in range(3)), "itérateur"),
        ({1: 2}, "clés"),
        (len, "jamais appelée"),
        (nn.Linear(1, 1), "module (Linear)"),
        (torch.ones(2, dtype=torch.complex64), "complexe"),
        (torch.ones(2).to_sparse(), "creux"),
        (torch.ones(2, device="meta"), "sans données"),
        ({1, 2}, "set"),
    ],
)
def test_what_is_not_data_is_named(value, words):
    outcome = run_case("call", lambda x: [value], {"x": 1})
    assert outcome["status"] == "untransportable"
    assert words in outcome["message"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (np.int64(1), ""),
        ([1, np.int64(1)], "résultat[1]"),
        ({"a": (0, [len])}, "a[1][0]"),
        ({"a": {"b": {1}}}, "a → b"),
    ],
)
def test_what_is_not_data_comes_with_its_place(value, place):
    """La place est écrite comme par `compare`, qui dit ce qu'il y attendait."""
    outcome = run_case("call", lambda x: value, {"x": 1})
    assert outcome["place"] == place
    assert read_outcome(dumps(outcome))["place"] == place


def test_texts_and_numbers_of_other_libraries_that_are_pythons_own_pass():
    import enum

    class Bits(enum.IntEnum):
        FOUR = 4

    value = run_case("call", lambda x: [np.str_("a"), Bits.FOUR, {np.str_("k"): np.float64(1)}], {"x": 1})["value"]
    assert value == ["a", 4, {"k": 1.0}] and [type(v) for v in value] == [str, int, dict]
    assert loads(dumps(value)) == value


def test_a_structure_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    assert run_case("call", lambda x: loop, {"x": 1})["status"] == "untransportable"


def test_subclasses_of_lists_and_parameters_become_plain_data():
    outcome = run_case("call", lambda x: (nn.Parameter(torch.ones(1)), torch.ones(2, 3).shape), {"x": 1})
    tensor, shape = loads(dumps(outcome))["value"]
    assert not tensor.requires_grad and shape == (2, 3)


def test_settings_that_the_student_changes_are_put_back():
    def f(x):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        return 1

    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    out = sys.stdout
    run_case("call", f, {"x": 1})
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled() and sys.stdout is out
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_random_answers_are_the_same_from_one_run_to_the_next():
    run = [run_case("call", lambda n: torch.randn(n), {"n": 3})["value"] for _ in range(2)]
    assert torch.equal(*run)


def test_an_interruption_from_outside_is_not_swallowed():
    def f(x):
        helper()

    def helper():
        raise Interruption

    with pytest.raises(Interruption):
        run_case("call", f, {"x": 1})


def test_nothing_of_the_solutions_text_goes_into_a_pack():
    def secret(x):
        print("secret")
        raise ValueError(f"solution secrète {x}")

    kept = without_source(run_case("call", secret, {"x": 1}))
    assert "secr" not in str(kept) and kept["status"] == "raised" and "ValueError" in kept["mro"]


def test_every_probe_is_documented():
    import atelier.judging.probes

    assert all(f"`{name}`" in atelier.judging.probes.__doc__ for name in PROBES)


# --- Fonctions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [2.0, 2, torch.tensor(2.0), torch.tensor([[2.0]]), np.float64(2.0)])
def test_call_float_takes_any_single_number(answer):
    assert run_case("call_float", lambda x: answer, {"x": 1})["value"] == 2.0


@pytest.mark.parametrize("answer", [torch.ones(2), None, "2", True, [2.0]])
def test_call_float_refuses_the_rest(answer):
    assert run_case("call_float", lambda x: answer, {"x": 1})["status"] == "untransportable"


def test_call_many_runs_through_a_list():
    outcome = run_case("call_many", lambda n, k: n**k, {"n": [1, 2, 3], "k": 2})
    assert outcome["value"] == [1, 4, 9]


def test_call_iterator_can_be_read_only_once():
    def twice(items):
        return sum(1 for _ in items) + sum(1 for _ in items)

    assert run_case("call_iterator", twice, {"items": [1, 2, 3]})["value"] == 3
    assert run_case("call_iterator", twice, {"items": (1, 2, 3)})["value"] == 6


def kl(student, teacher, temperature=2.0):
    p = (teacher.detach() / temperature).softmax(-1)
    q = (student / temperature).log_softmax(-1)
    return temperature**2 * nn.functional.kl_div(q, p, reduction="batchmean")


def test_loss_grads_sees_who_receives_a_gradient():
    def teacher_learns(student, teacher, temperature=2.0):
        p = (teacher / temperature).softmax(-1)
        q = (student / temperature).log_softmax(-1)
        return temperature**2 * nn.functional.kl_div(q, p, reduction="batchmean")

    inputs = {"student": torch.randn(4, 5), "teacher": torch.randn(5, 4).t(), "temperature": 3.0}
    value = run_case("loss_grads", kl, inputs)["value"]
    assert value["gradients"]["student"].any() and not value["gradients"]["teacher"].any()
    assert agree("loss_grads", kl, kl, inputs).ok
    verdict = agree("loss_grads", kl, teacher_learns, inputs)
    assert verdict.kind == "value" and "gradients → teacher" in verdict.message
    assert not agree("loss_grads", kl, lambda s, t, temperature: kl(s, t, temperature).detach(), inputs).ok
    assert agree("loss_grads", kl, lambda s, t, temperature: float(kl(s, t, temperature)), inputs).kind == "type"


# --- Modules ---------------------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        return x + self.up(nn.functional.gelu(self.down(x)))


class NoResidual(Adapter):
    def forward(self, x):
        return super().forward(x) - x


class NoActivation(Adapter):
    def forward(self, x):
        return x + self.up(self.down(x))


class RandomUp(Adapter):
    def __init__(self, d_model, bottleneck):
        super().__init__(d_model, bottleneck)
        self.up.reset_parameters()


class AllZero(Adapter):
    def __init__(self, d_model, bottleneck):
        super().__init__(d_model, bottleneck)
        nn.init.zeros_(self.down.weight)


class OtherNames(nn.Module):
    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.a = nn.Linear(d_model, bottleneck)

    def forward(self, x):
        return x


def adapter_inputs():
    g = torch.Generator().manual_seed(0)
    shapes = {"down.weight": (3, 4), "down.bias": (3,), "up.weight": (4, 3), "up.bias": (4,)}
    return {
        "init": {"d_model": 4, "bottleneck": 3},
        "x": torch.randn(2, 5, 4, generator=g),
        "weights": {name: torch.randn(s, generator=g) for name, s in shapes.items()},
        "out_grad": torch.randn(2, 5, 4, generator=g),
        "watch": ["up.weight", "up.bias", "down.weight"],
    }


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (NoResidual, "sortie au départ"),
        (NoActivation, "sortie avec les poids donnés"),
        (RandomUp, "partent de zéro → up.weight"),
        (AllZero, "partent de zéro → down.weight"),
        (OtherNames, "paramètres entraînés"),
    ],
)
def test_module_separates_adapters(wrong, place):
    verdict = agree("module", Adapter, wrong, adapter_inputs())
    assert not verdict.ok and place in verdict.message


def test_module_accepts_another_correct_writing():
    class Functional(Adapter):
        def forward(self, x):
            h = x @ self.down.weight.T + self.down.bias
            return nn.functional.gelu(h) @ self.up.weight.T + self.up.bias + x

    assert agree("module", Adapter, Functional, adapter_inputs()).ok


def test_module_that_is_no_module_and_constructor_that_raises():
    assert run_case("module", lambda d, m: 3, adapter_inputs())["status"] == "untransportable"

    def refuses(d_model, bottleneck):
        raise ValueError("non")

    assert run_case("module", refuses, adapter_inputs())["error"] == "ValueError"


class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.base(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)


class BaseLearns(LoRALinear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        base.requires_grad_(True)


class MergesIntoBase(LoRALinear):
    def forward(self, x):
        with torch.no_grad():
            self.base.weight.add_(self.scaling * self.lora_B @ self.lora_A)
        return self.base(x) + 0 * (x @ self.lora_A.T @ self.lora_B.T)


class HeavyScaling(LoRALinear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.scaling = alpha


def lora_inputs():
    g = torch.Generator().manual_seed(1)
    base = {"weight": torch.randn(3, 4, generator=g), "bias": torch.randn(3, generator=g)}
    return {
        "init": {"base": {"module": "Linear", "args": [4, 3], "weights": base}, "rank": 2, "alpha": 6.0},
        "x": torch.randn(5, 4, generator=g),
        "weights": {"lora_A": torch.randn(2, 4, generator=g), "lora_B": torch.randn(3, 2, generator=g)},
        "out_grad": torch.randn(5, 3, generator=g),
        "watch": ["lora_A", "lora_B"],
    }


def test_module_receives_a_layer_and_watches_it():
    outcome = run_case("module", LoRALinear, lora_inputs())
    inputs = lora_inputs()
    value = outcome["value"]
    assert value["partent de zéro"] == {"lora_A": False, "lora_B": True}
    assert list(value["paramètres entraînés"]) == ["lora_A", "lora_B"]
    assert torch.equal(value["modules reçus"]["base"]["weight"], inputs["init"]["base"]["weights"]["weight"])
    assert set(value["gradients"]) == {"x", "lora_A", "lora_B"}


@pytest.mark.parametrize("wrong", [BaseLearns, MergesIntoBase, HeavyScaling])
def test_module_separates_lora_layers(wrong):
    assert not agree("module", LoRALinear, wrong, lora_inputs()).ok


def test_train_steps_moves_what_trains_and_nothing_else():
    inputs = {k: v for k, v in lora_inputs().items() if k in ("init", "weights", "x")}
    inputs |= {"target": torch.zeros(5, 3), "lr": 0.05, "steps": 3}
    value = run_case("train_steps", LoRALinear, inputs)["value"]
    assert value["pertes"] == sorted(value["pertes"], reverse=True) and len(value["pertes"]) == 3
    assert not torch.equal(value["poids après"]["lora_A"], inputs["weights"]["lora_A"])
    assert torch.equal(value["modules reçus"]["base"]["weight"], inputs["init"]["base"]["weights"]["weight"])
    assert agree("train_steps", LoRALinear, LoRALinear, inputs).ok
    for wrong in (BaseLearns, HeavyScaling):
        assert not agree("train_steps", LoRALinear, wrong, inputs).ok


# --- Petits GPT-2 ----------------------------------------------------------------------------------------------------


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
    assert Adapter.__module__ == __name__


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
