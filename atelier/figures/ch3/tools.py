"""Ce que le chapitre 3 emploie sans l'enseigner : observer Colibri, l'écrire dans un fichier, appeler des noyaux."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.display import note
from atelier.figures.common.layers import KINDS, layer_inputs, linear_layers, weight_of
from atelier.hardware import beside, card_capability, card_name, device

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

GROUP = 64
"""Poids d'une ligne qui partagent une échelle, quand on quantifie par groupes."""


# --- Ce qui circule dans un modèle ------------------------------------------------------------------------------------


def collect(model: GPT2LMHeadModel, ids: Tensor) -> dict[str, Tensor]:
    """Toutes les valeurs que Colibri manie en lisant ids (B, T), par espèce : poids, activations, gradients…"""
    inputs = layer_inputs(model, ids)
    found = {
        "poids": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "entrées des couches": torch.cat([x.flatten() for x in inputs.values()]),
    }
    stream: list[Tensor] = []
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    hooks = [m.register_forward_pre_hook(lambda _, args: stream.append(args[0].detach())) for m in norms]
    model.zero_grad()
    ids = beside(model, ids)
    with torch.enable_grad():
        logits = model(ids).logits
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for hook in hooks:
        hook.remove()
    found["flux résiduel"] = torch.cat([s.flatten() for s in stream])
    found["sommes de carrés d'un LayerNorm"] = torch.cat([s.square().sum(-1).flatten() for s in stream])
    found["logits"] = logits.detach().flatten()
    found["gradients des poids"] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return {k: v[v != 0].cpu() for k, v in found.items()}


def continuation(model: GPT2LMHeadModel, tokenizer: Any, prompt: str, n_new: int) -> str:
    """La suite la plus probable de `prompt`, jeton après jeton."""
    ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
    options = {"do_sample": False, "max_new_tokens": n_new, "pad_token_id": model.config.eos_token_id}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
    return " ".join(tokenizer.decode(out, skip_special_tokens=True).split())


# --- GPTQ par groupes -------------------------------------------------------------------------------------------------


def gptq_in_groups(
    w: Tensor, x: Tensor, bits: int, gptq: Callable[..., Tensor], step: Callable[[Tensor], Tensor], damp: float = 0.01
) -> Tensor:
    """GPTQ avec un pas par groupe de colonnes, bâti sur le GPTQ par ligne de l'étudiant.

    Les groupes passent de gauche à droite. Ce que les colonnes encore libres peuvent rattraper est retiré de la
    hessienne du groupe (complément de Schur) : des activations fictives, de même hessienne, sont données à `gptq`.
    Puis les colonnes libres rattrapent, au mieux, ce que le groupe a perdu. w : (sortie, entrée) ; x : (n, entrée) ;
    step : les poids d'un groupe, tels qu'ils sont au moment de l'arrondir → le pas de chaque ligne.
    """
    x, free, done = x.double(), w.double(), []
    h = 2 * x.T @ x
    h += damp * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype, device=h.device)
    while free.shape[1]:
        g = min(GROUP, free.shape[1])
        own, cross, rest = h[:g, :g], h[:g, g:], h[g:, g:]
        catch_up = torch.linalg.solve(rest, cross.T).T if g < free.shape[1] else cross
        pseudo = torch.linalg.cholesky((own - catch_up @ cross.T) / 2, upper=True)
        rounded = gptq(free[:, :g], pseudo, step(free[:, :g]), bits, 0.0)
        free = free[:, g:] + (free[:, :g] - rounded) @ catch_up
        done.append(rounded)
        h = rest
    return torch.cat(done, 1).to(w.dtype)


# --- Un modèle quantifié dans un fichier ------------------------------------------------------------------------------


