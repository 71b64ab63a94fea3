"""Les sondes : un cas, une fonction, un module."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch
from probing import CLOSE, Adapter, agree, from_cell
from torch import nn

from atelier.judging.codec import dumps, loads
from atelier.judging.compare import compare
from atelier.judging.probes import PROBES, Interruption, run_case, without_source
from grader.jail.outside.dialogue import read_outcome

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
