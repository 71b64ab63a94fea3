"""Chaque exercice sur la carte simulée : la référence par sa sonde, les autres styles justes, et ce qu'en dit `check`.

Les entrées sont mises sur la carte comme les aurait un étudiant qui en possède une ; les valeurs attendues sont celles
du processeur. Les chapitres entiers sont dans test_carte_chapitres.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import carte
import pytest
import torch
from test_exercises import Answer, Cases, chapter, declaration, each_exercise, styles, visible
from torch import nn

from atelier import hardware
from atelier.hardware import beside, home
from atelier.judging.compare import compare
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.probes import PROBES, call, run_case
from atelier.perplexity import evaluate_perplexity
from atelier.training import lm_loss, train

CARD = carte.install()
BUILDS = [name for name, probe in PROBES.items() if probe.__module__ != call.__module__]
"""Les sondes qui bâtissent un module ou un modèle : l'entrée `device` leur dit où."""

NUMPY = "to numpy"
"""Les styles qui passent par NumPy s'arrêtent ainsi : NumPy ne lit pas la mémoire d'une carte, et le message le dit."""

LEFT_OUT = {
    "linear_own_type": "multiplie des matrices d'int32, que CUDA ne multiplie pas : l'énoncé le dit",
    "AdapterMatmul": "remplace un paramètre par .data, dont l'autograd d'une carte de Python perd la forme",
    **dict.fromkeys(
        ("inject_through_linear", "student_cloned_data"),
        "range par .data un tenseur de la carte dans une couche de l'hôte : torch le refuse à une carte de Python",
    ),
}
"""Les autres styles justes qui n'y passent pas, et pourquoi. Qui passe doit quitter ce tableau."""


def on_card(value: Any, where: str = carte.NAME) -> Any:
    """Les mêmes entrées, leurs tenseurs sur la carte."""
    if isinstance(value, torch.Tensor):
        return value.to(where)
    if isinstance(value, (list, tuple)):
        return type(value)(on_card(v, where) for v in value)
    return {k: on_card(v, where) for k, v in value.items()} if isinstance(value, dict) else value


def refused(
    name: str, id: str, cases: Cases, answer: Answer, where: str = carte.NAME, tolerance: Tolerance = EXACT
) -> list[str]:
    """Ce qui ne va pas quand `answer` reçoit ces cas sur une carte. tolerance : au moins celle-ci."""
    exercise, found = declaration(name, id), []
    allowed = exercise.tolerance
    allowed = replace(allowed, rtol=max(allowed.rtol, tolerance.rtol), atol=max(allowed.atol, tolerance.atol))
    for _, inputs, expected in cases:
        given = on_card(inputs, where) | ({"device": where} if exercise.probe in BUILDS else {})
        got = run_case(exercise.probe, answer, given)
        verdict = compare(expected, got, inputs, allowed)
        if not verdict.ok:
            found.append(verdict.message)
    return found


@each_exercise
def test_reference_answers_on_the_card(name: str, id: str) -> None:
    assert not refused(name, id, visible(name, id), chapter(name).reference(id))


@each_exercise
def test_other_right_styles_answer_on_the_card(name: str, id: str) -> None:
    for answer in styles(name, id):
        problems = [p for p in refused(name, id, visible(name, id), answer) if NUMPY not in p]
        if answer.__name__ in LEFT_OUT:
            assert problems, f"{answer.__name__} passe sur la carte : retirez-le de LEFT_OUT"
        else:
            wrong_here_too = problems and refused(name, id, visible(name, id), answer, "cpu")  # dit par test_exercises
            assert not problems or wrong_here_too, (answer.__name__, problems[0])