def code_tensors(model: GPT2LMHeadModel, codes: Callable[[str, Tensor], tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Ce que contient le fichier d'un modèle quantifié.

    codes : chemin et poids (sortie, entrée) d'une couche linéaire → ses codes et ses échelles. Les échelles, et tout ce
    qui n'est pas un poids de couche linéaire (tables, biais, normalisations), sont écrits en FP16.
    """
    layers = _by_path(model)
    linear = {f"{path}.weight" for path in layers}
    stored = {k: p.detach().to("cpu", torch.float16) for k, p in model.named_parameters() if k not in linear}
    for name, layer in layers.items():
        q, s = codes(name, weight_of(layer))
        stored[f"{name}.q"], stored[f"{name}.s"] = q.cpu(), s.to("cpu", torch.float16)
    return {k: v.contiguous() for k, v in stored.items()}


def _by_path(model: GPT2LMHeadModel) -> dict[str, Conv1D]:
    """Le chemin de chaque couche linéaire, comme `named_modules` le donne."""
    return {f"transformer.h.{name}": layer for name, layer in linear_layers(model).items()}


def linear_bytes(stored: dict[str, Tensor]) -> int:
    """Octets que prennent, dans ce fichier, les poids des couches linéaires (codes et échelles)."""
    return sum(t.nbytes for key, t in stored.items() if _is_linear(key))


def _is_linear(key: str) -> bool:
    return key.endswith((".q", ".s")) or any(key.endswith(f"{kind}.weight") for kind in KINDS)


def reread(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Les mêmes tenseurs, écrits dans un fichier safetensors puis relus."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modele.safetensors"
        save_file(stored, path)
        return load_file(path)


def from_codes(
    model: GPT2LMHeadModel, stored: dict[str, Tensor], weights: Callable[[Tensor, Tensor], Tensor]
) -> GPT2LMHeadModel:
    """Le modèle que rend un fichier de codes : c'est lui qu'on évalue, arrondis en FP16 compris.

    weights : (codes, échelles (sortie, 1)) d'une couche → ses poids (sortie, entrée).
    """
    restored = copy.deepcopy(model)
    own = dict(restored.named_parameters())
    with torch.no_grad():
        for key, value in stored.items():
            if not _is_linear(key):
                own[key].copy_(value)
        for name, layer in _by_path(restored).items():
            layer.weight.copy_(weights(stored[f"{name}.q"], stored[f"{name}.s"].float()).T)
    return restored


# --- Les bibliothèques ------------------------------------------------------------------------------------------------


def library_codes(w: Tensor) -> dict[str, tuple[float, Tensor]]:
    """8 bits symétriques, une échelle pour tout w, par torchao, onnxruntime et torch.ao : nom → (échelle, codes).

    Une bibliothèque absente de la machine manque au résultat, et c'est dit.
    """
    w = w.detach().float().cpu().contiguous()
    return {**_torchao(w), **_onnxruntime(w), **_torch_ao(w)}


def _torch_ao(w: Tensor) -> dict[str, tuple[float, Tensor]]:
    """L'ancien module de PyTorch, et ce qu'il dit de lui-même ; rien, le jour où il n'est plus là."""
    found: dict[str, tuple[float, Tensor]] = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            from torch.ao.quantization.observer import MinMaxObserver
        except ImportError:
            note("torch.ao.quantization n'existe plus dans cette version de PyTorch : ses lignes manquent.")
            return found
        for name, bounds in (
            ("torch.ao (ancien), par défaut", {}),
            ("torch.ao (ancien), quant_min=−127", {"quant_min": -127, "quant_max": 127}),
        ):
            observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, **bounds)
            observer(w)
            s, zero = observer.calculate_qparams()
            found[name] = s.item(), torch.quantize_per_tensor(w, s.item(), int(zero), torch.qint8).int_repr()
    _say_once(str(one.message) for one in told)
    return found


_said: set[str] = set()


def _say_once(messages: Iterable[str]) -> None:
    """Les avertissements d'une bibliothèque sur elle-même, chacun une fois, sa première phrase."""
    for said in (message.splitlines()[0].partition(". ")[0].strip(" .") for message in messages):
        if "deprecat" in said and said not in _said:
            _said.add(said)
            note(f"PyTorch prévient : « {said} ».")


def _torchao(w: Tensor) -> dict[str, tuple[float, Tensor]]:
    try:
        from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine
    except ImportError:
        note("torchao n'est pas installé sur cette machine : sa ligne manque.")
        return {}
    found = {}
    block = tuple(w.shape)
    for name, kind in (
        ("torchao, SYMMETRIC", MappingType.SYMMETRIC),
        ("torchao, SYMMETRIC_NO_CLIPPING_ERR", MappingType.SYMMETRIC_NO_CLIPPING_ERR),
    ):
        s, zero = choose_qparams_affine(w, kind, block, torch.int8)
        found[name] = s.item(), quantize_affine(w, block, s, zero, torch.int8)
    return found


def _onnxruntime(w: Tensor) -> dict[str, tuple[float, Tensor]]:
    try:
        from onnx import TensorProto
        from onnxruntime.quantization.quant_utils import quantize_data
    except ImportError:
        note("onnxruntime n'est pas installé sur cette machine : sa ligne manque.")
        return {}
    *_, s, q = quantize_data(w.flatten().numpy(), TensorProto.INT8, symmetric=True)
    return {"onnxruntime": (float(s), torch.from_numpy(q.copy()).reshape(w.shape))}


# --- De vrais noyaux --------------------------------------------------------------------------------------------------


def kernels(layer: nn.Linear, x: Tensor) -> dict[str, Callable[[], Any]]:
    """Les façons qu'a cette machine de calculer layer(x) : nom → appel à chronométrer. Le premier est fp32."""
    return _those_that_run(_cpu_kernels(layer, x) if device().type == "cpu" else _card_kernels(layer, x))


def _cpu_kernels(layer: nn.Linear, x: Tensor) -> dict[str, Callable[[], Any]]:
    brain = copy.deepcopy(layer).bfloat16()
    xb, a = x.bfloat16(), _random_int8(*x.shape)
    b = _random_int8(*layer.weight.shape).T
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        engines = torch.backends.quantized.supported_engines
        torch.backends.quantized.engine = "onednn" if "onednn" in engines else "qnnpack"
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)
    _say_once(str(one.message) for one in told)
    found: dict[str, Callable[[], Any]] = {
        "fp32": lambda: layer(x),
        "bf16": lambda: brain(xb),
        "int8, torch.ao": lambda: dynamic(x),
    }
    if torch.cpu._is_vnni_supported():  # sans ces instructions, le produit nu est mille fois plus lent
        found["int8, produit nu"] = lambda: torch._int_mm(a, b)
    return found


