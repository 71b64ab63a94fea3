"""Les sondes qui donnent un petit GPT-2 à qui en observe les couches, ou en remplace les poids.

Comme `probes_models`, dont elles emploient le modèle, elles ne contiennent aucune réponse.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from atelier.judging.data import NotData, name_of
from atelier.judging.probes_models import _changed, _model_of, _state


def gpt2_observe(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, input_ids, names)` : ce que rend cet appel, et ce qu'il laisse dans le modèle.

    training : le mode où le modèle est donné. unknown : un nom qu'aucun module ne porte ; un second appel le reçoit
    après les autres, et lève ce que lève un modèle à qui on le demande.
    """
    model: nn.Module = _model_of(inputs).train(inputs.get("training", False))
    before, ids, names = _state(model), inputs["input_ids"], inputs["names"]
    value = fn(model, ids, list(names))
    found = value.items() if isinstance(value, dict) else ()
    result = {"valeur": value, "gardent leur graphe": [n for n, x in found if getattr(x, "requires_grad", False)]}
    if "unknown" in inputs:
        try:
            fn(model, ids, [*names, inputs["unknown"]])
            result["nom inconnu"] = "aucune erreur"
        except (KeyError, AttributeError):
            result["nom inconnu"] = "KeyError ou AttributeError"
    result["crochets laissés dans le modèle"] = _hooks(model)
    result["modifié dans le modèle"] = _disturbed(model, before, inputs.get("training", False))
    return result


def _disturbed(model: nn.Module, before: dict[str, torch.Tensor], training: bool) -> list[str]:
    """Les poids qui ne sont plus ceux d'avant, et « mode » si un module n'est plus dans celui où on l'a donné."""
    modes = [] if all(m.training == training for m in model.modules()) else ["mode"]
    return _changed(model, before) + modes


def _hooks(model: nn.Module) -> int:
    """Les crochets que porte un modèle, et les `forward` que l'on y a remplacés."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds) + sum(
        "forward" in m.__dict__ for m in model.modules()
    )


def gpt2_importance(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, batches)` : ce que rend cet appel, et ce qu'il laisse dans le modèle.

    training : le mode où le modèle est donné.
    """
    model: nn.Module = _model_of(inputs).train(inputs.get("training", False))
    before = _state(model)
    value = fn(model, list(inputs["batches"]))
    found = value.items() if isinstance(value, dict) else ()
    return {
        "valeur": value,
        "gardent leur graphe": [name for name, x in found if getattr(x, "requires_grad", False)],
        "gardent un gradient": sorted(name for name, p in model.named_parameters() if p.grad is not None),
        "modifié dans le modèle": _disturbed(model, before, inputs.get("training", False)),
    }


def gpt2_rounded(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, round_weight)` rend une copie arrondie : ce que round_weight a reçu, ce qui a changé, et où.

    La doublure de round_weight n'arrondit pas : elle multiplie chaque ligne par un nombre qui dépend d'elle et du nom,
    si bien qu'un axe ou un nom pris pour un autre se voit dans les logits.
    """
    model = _model_of(inputs)
    before, ids = _state(model), inputs["input_ids"]
    seen: dict[str, list[int]] = {}

    def round_weight(name: str, w: torch.Tensor) -> torch.Tensor:
        seen[name] = list(w.shape)
        rows = torch.arange(len(w), dtype=w.dtype, device=w.device).reshape(-1, *[1] * (w.ndim - 1))
        return w * (0.5 + zlib.crc32(str(name).encode()) % 7 / 10 + rows / (2 * len(w)))

    made = fn(model, round_weight)
    if not isinstance(made, type(model)):
        raise NotData(f"{name_of(made)} ; on attend un {type(model).__name__}")
    own = {p.untyped_storage().data_ptr() for p in made.parameters()}
    shared = sorted(name for name, p in model.named_parameters() if p.untyped_storage().data_ptr() in own)
    result: dict[str, Any] = {
        "noms et formes reçus par round_weight": dict(sorted(seen.items())),
        "rend le modèle reçu": made is model,
        "partagé avec le modèle reçu": shared,
        "modifié dans le modèle reçu": _changed(model, before),
        "différent dans la copie": _changed(made, before),
        "la tête est la table des jetons": made.lm_head.weight is made.transformer.wte.weight,
    }
    with torch.no_grad():
        result["logits"] = made.eval()(ids).logits
    return result
