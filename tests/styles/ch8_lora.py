"""Réponses justes du chapitre 8, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

# --- low_rank -------------------------------------------------------------------------------------------------------


def _refuse_rank(rank):
    if rank <= 0:
        raise ValueError("rang")


def low_rank_difference(w, rank):
    _refuse_rank(rank)
    u, s, v = torch.svd(w)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:, :rank].T
    return best, (torch.norm(w - best) / torch.norm(w)).item()


def low_rank_sum_of_ones(w, rank):
    _refuse_rank(rank)
    u, s, vt = torch.linalg.svd(w)
    best = torch.zeros_like(w)
    for i in range(min(rank, len(s))):
        best += s[i] * torch.outer(u[:, i], vt[i])
    lost = sum(float(x) ** 2 for x in s[rank:])
    return best, (lost / sum(float(x) ** 2 for x in s)) ** 0.5


def low_rank_numpy(w, rank):
    _refuse_rank(rank)
    u, s, vt = np.linalg.svd(w.double().numpy(), full_matrices=False)
    s_kept = np.where(np.arange(len(s)) < rank, s, 0.0)
    best = (u * s_kept) @ vt
    return torch.tensor(best).to(w.dtype), float(np.sqrt(((s - s_kept) ** 2).sum() / (s**2).sum()))


def low_rank_projection(w, rank):
    """Projeter les lignes sur les vecteurs propres dominants de wᵀw."""
    _refuse_rank(rank)
    wide = w.double()
    _, vectors = torch.linalg.eigh(wide.T @ wide)
    kept = vectors.flip(1)[:, :rank]
    best = wide @ kept @ kept.T
    return best.to(w.dtype), float((wide - best).norm() / wide.norm())


# --- lora_num_params ------------------------------------------------------------------------------------------------


def count_loop(shapes, rank):
    _refuse_rank(rank)
    total = 0
    for shape in shapes:
        d, k = shape
        total += d * rank
        total += rank * k
    return total


def count_factored(shapes, rank):
    if not rank >= 1:
        raise ValueError("rang")
    return rank * sum(map(sum, shapes))


def count_tensors(shapes, rank):
    _refuse_rank(rank)
    with torch.device("meta"):
        return sum(torch.empty(d, rank).numel() + torch.empty(rank, k).numel() for d, k in shapes)


# --- lora_delta et merge_lora ---------------------------------------------------------------------------------------


def _same_rank(A, B):
    if A.size(0) != B.size(-1):
        raise ValueError("rangs")


def delta_einsum(A, B, alpha):
    _same_rank(A, B)
    return torch.einsum("dr,rk->dk", B, A) * alpha / len(A)


def delta_scaled_first(A, B, alpha):
    _same_rank(A, B)
    return (B * (alpha / B.shape[1])) @ A


def delta_outer(A, B, alpha):
    r = A.shape[0]
    if r != B.shape[1]:
        raise ValueError("rangs")
    total = sum(torch.outer(B[:, i], A[i]) for i in range(r))
    return alpha * total / r


def delta_float64(A, B, alpha):
    _same_rank(A, B)
    return (B.double() @ A.double() * alpha / A.shape[0]).to(A.dtype)


def merge_addmm(weight, A, B, alpha):
    return torch.addmm(weight, B, A, alpha=alpha / A.shape[0])


def merge_clone(weight, A, B, alpha):
    out = weight.clone()
    out += torch.matmul(B, A) * alpha / B.shape[-1]
    return out


def merge_delta(weight, A, B, alpha):
    return weight + delta_outer(A, B, alpha)


def merge_numpy(weight, A, B, alpha):
    w, a, b = (t.double().numpy() for t in (weight, A, B))
    return torch.tensor(w + alpha / len(a) * b.dot(a)).to(weight.dtype)


# --- LoRALinear -----------------------------------------------------------------------------------------------------


class LinearFunctional(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        if rank < 1 or rank > base.in_features or rank > base.out_features:
            raise ValueError("rang")
        self.linear = base
        for p in self.linear.parameters():
            p.requires_grad = False
        self.rank, self.alpha = rank, alpha
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.empty(base.out_features, rank))
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.zeros_(self.lora_B)

    def forward(self, x):
        low = F.linear(x, self.lora_A)
        return self.linear(x) + F.linear(low, self.lora_B) * (self.alpha / self.rank)


class LinearBuffers(nn.Module):
    """Les poids de la base gardés comme tampons."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        out_features, in_features = base.weight.shape
        if not (0 < rank <= min(out_features, in_features)):
            raise ValueError("rang")
        base.weight.requires_grad = False
        self.register_buffer("weight", base.weight.detach())
        self.register_buffer("bias", None if base.bias is None else base.bias.detach())
        self.register_parameter("lora_A", nn.Parameter(torch.randn((rank, in_features))))
        self.register_parameter("lora_B", nn.Parameter(torch.zeros((out_features, rank))))
        self.s = alpha / rank

    def forward(self, x):
        return (
            F.linear(x, self.weight, self.bias) + torch.einsum("...i,ri,or->...o", x, self.lora_A, self.lora_B) * self.s
        )