def _card_kernels(layer: nn.Linear, x: Tensor) -> dict[str, Callable[[], Any]]:
    """Les noyaux d'une carte : ceux de CUDA selon sa génération ; sur MPS ou ailleurs, fp32 et fp16 seulement."""
    half, xh = copy.deepcopy(layer).half(), x.half()
    found: dict[str, Callable[[], Any]] = {"fp32": lambda: layer(x), "fp16": lambda: half(xh)}
    if card_capability() >= (8, 0):  # Turing (T4) ne fait qu'imiter bfloat16
        brain, xb = copy.deepcopy(layer).bfloat16(), x.bfloat16()
        found["bf16"] = lambda: brain(xb)
    if card_name() and len(x) > 16:  # torch._int_mm : plus de 16 lignes, les autres côtés multiples de 8
        a, b = _random_int8(*x.shape), _random_int8(*layer.weight.shape).T
        found["int8, produit nu"] = lambda: torch._int_mm(a, b)
    if card_capability() >= (8, 9) and len(x) > 16:
        x8, w8 = x.to(torch.float8_e4m3fn), layer.weight.detach().to(torch.float8_e4m3fn).T
        one = torch.ones((), device=x.device)
        found["fp8 E4M3, produit nu"] = lambda: torch._scaled_mm(x8, w8, one, one, out_dtype=torch.bfloat16)
    return found


def _those_that_run(found: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Ceux que cette machine sait exécuter ; les autres sont dits."""
    kept = {}
    for name, run in found.items():
        try:
            run()
            kept[name] = run
        except (RuntimeError, NotImplementedError) as error:
            note(f"« {name} » n'existe pas sur cette machine : {str(error).splitlines()[0][:100]}")
    return kept


def _random_int8(rows: int, columns: int) -> Tensor:
    return torch.randint(-127, 128, (rows, columns), dtype=torch.int8, device=device())
