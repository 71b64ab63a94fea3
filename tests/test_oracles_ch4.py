"""Les références du chapitre 4, contre des bibliothèques qui ne leur doivent rien ; puis ses figures et ses mesures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from atelier.figures.ch4 import tools
from atelier.figures.common.layers import linear_layers
from atelier.judging.probes_models import tiny_gpt2
from atelier.models import load_model
from atelier.perplexity import evaluate_perplexity
from grader.authoring.chapters import load_chapter
from grader.authoring.recording import needed

CHAPTER = "ch4_distillation"
TINY = {"n_layer": 4, "n_head": 2, "n_embd": 12, "vocab_size": 31, "n_positions": 24}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- softmax_temperature et ensemble_probs, contre scipy ------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "level"), [(0.01, 0.0), (0.5, -1000.0), (1, 0.0), (2.0, 1000.0), (50.0, 1000.0)]
)
def test_softmax_temperature_is_scipy_softmax(reference: Any, temperature: float, level: float) -> None:
    logits = normal(3, 2, 7) + level
    expected = scipy.special.softmax(logits.double().numpy() / temperature, axis=-1)
    found = reference("softmax_temperature")(logits, temperature)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-7)


def test_ensemble_is_the_mixture_and_never_worse_than_its_members_on_average(reference: Any) -> None:
    """L'entropie croisée du mélange est au plus la moyenne de celles des membres (Jensen) ; la loi est la moyenne."""
    logits = 3 * normal(4, 50, 9, dtype=torch.float64)
    probs = reference("ensemble_probs")(logits)
    torch.testing.assert_close(probs, torch.from_numpy(scipy.special.softmax(logits.numpy(), axis=-1)).mean(0))
    targets = torch.arange(50) % 9
    members = torch.stack([F.cross_entropy(z, targets) for z in logits])
    assert F.nll_loss(probs.log(), targets) < members.mean()


# --- kl_divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [None, "p", "q", "both"])
def test_kl_is_scipy_entropy(reference: Any, zeros: str | None) -> None:
    p, q = (normal(5, 6, seed=s, dtype=torch.float64).softmax(-1) for s in (1, 2))
    if zeros in ("p", "both"):
        p[:, 1] = 0
    if zeros in ("q", "both"):
        q[:, 1] = 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    expected = torch.from_numpy(scipy.stats.entropy(p.numpy(), q.numpy(), axis=-1))
    torch.testing.assert_close(reference("kl_divergence")(p, q), expected)
    assert bool(expected.isinf().all()) == (zeros == "q")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.1, 5.0))
def test_kl_is_never_negative_and_zero_only_between_equals(seed: int, size: int, sharpness: float) -> None:
    kl = load_chapter(CHAPTER).reference("kl_divergence")
    p, q = (sharpness * normal(2, 4, size, seed=seed, dtype=torch.float64)).softmax(-1)
    assert bool((kl(p, q) > 0).all()) and bool((kl(p, p) == 0).all())