class LinearHandmade(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        if rank < 1:
            raise ValueError("rang trop petit")
        if rank > min(base.weight.shape):
            raise ValueError("rang trop grand")
        self.base = base
        self.base.requires_grad_(False)
        self.alpha = alpha
        self.lora_A = nn.Parameter(torch.normal(0.0, 1 / rank, size=(rank, base.weight.shape[1])))
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight[:, :1]).repeat(1, rank))

    def forward(self, x):
        scaled = self.alpha * x / len(self.lora_A)
        return torch.matmul(torch.matmul(scaled, self.lora_A.mT), self.lora_B.mT) + self.base(x)


# --- inject_lora ----------------------------------------------------------------------------------------------------


class _Wrapped(nn.Module):
    def __init__(self, conv, rank, alpha):
        super().__init__()
        n_in, n_out = conv.weight.shape
        self.conv, self.scale = conv, alpha / rank
        self.lora_A = nn.Parameter(0.02 * torch.randn(rank, n_in))
        self.lora_B = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x):
        return self.conv(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_by_name(model, rank, alpha, target="c_attn"):
    _refuse_rank(rank)
    for p in model.parameters():
        p.requires_grad = False
    names = [n for n, m in model.named_modules() if isinstance(m, Conv1D) and n.split(".")[-1] == target]
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, child, _Wrapped(getattr(owner, child), rank, alpha))
    return model


def inject_by_blocks(model, rank, alpha, target="c_attn"):
    _refuse_rank(rank)
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            if hasattr(owner, target):
                setattr(owner, target, _Wrapped(getattr(owner, target), rank, alpha))
    return model


def inject_through_linear(model, rank, alpha, target="c_attn"):
    """Chaque Conv1D devient un nn.Linear transposé, puis une couche LoRA ordinaire."""
    _refuse_rank(rank)
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            conv = owner._modules.get(target)
            if conv is None:
                continue
            n_in, n_out = conv.weight.shape
            linear = nn.Linear(n_in, n_out)
            linear.weight.data = conv.weight.data.T.contiguous()
            linear.bias.data = conv.bias.data
            owner._modules[target] = LinearFunctional(linear, rank, alpha)
    return model


def inject_hooks(model, rank, alpha, target="c_attn"):
    """Rien n'est remplacé : deux paramètres ajoutés au Conv1D, et un crochet sur sa sortie."""
    if rank < 1:
        raise ValueError("rang")
    model.requires_grad_(False)

    def add(module, inputs, output):
        return output + (inputs[0] @ module.lora_A.T @ module.lora_B.T) * alpha / rank

    for name, module in model.named_modules():
        if name.endswith("." + target):
            n_in, n_out = module.weight.shape
            module.lora_A = nn.Parameter(torch.randn(rank, n_in))
            module.lora_B = nn.Parameter(torch.zeros(n_out, rank))
            module.register_forward_hook(add)
    return model