# --- La carte elle-même ----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "une somme mêlée": (RuntimeError, "same device", lambda: torch.ones(3, device=CARD) + torch.ones(3)),
    "un nombre de la carte": (RuntimeError, "same device", lambda: torch.ones(3) + torch.ones((), device=CARD)),
    "des jetons de l'hôte": (RuntimeError, "same device", lambda: nn.Embedding(4, 2).to(CARD)(torch.tensor([1]))),
    "des indices de la carte": (RuntimeError, "same device", lambda: torch.ones(3)[torch.tensor([1], device=CARD)]),
    "NumPy": (TypeError, "to numpy", lambda: torch.ones(3, device=CARD).numpy()),
    "un générateur de l'hôte": (RuntimeError, "generator", lambda: _drawn(torch.Generator())),
    "un produit d'entiers": (RuntimeError, "not implemented", lambda: _integers() @ _integers()),
}
"""Ce que CUDA refuse, et la carte simulée avec lui."""

ALLOWED: dict[str, Callable[[], Any]] = {
    "un nombre de l'hôte": lambda: torch.ones(3, device=CARD) * torch.tensor(2.0),
    "des indices de l'hôte": lambda: torch.ones(3, device=CARD)[torch.tensor([0, 2])],
    "copy_": lambda: torch.ones(3, device=CARD).copy_(torch.zeros(3)),
    "inference_mode": lambda: _inside_inference_mode(),
    "des tenseurs créés là": lambda: _created(),
    "relire des poids de la carte": lambda: nn.Linear(2, 2).load_state_dict(nn.Linear(2, 2).to(CARD).state_dict()),
    "CSR": lambda: torch.eye(3, device=CARD).to_sparse_csr() @ torch.ones(3, 2, device=CARD),
    "autocast": lambda: _under_autocast(),
    "deux poids liés": lambda: _tied(),
}

LIMITS: dict[str, tuple[str, Callable[[], Any]]] = {
    "Generator": ("torch demande en C++ un générateur de cet appareil", lambda: torch.Generator(device=CARD)),
    "tensor de tenseurs": (
        "torch.tensor lit ces nombres sans passer par Python",
        lambda: torch.tensor([torch.ones((), device=CARD)]),
    ),
    "le format CSR": (
        "l'enveloppe d'un tenseur CSR se dit dense ; produit, indices et valeurs sont justes",
        lambda: torch.eye(2, device=CARD).to_sparse_csr().to_dense() + 1,
    ),
    "un optimiseur d'avant .to": (
        "module.to refait les paramètres, que CUDA garde : un optimiseur bâti avant suivrait les anciens",
        lambda: _same_parameters(),
    ),
    "2:4": (
        "torch.sparse n'accepte que CUDA",
        lambda: torch.sparse.to_sparse_semi_structured(torch.ones(32, 64, device=CARD, dtype=torch.half)),
    ),
}
"""Ce que la carte simulée ne sait pas faire, pourquoi, et de quoi s'en assurer. Ce qui passe doit en sortir."""


def _drawn(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(3, device=CARD, generator=generator)


def _integers() -> torch.Tensor:
    return torch.ones(2, 2, dtype=torch.int32, device=CARD)


def _created() -> None:
    assert torch.eye(3, device=CARD).shape == (3, 3) and torch.arange(1, 7, 2, device=CARD).shape == (3,)
    assert torch.linspace(0, 1, 5, device=CARD).shape == torch.randperm(5, device=CARD).shape == (5,)


def _inside_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.zeros(3, device=CARD)
        x[1] = 2
        assert x.add_(1).tolist() == [1, 3, 1]
        assert x.cpu().numpy().sum() == 5 and x.to(torch.int64).device == x.device


def _under_autocast() -> None:
    with torch.autocast(carte.NAME, torch.bfloat16, enabled=False):
        nn.Linear(2, 2).to(CARD)(torch.ones(1, 2, device=CARD)).sum().backward()


def _tied() -> None:
    layer = nn.Linear(2, 2)
    moved = nn.Sequential(layer, layer).to(CARD)
    assert moved[0].weight is moved[1].weight
    assert len(list(copy.deepcopy(moved).parameters())) == 2


def _same_parameters() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight
    assert layer.to(CARD).weight is before


@pytest.mark.parametrize("what", REFUSED)
def test_the_card_refuses_what_cuda_refuses(what: str) -> None:
    kind, words, run = REFUSED[what]
    with pytest.raises(kind, match=words):
        run()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ALLOWED)
