"""L'apprentissage lui-même : le réseau, écrit à la main, ses lots, son optimiseur."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colibri.recipe import Recipe


class Batches:
    """Fenêtres d'apprentissage, dans un ordre qui ne dépend que de la graine.

    À chaque époque, les documents sont mélangés, mis bout à bout, coupés en
    fenêtres, et les fenêtres mélangées : le pas et la graine suffisent pour
    retrouver un lot, une reprise n'a donc aucun état aléatoire à garder.
    """

    def __init__(self, work: Path, recipe: Recipe) -> None:
        self.tokens = np.load(work / "tokens.npy")
        self.starts = np.load(work / "starts.npy")
        self.length = recipe.n_positions
        self.seed = recipe.seed
        self.per_epoch = (len(self.tokens) - 1) // self.length
        self.epoch = -1
        self.stream = self.tokens
        self.order = np.arange(self.per_epoch)

    def _begin(self, epoch: int) -> None:
        rng = np.random.default_rng((self.seed, epoch))
        shuffled = rng.permutation(len(self.starts) - 1)
        self.stream = np.concatenate([self.tokens[self.starts[i] : self.starts[i + 1]] for i in shuffled])
        self.order = rng.permutation(self.per_epoch)
        self.epoch = epoch

    def window(self, index: int) -> np.ndarray:
        """La fenêtre numéro `index` depuis le début de l'entraînement (longueur + 1 jetons)."""
        epoch, position = divmod(index, self.per_epoch)
        if epoch != self.epoch:
            self._begin(epoch)
        start = int(self.order[position]) * self.length
        return self.stream[start : start + self.length + 1]

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """`count` fenêtres à partir de `first` : entrées et cibles."""
        rows = np.stack([self.window(first + i) for i in range(count)]).astype(np.int64)
        data = torch.from_numpy(rows)
        return data[:, :-1].contiguous(), data[:, 1:].contiguous()


def parameter_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Noms et formes de GPT-2 dans `transformers` (les Conv1D sont entrée × sortie)."""
    d = recipe.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (recipe.n_vocab, d),
        "transformer.wpe.weight": (recipe.n_positions, d),
    }
    for layer in range(recipe.n_layer):
        prefix = f"transformer.h.{layer}."
        shapes |= {
            prefix + "ln_1.weight": (d,),
            prefix + "ln_1.bias": (d,),
            prefix + "attn.c_attn.weight": (d, 3 * d),
            prefix + "attn.c_attn.bias": (3 * d,),
            prefix + "attn.c_proj.weight": (d, d),
            prefix + "attn.c_proj.bias": (d,),
            prefix + "ln_2.weight": (d,),
            prefix + "ln_2.bias": (d,),
            prefix + "mlp.c_fc.weight": (d, 4 * d),
            prefix + "mlp.c_fc.bias": (4 * d,),
            prefix + "mlp.c_proj.weight": (4 * d, d),
            prefix + "mlp.c_proj.bias": (d,),
        }
    return shapes | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}


def views(flat: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """Découpe un vecteur plat en paramètres nommés (sans copie)."""
    out: dict[str, Tensor] = {}
    offset = 0
    for name, shape in parameter_shapes(recipe).items():
        size = math.prod(shape)
        out[name] = flat[offset : offset + size].view(shape)
        offset += size
    return out


def initialise(params: dict[str, Tensor], recipe: Recipe) -> None:
    """Initialisation de GPT-2, projections de sortie réduites avec la profondeur."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for name, tensor in params.items():
        if name.endswith("bias"):
            tensor.zero_()
        elif ".ln_" in name:
            tensor.fill_(1.0)
        else:
            std = 0.02 / math.sqrt(2 * recipe.n_layer) if "c_proj" in name else 0.02
            tensor.normal_(0.0, std, generator=generator)


def _linear(x: Tensor, params: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = params[name + ".weight"], params[name + ".bias"]
    return x.bfloat16() @ weight.bfloat16() + bias.bfloat16()


def _norm(x: Tensor, params: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[name + ".weight"], params[name + ".bias"], 1e-5)


def _attention(q: Tensor, k: Tensor, v: Tensor, n_blocks: int = 2) -> Tensor:
    """Attention causale par blocs de requêtes : les clés futures d'un bloc ne sont pas lues."""
    length, scale = q.shape[-2], 1.0 / math.sqrt(q.shape[-1])
    size = length // n_blocks
    mask = torch.full((size, size), float("-inf")).triu(1)
    parts = []
    for start in range(0, length, size):
        end = start + size
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)).float() * scale
        weights = (scores + F.pad(mask, (start, 0))).softmax(-1).to(v.dtype)
        parts.append(weights @ v[:, :, :end])
    return torch.cat(parts, 2)