# --- distillation_loss et combined_loss, contre F.kl_div et la perte de transformers --------------------------------


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5), (2, 2, 3, 4)])
def test_distillation_loss_is_kl_div_with_its_gradient(
    reference: Any, shape: tuple[int, ...], temperature: float
) -> None:
    teacher = normal(*shape, seed=3).requires_grad_(True)
    grads = []
    for loss in (reference("distillation_loss"), None):
        student = normal(*shape, seed=4).requires_grad_(True)
        if loss:
            value = loss(student, teacher, temperature)
        else:
            flat = (z.flatten(0, -2) / temperature for z in (student, teacher.detach()))
            log_q, p = next(flat).log_softmax(-1), next(flat).softmax(-1)
            value = F.kl_div(log_q, p, reduction="batchmean") * temperature**2
        value.backward()
        grads.append((value.detach(), student.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)
    assert teacher.grad is None


def test_t_squared_keeps_the_gradient_at_high_temperature(reference: Any) -> None:
    """À haute température, le gradient de la perte tend vers (z − v)/(N·V), centré : Hinton et al., 2015, éq. (4)."""
    student, teacher = normal(8, 6, seed=5, dtype=torch.float64), normal(8, 6, seed=6, dtype=torch.float64)
    student.requires_grad_(True)
    reference("distillation_loss")(student, teacher, 1e3).backward()
    gap = student.detach() - teacher
    expected = (gap - gap.mean(-1, keepdim=True)) / (6 * 8)
    torch.testing.assert_close(student.grad, expected, rtol=1e-2, atol=1e-6)


def test_combined_loss_is_the_loss_of_transformers_and_a_masked_kl(reference: Any) -> None:
    model, teacher = tiny_gpt2(TINY, 1), tiny_gpt2(TINY, 2)
    ids = torch.randint(0, 31, (3, 10), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(normal(3, 10, seed=9) > 0.6, -100)
    with torch.no_grad():
        out, target = model(ids, labels=labels), teacher(ids).logits
    combined = reference("combined_loss")
    torch.testing.assert_close(combined(out.logits, target, labels, 3.0, 0.0), out.loss, rtol=1e-5, atol=1e-6)
    total, count = 0.0, 0
    for b in range(3):
        for t in range(9):
            if labels[b, t + 1] != -100:
                p, q = ((z[b, t].double() / 3).softmax(-1).numpy() for z in (target, out.logits))
                total, count = total + 9 * scipy.stats.entropy(p, q), count + 1
    soft = combined(out.logits, target, labels, 3.0, 1.0).item()
    assert soft == pytest.approx(total / count, rel=1e-4)
    mixed = combined(out.logits, target, labels, 3.0, 0.3).item()
    assert mixed == pytest.approx(0.3 * soft + 0.7 * out.loss.item(), rel=1e-5)


# --- student_layers et build_student --------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 96), st.data())
def test_student_layers_are_spread_from_first_to_last(n_teacher: int, data: Any) -> None:
    n_student = data.draw(st.integers(1, n_teacher))
    layers = load_chapter(CHAPTER).reference("student_layers")(n_teacher, n_student)
    assert len(layers) == n_student and layers == sorted(set(layers)) and layers[0] == 0
    assert n_student == 1 or layers[-1] == n_teacher - 1
    if n_student > 1:
        step = (n_teacher - 1) / (n_student - 1)
        assert all(abs(k - i * step) <= 0.5 + 1e-9 for i, k in enumerate(layers))


def test_build_student_with_every_layer_is_colibri(reference: Any, tmp_path: Path) -> None:
    colibri = load_model("colibri")
    build = reference("build_student")
    ids = torch.arange(20)[None] * 7
    with torch.no_grad():
        torch.testing.assert_close(build(colibri, list(range(5)))(ids).logits, colibri(ids).logits)
    student = build(colibri, [0, 4])
    student.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, student(ids).logits)
        student.transformer.wte.weight.add_(1)
    assert torch.equal(colibri.transformer.wte.weight, load_model("colibri").transformer.wte.weight)
    assert student.lm_head.weight is student.transformer.wte.weight


# --- distill_step, contre une boucle écrite autrement ----------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (2.0, 0.5), (3.0, 0.0)])
def test_five_steps_are_those_of_a_loop_on_the_loss_of_transformers(
    reference: Any, temperature: float, alpha: float
) -> None:
    ids = torch.randint(0, 31, (5, 2, 9), generator=torch.Generator().manual_seed(0))
    teacher, results = tiny_gpt2(TINY, 2), []
    for stepped in (True, False):
        student = tiny_gpt2(TINY | {"n_layer": 1}, 1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for batch in ids:
            if stepped:
                losses.append(reference("distill_step")(student, teacher, batch, optimizer, temperature, alpha))
                continue
            out = student(batch, labels=batch)
            z, v = (m[:, :-1].flatten(0, 1) / temperature for m in (out.logits, teacher(batch).logits.detach()))
            soft = F.kl_div(z.log_softmax(-1), v.softmax(-1), reduction="batchmean")
            loss = alpha * temperature**2 * soft + (1 - alpha) * out.loss
            student.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results.append((torch.tensor(losses), dict(student.named_parameters())))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for name, p in results[0][1].items():
        torch.testing.assert_close(p, results[1][1][name], rtol=1e-3, atol=1e-4)
    assert all(p.grad is None for p in teacher.parameters())


# --- Les outils du chapitre -----------------------------------------------------------------------------------------


def test_an_ensemble_of_one_is_its_member() -> None:
    colibri = load_model("colibri")
    alone = tools.Ensemble([colibri], lambda z: z.softmax(-1).mean(0))
    a, b = (evaluate_perplexity(m, max_tokens=300).perplexity for m in (colibri, alone))
    assert a == pytest.approx(b, rel=1e-4)


def test_a_teacher_that_remembers_says_the_same_and_reads_once() -> None:
    model, ids = tiny_gpt2(TINY, 3), torch.arange(12).reshape(2, 6)
    reads: list[Any] = []
    model.register_forward_pre_hook(lambda _, x: reads.append(x))
    remembering = tools.Remembering(model)
    said = [remembering(input_ids=ids.clone(), use_cache=False).logits for _ in range(3)]
    assert len(reads) == 1 and not said[0].requires_grad
    torch.testing.assert_close(said[2], model(ids).logits.detach())
    assert remembering(ids[:1]).logits.shape[0] == 1 and len(reads) == 3


@pytest.mark.parametrize(("p", "gap"), [(0.55, 0.05), (0.9, 0.4)])  # 0,5 serait au bord de deux tranches
def test_confidence_bins_of_a_model_right_half_of_the_time(p: float, gap: float) -> None:
    right = torch.arange(1000) % 2
    bins = tools.confidence_bins(torch.full((1000,), p), right.float())
    assert sum(share * abs(c - r) for c, r, share in bins) == pytest.approx(gap, abs=1e-6)


def test_bins_do_not_let_errors_cancel() -> None:
    """Trop sûr ici, trop modeste là : les moyennes se valent, l'ECE le voit quand même."""
    confidence, right = torch.tensor([0.95] * 50 + [0.05] * 50), torch.tensor([0.0, 1.0]).repeat(50)
    bins = tools.confidence_bins(confidence, right)
    assert sum(share * abs(c - r) for c, r, share in bins) == pytest.approx(0.45, abs=1e-6)


@pytest.fixture(scope="module")
def rounding() -> Any:
    """La classe Rounding et la fonction with_rounding du chapitre."""
    chapter = load_chapter(CHAPTER)
    return chapter.execute(needed(chapter, lambda cell: "class Rounding" in cell.source))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_low_bit_file_gives_back_the_rounded_model(rounding: Any, bits: int) -> None:
    colibri = load_model("colibri")
    rounded = rounding["with_rounding"](colibri, bits)
    plain, size = tools.low_bit_file(rounded, bits)
    a, b = (evaluate_perplexity(m, max_tokens=300).perplexity for m in (plain, rounded))
    assert a == pytest.approx(b, rel=0.01)
    linear = sum(layer.weight.numel() for layer in linear_layers(colibri).values())
    assert abs(size - (linear * bits / 8 + 2 * (colibri.num_parameters() - linear))) < 60_000
    for layer in linear_layers(plain).values():
        assert all(len(column.unique()) <= 2**bits for column in layer.weight.T[:8])


def test_straight_through_gradient_goes_to_the_kept_weight(rounding: Any) -> None:
    w = normal(6, 4).requires_grad_(True)
    upstream = normal(6, 4, seed=8)
    layer = rounding["Rounding"](w, 3)
    (layer(w) * upstream).sum().backward()
    torch.testing.assert_close(w.grad, upstream)
    assert len(layer(w)[:, 0].unique()) <= 8


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_packed_codes_come_back(bits: int) -> None:
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (7, 5), generator=torch.Generator().manual_seed(1))
    packed = tools.pack_codes(codes, bits)
    assert packed.numel() == math.ceil(35 * bits / 8)
    assert torch.equal(tools.unpack_codes(packed, bits, codes.shape), codes)


# --- topk_kl ----------------------------------------------------------------------------------------------------------


def test_topk_kl_is_the_whole_divergence_when_one_token_is_missing_and_never_more(reference: Any) -> None:
    student, teacher = normal(3, 5, 11, dtype=torch.float64), 2 * normal(3, 5, 11, seed=1, dtype=torch.float64)
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    whole = torch.from_numpy(scipy.stats.entropy(p.numpy(), q.numpy(), axis=-1)).mean()
    found = []
    for k in range(1, 11):
        logs, ids = torch.log_softmax(teacher, -1).topk(k)
        found.append(float(reference("topk_kl")(student, logs, ids)))
    assert found[-1] == pytest.approx(float(whole), rel=1e-9)
    assert found == sorted(found), "réunir des événements ne fait jamais grandir une divergence"
    logs, ids = torch.log_softmax(student, -1).topk(3)
    assert float(reference("topk_kl")(student, logs, ids)) == pytest.approx(0.0, abs=1e-12)
