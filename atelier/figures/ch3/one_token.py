"""Chapitre 3 : ce que met un jeton à traverser des couches linéaires, par chaque noyau de cette machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atelier.display import note
from atelier.hardware import card_capability, device

Run = Callable[[], Any]
Make = Callable[[Sequence[nn.Linear]], Run]
BLOCK = 64
"""Poids qui partagent une échelle, en int4."""


def token_kernels() -> dict[str, Make]:
    """Noyau → de quoi préparer un appel : des couches données, on reçoit la fonction à chronométrer, pour un jeton.

    Le premier est fp32. Un noyau que cette machine n'a pas manque, et c'est dit.
    """
    known: dict[str, Make] = {"fp32": _in_type(torch.float32)}
    if device().type == "cpu":
        known |= {"bf16": _in_type(torch.bfloat16), "int4, torch": _int4_torch}
        known |= {"int8, onnxruntime": _int8_onnxruntime, "int4, onnxruntime": _int4_onnxruntime}
    else:
        known["fp16"] = _in_type(torch.float16)
        if card_capability() >= (8, 0):
            known["bf16"] = _in_type(torch.bfloat16)
    small = [nn.Linear(4 * BLOCK, 4 * BLOCK, device=device())]
    found = {}
    for name, make in known.items():
        try:
            make(small)()
            found[name] = make
        except (RuntimeError, NotImplementedError, ImportError, AttributeError) as error:
            note(f"« {name} » n'existe pas sur cette machine : {str(error).splitlines()[0][:100]}")
    return found


def _tokens(layers: Sequence[nn.Linear], dtype: torch.dtype) -> dict[int, Tensor]:
    """Un jeton au hasard pour chaque largeur d'entrée."""
    widths = {layer.in_features for layer in layers}
    return {width: torch.randn(1, width, device=device()).to(dtype) for width in widths}


def _each(
    layers: Sequence[nn.Linear], prepare: Callable[[nn.Linear], Callable[[Tensor], Any]], dtype: torch.dtype
) -> Run:
    """Un appel de chaque couche, à la suite ; une couche répétée n'est préparée qu'une fois."""
    ready = {layer: prepare(layer) for layer in layers}
    tokens = _tokens(layers, dtype)
    calls = [(ready[layer], tokens[layer.in_features]) for layer in layers]
    return lambda: [call(token) for call, token in calls]


def _in_type(dtype: torch.dtype) -> Make:
    return lambda layers: _each(layers, lambda layer: copy.deepcopy(layer).to(dtype), dtype)


def int4_codes(w: Tensor) -> tuple[Tensor, Tensor]:
    """Codes de 0 à 15 (sortie, entrée), le zéro étant à 8, et échelles (sortie, entrée / BLOCK) de w."""
    groups = w.detach().reshape(len(w), -1, BLOCK)
    scales = groups.abs().amax(-1, keepdim=True) / 7
    codes = (groups / scales).round().clamp(-8, 7) + 8
    return codes.reshape(w.shape).int(), scales[..., 0]


def _int4_torch(layers: Sequence[nn.Linear]) -> Run:
    def prepare(layer: nn.Linear) -> Callable[[Tensor], Any]:
        codes, scales = int4_codes(layer.weight)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        both = torch.stack([scales, torch.zeros_like(scales)], -1).transpose(0, 1).contiguous().bfloat16()
        bias = layer.bias.detach().bfloat16()
        return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, BLOCK, both) + bias

    return _each(layers, prepare, torch.bfloat16)


# --- onnxruntime ------------------------------------------------------------------------------------------------------


def _int8_onnxruntime(layers: Sequence[nn.Linear]) -> Run:
    def operator(layer: nn.Linear) -> tuple[dict[str, Any], list[Any]]:
        w = layer.weight.detach()
        scale = w.abs().max() / 63  # sept bits : sans VNNI, la somme de deux produits de huit bits déborderait de seize
        codes = (w / scale).round().to(torch.int8).T.contiguous()
        return {"op_type": "DynamicQuantizeMatMul"}, [codes.numpy(), scale.numpy()]

    return _session(layers, operator)


def _int4_onnxruntime(layers: Sequence[nn.Linear]) -> Run:
    def operator(layer: nn.Linear) -> tuple[dict[str, Any], list[Any]]:
        codes, scales = int4_codes(layer.weight)
        pairs = codes.reshape(layer.out_features, -1, BLOCK // 2, 2).to(torch.uint8)
        packed = pairs[..., 0] | pairs[..., 1] << 4
        sizes = {"K": layer.in_features, "N": layer.out_features, "bits": 4, "block_size": BLOCK}
        return {"op_type": "MatMulNBits", "accuracy_level": 4, **sizes}, [packed.numpy(), scales.flatten().numpy()]

    return _session(layers, operator)


def _session(
    layers: Sequence[nn.Linear], operator: Callable[[nn.Linear], tuple[dict[str, Any], list[Any]]]
) -> Callable[[], Any]:
    """Les couches distinctes dans un modèle ONNX, appelé autant de fois qu'elles reviennent.

    operator : une couche → les attributs de son opérateur, et ses constantes (NumPy).
    """
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    distinct = list(dict.fromkeys(layers))
    tokens = _tokens(distinct, torch.float32)
    nodes, constants, outputs = [], [], []
    for i, layer in enumerate(distinct):
        attributes, values = operator(layer)
        names = [f"c{i}_{k}" for k in range(len(values))]
        constants += [numpy_helper.from_array(v, name) for v, name in zip(values, names, strict=True)]
        inputs = [f"x{layer.in_features}", *names]
        nodes.append(helper.make_node(inputs=inputs, outputs=[f"y{i}"], domain="com.microsoft", **attributes))
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [1, layer.out_features]))
    entries = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, [1, n]) for n in tokens]
    graph = helper.make_graph(nodes, "jeton", entries, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {f"x{n}": token.numpy() for n, token in tokens.items()}
    return lambda: [session.run(None, given) for _ in range(len(layers) // len(distinct))]