def loss_function(params: dict[str, Tensor], inputs: Tensor, targets: Tensor, n_layer: int, n_head: int) -> Tensor:
    """Entropie croisée moyenne (en nats) de GPT-2, produits de matrices en bfloat16."""
    batch, length = inputs.shape
    wte = params["transformer.wte.weight"]
    d = wte.shape[1]
    x = wte[inputs] + params["transformer.wpe.weight"][:length]
    for layer in range(n_layer):
        prefix = f"transformer.h.{layer}."
        qkv = _linear(_norm(x, params, prefix + "ln_1"), params, prefix + "attn.c_attn")
        q, k, v = qkv.view(batch, length, 3, n_head, d // n_head).permute(2, 0, 3, 1, 4)
        mixed = _attention(q, k, v).transpose(1, 2).reshape(batch, length, d)
        x = x + _linear(mixed, params, prefix + "attn.c_proj")
        hidden = _linear(_norm(x, params, prefix + "ln_2"), params, prefix + "mlp.c_fc")
        hidden = F.gelu(hidden, approximate="tanh")
        x = x + _linear(hidden, params, prefix + "mlp.c_proj")
    x = _norm(x, params, "transformer.ln_f").view(-1, d)
    logits = (x.bfloat16() @ wte.bfloat16().T).float()
    picked = logits.gather(1, targets.view(-1, 1)).squeeze(1)
    return (logits.logsumexp(-1) - picked).mean()


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Itération de Newton-Schulz quintique de Muon, sur un lot de matrices larges."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Optimizer:
    """Muon pour les matrices des blocs, AdamW pour le reste, partagés entre les processus.

    Le processus `rank` met à jour une matrice sur `workers` ; le premier s'occupe
    aussi de ce qui suit AdamW (plongements, biais, normalisations).
    """

    def __init__(self, params: Tensor, gradient: Tensor, state: Tensor, recipe: Recipe, rank: int) -> None:
        self.recipe = recipe
        self.params = views(params, recipe)
        self.gradients = views(gradient, recipe)
        self.moments = [views(row, recipe) for row in state]
        names = parameter_shapes(recipe)
        blocks = [n for n, shape in names.items() if len(shape) == 2 and ".h." in n]
        self.groups: list[list[tuple[str, int, bool]]] = [[], []]
        for name in blocks:
            rows, columns = names[name]
            if name.endswith("c_attn.weight"):
                self.groups[0] += [(name, part, False) for part in range(3)]
            elif rows == columns:
                self.groups[0].append((name, 0, False))
            else:
                self.groups[1].append((name, 0, rows > columns))
        self.groups = [group[rank :: recipe.workers] for group in self.groups]
        self.adam_names = [n for n in names if n not in blocks] if rank == 0 else []

    def _matrix(self, tensors: dict[str, Tensor], key: tuple[str, int, bool]) -> Tensor:
        name, part, tall = key
        tensor = tensors[name]
        if name.endswith("c_attn.weight"):
            d = tensor.shape[0]
            return tensor[:, part * d : (part + 1) * d]
        return tensor.T if tall else tensor

    def step(self, step: int, scale: float) -> None:
        """Une mise à jour ; `scale` est le facteur du plan d'apprentissage."""
        r = self.recipe
        lr = r.lr_muon * scale
        for group in self.groups:
            updates = []
            for key in group:
                gradient = self._matrix(self.gradients, key)
                moment = self._matrix(self.moments[0], key)
                moment.lerp_(gradient, 1 - r.momentum)
                updates.append(gradient.lerp(moment, r.momentum))
            result = orthogonalise(torch.stack(updates))
            # Facteur de Moonlight : même amplitude moyenne qu'un pas d'AdamW.
            factor = 0.2 * math.sqrt(max(result.shape[-2:]))
            for key, update in zip(group, result, strict=True):
                weight = self._matrix(self.params, key)
                weight.mul_(1 - lr * r.weight_decay).sub_(update, alpha=lr * factor)
        lr = r.lr_adam * scale
        for name in self.adam_names:
            gradient, weight = self.gradients[name], self.params[name]
            first, second = self.moments[0][name], self.moments[1][name]
            first.lerp_(gradient, 1 - r.beta1)
            second.mul_(r.beta2).addcmul_(gradient, gradient, value=1 - r.beta2)
            denominator = (second / (1 - r.beta2**step)).sqrt_().add_(1e-8)
            weight.addcdiv_(first, denominator, value=-lr / (1 - r.beta1**step))


def schedule(step: int, progress: float, recipe: Recipe) -> float:
    """Montée linéaire, plateau, puis descente linéaire jusqu'à 0 en fin de parcours."""
    warmup = min(1.0, step / recipe.warmup_steps)
    decay = min(1.0, (1.0 - progress) / recipe.decay_share)
    return max(0.0, min(warmup, decay))