def test_the_card_does_what_cuda_does(what: str) -> None:
    ALLOWED[what]()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", LIMITS)
def test_known_limits_still_hold(what: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - quel que soit le refus, la limite tient
        LIMITS[what][1]()


def test_without_float64_like_apple() -> None:
    carte.install(without_float64=True)
    try:
        x = torch.ones(2, device=CARD)
        for refuse in (x.double, lambda: x.sum(dtype=torch.float64), lambda: torch.ones(2).double().to(CARD)):
            with pytest.raises(TypeError, match="float64"):
                refuse()
        assert x.to("cpu", torch.float64).tolist() == [1, 1]
    finally:
        carte.install()


# --- L'atelier, autour d'un modèle qui est sur la carte ---------------------------------------------------------------


def test_beside_puts_any_batch_where_the_model_is() -> None:
    model = nn.Linear(2, 2).to(CARD)
    batch = {"x": (torch.ones(1), [torch.ones(2)]), "nom": "texte"}
    moved = beside(model, batch)
    assert home(model).type == carte.NAME == moved["x"][0].device.type == moved["x"][1][0].device.type
    assert moved["nom"] == "texte" and isinstance(moved["x"], tuple)
    assert beside(nn.Linear(2, 2), batch)["x"][0] is batch["x"][0]


def test_a_batch_may_come_from_the_host(colibri_on_card) -> None:
    """Perte, apprentissage, perplexité, activations : des jetons de l'hôte, un modèle sur la carte."""
    from atelier.figures.common.layers import calibration_ids, layer_inputs
    from atelier.models import load_model, load_tokenizer

    host, ids = load_model("colibri"), torch.arange(64).reshape(2, 32)
    with torch.no_grad():
        assert lm_loss(colibri_on_card, ids).item() == pytest.approx(lm_loss(host, ids).item(), rel=1e-6)
    seen = [evaluate_perplexity(m, max_tokens=300).perplexity for m in (colibri_on_card, host)]
    assert seen[0] == pytest.approx(seen[1], rel=1e-6)
    assert layer_inputs(colibri_on_card, ids, ["0.mlp.c_fc"])["0.mlp.c_fc"].device.type == carte.NAME
    assert calibration_ids(colibri_on_card, load_tokenizer("colibri"), 1).device.type == carte.NAME
    losses = train(copy.deepcopy(colibri_on_card), [ids] * 3, 3, lr=1e-3, warmup=1).losses
    assert losses[-1] < losses[0]


def test_a_variant_is_kept_and_read_again(colibri_on_card, monkeypatch, tmp_path) -> None:
    from atelier import variants

    monkeypatch.setenv("COURS_ETAT", str(tmp_path))
    row = variants.save_variant("essai", colibri_on_card, 1000, "ch3_quantification", keep_weights=True)
    assert row["perplexity"] > 1 and row["ms"] > 0
    again = variants.load_variant("essai")
    assert torch.allclose(again.lm_head.weight, colibri_on_card.lm_head.weight.cpu(), atol=1e-3)


@pytest.fixture(scope="module")
def colibri_on_card() -> Any:
    from atelier.models import load_model

    return load_model("colibri", on=CARD)


# --- check, pour qui met ses calculs sur la carte ---------------------------------------------------------------------


def _moved_first(reference: Answer) -> Answer:
    """La même réponse, qui commence par tout mettre sur la carte, et y laisse son résultat."""
    return lambda *arguments: reference(*(on_card(a) for a in arguments))


def test_a_result_left_on_the_card_is_judged_on_its_values() -> None:
    for name, id in (("ch3_quantification", "absmax_per_channel"), ("ch8_lora", "low_rank")):
        exercise, answer = declaration(name, id), _moved_first(chapter(name).reference(id))
        for _, inputs, expected in visible(name, id):
            got = run_case(exercise.probe, answer, inputs)
            assert compare(expected, got, inputs, exercise.tolerance).ok
    doubled = run_case("call", lambda x: (x.to(CARD) * 3, [x.to(CARD)]), {"x": torch.ones(2)})
    wrong = compare({"status": "value", "value": (torch.ones(2) * 2, [torch.ones(2)])}, doubled, {"x": torch.ones(2)})
    assert wrong.kind == "value"


def test_mixing_the_card_and_check_s_inputs_is_said() -> None:
    got = run_case("call", lambda x: x.to(CARD) @ x, {"x": torch.ones(2, 2)})
    assert got["status"] == "raised" and "same device" in got["message"]


# --- Ce que l'atelier sait des cartes, sans en avoir une ------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> Callable[[str], torch.device]:
    """`device()` comme si COURS_DEVICE valait ce texte."""

    def ask(name: str) -> torch.device:
        monkeypatch.setenv("COURS_DEVICE", name)
        return hardware.device.__wrapped__()

    return ask


def test_the_asked_device_is_taken_or_refused_in_french(asked) -> None:
    assert asked("cpu").type == "cpu" and asked(carte.NAME).type == carte.NAME
    for wrong in ("gpu", "carte graphique", "cuda:9"):
        with pytest.raises(ValueError, match="COURS_DEVICE vaut"):
            asked(wrong)


@pytest.mark.parametrize(
    ("name", "capability", "formats", "kernels"),
    [
        ("Tesla T4", (7, 5), {"float32", "float16"}, {"fp32", "fp16", "int8, produit nu"}),
        ("NVIDIA A100-SXM4-40GB", (8, 0), {"float32", "TF32", "bfloat16", "float16"},
         {"fp32", "fp16", "bf16", "int8, produit nu"}),
        ("NVIDIA L4", (8, 9), {"float32", "TF32", "bfloat16", "float16"},
         {"fp32", "fp16", "bf16", "int8, produit nu", "fp8 E4M3, produit nu"}),
    ],
)  # fmt: skip
def test_a_card_is_asked_only_what_its_generation_knows(monkeypatch, name, capability, formats, kernels) -> None:
    """Une carte décrite à torch, sans calcul : ce que les chapitres 2 et 3 lui demanderaient."""
    from atelier.figures.ch2 import time
    from atelier.figures.ch2 import tools as ch2_tools
    from atelier.figures.ch3 import tools

    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda"))
    for module in (time, ch2_tools):
        monkeypatch.setattr(module, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(tools, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert set(ch2_tools.formats()) == formats == set(time._announced())
    asked = {n: set(tools._card_kernels(nn.Linear(16, 32), torch.randn(n, 16))) for n in (1, 17)}
    assert asked[17] == kernels
    assert asked[1] == {k for k in kernels if "produit nu" not in k}, "_int_mm veut plus de seize lignes"


def test_the_peaks_of_cards_with_one_name_are_told_apart(monkeypatch) -> None:
    from atelier.figures.ch2 import time

    def peaks(name: str) -> dict[str, float]:
        monkeypatch.setattr(time, "card_name", lambda: name)
        return time._announced()

    assert peaks("NVIDIA H100 PCIe")["bfloat16"] == 756e12 < peaks("NVIDIA H100 80GB HBM3")["bfloat16"]
    assert peaks("NVIDIA H100 NVL") == peaks("NVIDIA A10G") == peaks("") == {}


@pytest.mark.parametrize(("gigabytes", "scale"), [(0, "cpu"), (4, "cpu"), (16, "gpu")])
def test_a_small_card_takes_the_smaller_scale(monkeypatch, gigabytes: int, scale: str) -> None:
    monkeypatch.delenv("COURS_ECHELLE", raising=False)
    monkeypatch.setattr(hardware, "card_bytes", lambda: gigabytes * 10**9)
    assert hardware.scale().name == scale


def test_memory_is_counted_only_where_torch_counts_it(monkeypatch) -> None:
    with hardware.card_memory() as seen:
        torch.ones(1000)
    assert seen.before is seen.after is seen.peak is None