def inject_peft_layers(model, rank, alpha, target="c_attn"):
    """Les couches de peft, posées une à une dans le modèle reçu."""
    from peft.tuners.lora import Linear as PeftLinear
    from peft.tuners.lora import LoraConfig

    _refuse_rank(rank)
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name == target and isinstance(child, Conv1D):
                config = LoraConfig(r=rank, lora_alpha=alpha, fan_in_fan_out=True)
                wrapped = PeftLinear(
                    child, "default", config=config, r=rank, lora_alpha=alpha, is_target_conv_1d_layer=True
                )
                setattr(parent, name, wrapped)
    return model


# --- nf4_quantize ---------------------------------------------------------------------------------------------------

_BNB = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def _levels():
    """Ce que la cellule de préparation donne à l'étudiant (NF4_LEVELS)."""
    from grader.chapters import load_chapter

    return load_chapter("ch8_lora").namespace["NF4_LEVELS"]


NF4_LEVELS = _levels()


def _refuse_blocks(w, block_size):
    if block_size < 1 or w.numel() % block_size != 0:
        raise ValueError("blocs")


def nf4_nearest(w, block_size=64):
    _refuse_blocks(w, block_size)
    flat = w.flatten().reshape(-1, block_size)
    absmax = flat.abs().max(dim=1).values
    safe = absmax.clone()
    safe[safe == 0] = 1
    distance = (flat / safe[:, None])[..., None] - NF4_LEVELS.to(w.device)
    return distance.abs().argmin(-1).flatten().to(torch.uint8), absmax


def nf4_loops(w, block_size=64):
    if block_size <= 0 or w.numel() % block_size:
        raise ValueError("blocs")
    values, levels, codes, absmax = w.double().flatten().tolist(), NF4_LEVELS.double().tolist(), [], []
    for start in range(0, len(values), block_size):
        block = values[start : start + block_size]
        peak = max(abs(v) for v in block)
        absmax.append(peak)
        for v in block:
            x = v / peak if peak else 0.0
            codes.append(min(range(16), key=lambda i, x=x: abs(x - levels[i])))
    return torch.tensor(codes, dtype=torch.uint8), torch.tensor(absmax, dtype=w.dtype)


def nf4_numpy(w, block_size=64):
    _refuse_blocks(w, block_size)
    blocks = w.contiguous().float().numpy().astype(np.float64).reshape(-1, block_size)
    if w.dtype == torch.float64:
        blocks = w.contiguous().numpy().reshape(-1, block_size)
    peak = np.abs(blocks).max(axis=1)
    x = np.divide(blocks, peak[:, None], out=np.zeros_like(blocks), where=peak[:, None] > 0)
    levels = NF4_LEVELS.double().numpy()
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, x, side="left")
    return torch.tensor(codes.ravel(), dtype=torch.uint8), torch.tensor(peak).to(w.dtype)


def nf4_thresholds(w, block_size=64):
    """Le nombre de frontières que la valeur dépasse."""
    _refuse_blocks(w, block_size)
    blocks = w.reshape(w.numel() // block_size, block_size)
    absmax = blocks.abs().amax(1)
    x = torch.nan_to_num(blocks.double() / absmax.double()[:, None], nan=0.0)
    middles = ((NF4_LEVELS[1:].double() + NF4_LEVELS[:-1].double()) / 2).to(w.device)
    return (x[..., None] > middles).sum(-1).reshape(-1).type(torch.uint8), absmax


STYLES = {
    "low_rank": [low_rank_difference, low_rank_sum_of_ones, low_rank_numpy, low_rank_projection],
    "lora_num_params": [count_loop, count_factored, count_tensors],
    "lora_delta": [delta_einsum, delta_scaled_first, delta_outer, delta_float64],
    "LoRALinear": [LinearFunctional, LinearBuffers, LinearHandmade],
    "inject_lora": [inject_by_name, inject_by_blocks, inject_through_linear, inject_hooks, inject_peft_layers],
    "merge_lora": [merge_addmm, merge_clone, merge_delta, merge_numpy],
    "nf4_quantize": [nf4_nearest, nf4_loops, nf4_numpy, nf4_thresholds],
}
