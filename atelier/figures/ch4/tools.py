"""Ce que le chapitre 4 emploie sans l'enseigner : un enseignant qui se souvient, des tranches, des codes serrés."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from atelier.figures.common.files import file_bytes, pack_codes, plain_tensors, unpack_codes
from atelier.figures.common.layers import linear_layers
from atelier.hardware import beside, device, home
from atelier.models import load_tokenizer, with_causal_loss
from atelier.perplexity import encode_documents, extract


def unread_windows(tokens: int) -> Tensor:
    """Des fenêtres (n, 256) de l'extrait de validation, que ni Colibri ni ses élèves n'ont lu, sur `device()`."""
    ids = encode_documents(extract("a_validation"), load_tokenizer("colibri"), tokens)
    return ids[: len(ids) // 256 * 256].reshape(-1, 256).to(device())


# --- Des enseignants --------------------------------------------------------------------------------------------------


class Remembering(nn.Module):
    """Un modèle qui se souvient des lots qu'il a lus, et n'en relit aucun ; ses réponses n'ont pas de gradient.

    Deux élèves de même graine lisent les mêmes fenêtres : le second ne paie plus l'enseignant.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.config: Any = model.config
        self.seen: dict[bytes, Tensor] = {}

    def forward(self, input_ids: Tensor, **_options: Any) -> Any:
        key = input_ids.cpu().numpy().tobytes()
        if key not in self.seen:
            with torch.no_grad():
                self.seen[key] = self.model(input_ids, use_cache=False).logits
        return SimpleNamespace(logits=self.seen[key])


class Ensemble(nn.Module):
    """Plusieurs modèles consultés ensemble ; se présente comme un modèle de langue ordinaire.

    combine : logits (M, B, T, V) → probabilités (B, T, V). Ses « logits » sont les logarithmes de ces probabilités.
    """

    def __init__(self, members: Sequence[nn.Module], combine: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.members, self.combine = nn.ModuleList(members), combine
        self.config: Any = members[0].config

    def forward(self, input_ids: Tensor, **_options: Any) -> Any:
        logits = torch.stack([m(input_ids, use_cache=False).logits for m in self.members])
        return SimpleNamespace(logits=self.combine(logits).log())


def fresh_student(teacher: GPT2LMHeadModel, n_layer: int, seed: int) -> GPT2LMHeadModel:
    """Un GPT-2 de la largeur de l'enseignant, à n_layer blocs, aux poids tirés de `seed`."""
    config = GPT2Config(**teacher.config.to_dict() | {"n_layer": n_layer})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_causal_loss(GPT2LMHeadModel(config)).eval().to(home(teacher))


# --- Calibration ------------------------------------------------------------------------------------------------------


def confidence_bins(confidence: Tensor, right: Tensor, n_bins: int = 10) -> list[tuple[float, float, float]]:
    """(confiance moyenne, justesse, part des jetons) de chaque tranche de confiance qui contient des jetons.

    confidence, right : (n,), la probabilité du premier choix, et 1 si c'était le bon, 0 sinon.
    """
    slot = (confidence * n_bins).long().clamp(max=n_bins - 1)
    return [
        (confidence[slot == k].mean().item(), right[slot == k].mean().item(), (slot == k).float().mean().item())
        for k in range(n_bins)
        if (slot == k).any()
    ]


# --- Peu de bits ------------------------------------------------------------------------------------------------------


def chosen_step(w: Tensor, bits: int) -> Tensor:
    """Le pas (1, sortie) de chaque sortie d'un poids (entrée, sortie) : celui de moindre erreur (chapitre 3)."""
    top, widest = 2 ** (bits - 1), w.abs().amax(0, keepdim=True)
    steps = [widest.clamp(min=1e-12) * ratio / top for ratio in torch.linspace(0.3, 1.0, 29).tolist()]
    errors = [((w / s).round().clamp(-top, top - 1) * s - w).square().sum(0, keepdim=True) for s in steps]
    best = torch.stack(errors).argmin(0, keepdim=True)
    return torch.stack(steps).gather(0, best)[0]


def low_bit_file(model: GPT2LMHeadModel, bits: int) -> tuple[GPT2LMHeadModel, int]:
    """Un modèle qui arrondit ses poids à chaque passage → celui que rend son fichier, et les octets de ce fichier.

    Le fichier : codes serrés bit à bit et pas en FP16 ; le reste en FP16. Le modèle rendu est un GPT-2 ordinaire, les
    arrondis du fichier compris.
    """
    rounding: dict[str, Any] = dict(linear_layers(model))
    steps = {name: layer.parametrizations.weight[0].step.half() for name, layer in rounding.items()}
    plain: Any = GPT2LMHeadModel(copy.deepcopy(model.config)).eval().to(home(model))
    with torch.no_grad():
        for name, p in plain.named_parameters():
            path, _, leaf = name.rpartition(".")
            p.copy_(getattr(model.get_submodule(path), leaf))
    layers: dict[str, Any] = dict(linear_layers(plain))
    linear = {f"transformer.h.{name}.weight" for name in steps}
    stored = {k: p.detach().to("cpu", torch.float16) for k, p in plain.named_parameters() if k not in linear}
    with torch.no_grad():
        for name, p in plain.named_parameters():
            if name in stored:
                p.copy_(stored[name])
        for name, layer in layers.items():
            codes = torch.round(layer.weight / steps[name].float())
            stored[f"{name}.q"], stored[f"{name}.s"] = pack_codes(codes, bits), steps[name].cpu()
            layer.weight.copy_(
                unpack_codes(stored[f"{name}.q"], bits, codes.shape).to(codes.device) * steps[name].float()
            )
    return plain, file_bytes({k: v.contiguous() for k, v in stored.items()})


def half_file(model: GPT2LMHeadModel) -> tuple[GPT2LMHeadModel, int]:
    """Le modèle relu d'un fichier FP16, et les octets de ce fichier."""
    stored = plain_tensors(model, torch.float16)
    again = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in again.named_parameters():
            p.copy_(stored[name])
    return again, file_bytes(stored)


@torch.no_grad()
def continuation(model: GPT2LMHeadModel, text: str, n_new: int, seed: int = 0) -> str:
    """Une suite de `text`, chaque jeton tiré parmi les vingt plus probables ; les tirages sont ceux de `seed`."""
    tokenizer, generator = load_tokenizer("colibri"), torch.Generator().manual_seed(seed)
    written, cache = [beside(model, tokenizer(text, return_tensors="pt")["input_ids"])], None
    for _ in range(n_new):
        logits, cache = model(written[-1], cache, use_cache=True)[:2]
        best = logits[:, -1].float().cpu().topk(20)
        chosen = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
        written.append(best.indices.gather(-1, chosen).to(written[0].device))
    new_ids = torch.cat(written[1:], dim=1)[0]
    return " ".join(str(tokenizer.decode(new_ids, skip_special_tokens=True)).split())
