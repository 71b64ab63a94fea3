"""Réponses justes du chapitre 7, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import torch
from torch import nn

# --- Adapter --------------------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """GELU par tanh, remplissages écrits à la main."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.act = nn.GELU(approximate="tanh")
        self.up = nn.Linear(bottleneck, d_model)
        with torch.no_grad():
            self.up.weight.fill_(0.0)
            self.up.bias.fill_(0.0)

    def forward(self, x):
        return self.up(self.act(self.down(x))) + x


class AdapterSmallStart(nn.Module):
    """Départ de l'article pour la descente (petite gaussienne, biais nul) ; GELU écrite avec erf."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.up = nn.Linear(bottleneck, d_model)
        self.down = nn.Linear(d_model, bottleneck)
        nn.init.trunc_normal_(self.down.weight, std=1e-2)
        nn.init.zeros_(self.down.bias)
        for p in self.up.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        h = self.down(x)
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        return torch.add(x, self.up(h))


class AdapterMatmul(nn.Module):
    """Les produits écrits à la main ; une image nulle obtenue en multipliant le tirage par zéro."""

    def __init__(self, d_model, bottleneck):
        nn.Module.__init__(self)
        self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
        self.up.weight.data *= 0
        self.up.bias.data = torch.zeros(d_model)

    def forward(self, x):
        low = x @ self.down.weight.T + self.down.bias
        cubic = math.sqrt(2 / math.pi) * (low + 0.044715 * low**3)
        return x + (0.5 * low * (1 + torch.tanh(cubic))) @ self.up.weight.mT + self.up.bias


class AdapterWide(nn.Module):
    """Une copie de l'entrée corrigée sur place, et un constructeur qui délègue."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.up = self._silent(nn.Linear(bottleneck, d_model))

    @staticmethod
    def _silent(layer):
        layer.load_state_dict({k: torch.zeros_like(v) for k, v in layer.state_dict().items()})
        return layer

    def forward(self, x):
        out = x.clone()
        out += self.up(nn.functional.gelu(self.down(x), approximate="none"))
        return out


# --- adapter_num_params ---------------------------------------------------------------------------------------------


def _refuse(sizes, counts):
    if any(s < 1 for s in sizes) or any(c < 0 for c in counts):
        raise ValueError("tailles")


def params_formula(d_model, bottleneck, n_layer, per_layer=2):
    _refuse((d_model, bottleneck), (n_layer, per_layer))
    return n_layer * per_layer * (2 * bottleneck * d_model + d_model + bottleneck)


def params_module(d_model, bottleneck, n_layer, per_layer=2):
    _refuse((d_model, bottleneck), (n_layer, per_layer))
    with torch.device("meta"):
        one = Adapter(d_model, bottleneck)
    return sum(p.numel() for p in one.parameters()) * n_layer * per_layer


def params_loops(d_model, bottleneck, n_layer, per_layer=2):
    _refuse((d_model, bottleneck), (n_layer, per_layer))
    total = 0
    for _ in range(n_layer):
        for _ in range(per_layer):
            for shape in ((bottleneck, d_model), (bottleneck,), (d_model, bottleneck), (d_model,)):
                total += math.prod(shape)
    return total


def params_numpy(d_model, bottleneck, n_layer, per_layer=2):
    _refuse((d_model, bottleneck), (n_layer, per_layer))
    matrices = np.int64(d_model) * np.int64(bottleneck) * 2
    return int((matrices + d_model + bottleneck) * per_layer * n_layer)


# --- insert_adapters ------------------------------------------------------------------------------------------------


def insert_hooks(model, bottleneck):
    """Des crochets ; les modules sont enregistrés dans le modèle."""
    for p in model.parameters():
        p.requires_grad = False
    model.adapters = nn.ModuleList()

    def hook(layer):
        adapter = Adapter(model.config.n_embd, bottleneck)
        model.adapters.append(adapter)
        layer.register_forward_hook(lambda _m, _x, out: adapter(out))

    for block in model.transformer.h:
        hook(block.mlp)
        hook(block.attn.c_proj)
    return model


class Wrapped(nn.Module):
    def __init__(self, inner, d_model, bottleneck):
        super().__init__()
        self.inner = inner
        self.adapter = Adapter(d_model, bottleneck)

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        if isinstance(out, tuple):
            return (self.adapter(out[0]), *out[1:])
        return self.adapter(out)


def insert_wrapped(model, bottleneck):
    """Toute l'attention et tout le MLP, chacun dans une enveloppe."""
    model.requires_grad_(False)
    d = model.config.hidden_size
    for i in range(len(model.transformer.h)):
        model.transformer.h[i].attn = Wrapped(model.transformer.h[i].attn, d, bottleneck)
        model.transformer.h[i].mlp = Wrapped(model.transformer.h[i].mlp, d, bottleneck)
    return model


def insert_projections(model, bottleneck):
    """Les deux c_proj de chaque bloc, et le gel à la fin, par le nom."""
    d = model.transformer.wte.weight.shape[1]
    new = set()
    for block in model.transformer.h:
        for parent in (block.attn, block.mlp):
            adapter = Adapter(d, bottleneck)
            new.update(id(p) for p in adapter.parameters())
            parent.c_proj = nn.Sequential(parent.c_proj, adapter)
    for p in model.parameters():
        p.requires_grad_(id(p) in new)
    return model


def insert_named(model, bottleneck):
    """Parcours des modules par leur nom, et remplacement de la méthode forward."""
    model.requires_grad_(False)
    targets = [m for name, m in list(model.named_modules()) if name.endswith(("attn.c_proj", "mlp.c_proj"))]
    for layer in targets:
        adapter = Adapter(model.config.n_embd, bottleneck)
        layer.adapter = adapter
        plain = layer.forward
        layer.forward = lambda x, plain=plain, adapter=adapter: adapter(plain(x))
    return model


# --- adapter_overhead -----------------------------------------------------------------------------------------------


def overhead_closed(d_model, bottleneck, n_ctx, per_layer=2):
    _refuse((d_model, bottleneck, n_ctx), (per_layer,))
    return per_layer * bottleneck / (6 * d_model + n_ctx)


def overhead_whole_window(d_model, bottleneck, n_ctx, per_layer=2):
    """Les deux comptes pour toute la fenêtre, matrice par matrice."""
    _refuse((d_model, bottleneck, n_ctx), (per_layer,))
    d, t, m = d_model, n_ctx, bottleneck
    linear = [(t, d, 3 * d), (t, d, d), (t, d, 4 * d), (t, 4 * d, d)]
    scores = [(t, d, t), (t, t, d)]
    block = sum(2 * math.prod(p) for p in linear + scores)
    extra = per_layer * sum(2 * math.prod(p) for p in ((t, d, m), (t, m, d)))
    return extra / block


def overhead_macs(d_model, bottleneck, n_ctx, per_layer=2):
    _refuse((d_model, bottleneck, n_ctx), (per_layer,))
    return float(Fraction(2 * d_model * bottleneck * per_layer, 12 * d_model**2 + 2 * n_ctx * d_model))


def overhead_tensor(d_model, bottleneck, n_ctx, per_layer=2):
    _refuse((d_model, bottleneck, n_ctx), (per_layer,))
    d = torch.tensor(float(d_model), dtype=torch.float64)
    return (4 * d * bottleneck * per_layer) / (24 * d**2 + 4 * n_ctx * d)


# --- optimizer_state_bytes ------------------------------------------------------------------------------------------


def state_loop(model, bytes_per_value=4):
    total = 0
    for _, p in model.named_parameters():
        if p.requires_grad:
            total += p.nelement() * bytes_per_value
    return total * 2


def state_measured(model, bytes_per_value=4):
    """Un vrai pas d'Adam, sur une copie."""
    trial = copy.deepcopy(model)
    trained = [p for p in trial.parameters() if p.requires_grad]
    if not trained:
        return 0
    optimizer = torch.optim.Adam(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    values = [v for s in optimizer.state.values() for k, v in s.items() if k != "step"]
    return sum(v.numel() for v in values) * bytes_per_value


def state_unique(model, bytes_per_value=4):
    """Tous les noms, puis un seul par tenseur."""
    everything = {id(p): p for p in model.state_dict(keep_vars=True).values() if p.requires_grad}
    return bytes_per_value * sum(2 * math.prod(p.shape) for p in everything.values())


# --- peft_training_flops --------------------------------------------------------------------------------------------


def flops_formula(n_frozen, n_trainable, n_tokens):
    _refuse((), (n_frozen, n_trainable, n_tokens))
    return 4 * n_frozen * n_tokens + 6 * n_trainable * n_tokens


def flops_saved(n_frozen, n_trainable, n_tokens):
    """6ND pour tout, moins le produit épargné aux poids gelés."""
    if n_frozen < 0 or n_trainable < 0 or n_tokens < 0:
        raise ValueError("négatif")
    return 6 * (n_frozen + n_trainable) * n_tokens - 2 * n_frozen * n_tokens


def flops_products(n_frozen, n_trainable, n_tokens):
    for value in (n_frozen, n_trainable, n_tokens):
        if value < 0:
            raise ValueError(f"{value} est négatif")
    products = {"aller": n_frozen + n_trainable, "activations": n_frozen + n_trainable, "poids": n_trainable}
    return sum(2 * n * n_tokens for n in products.values())


STYLES = {
    "Adapter": [Adapter, AdapterSmallStart, AdapterMatmul, AdapterWide],
    "adapter_num_params": [params_formula, params_module, params_loops, params_numpy],
    "insert_adapters": [insert_hooks, insert_wrapped, insert_projections, insert_named],
    "adapter_overhead": [overhead_closed, overhead_whole_window, overhead_macs, overhead_tensor],
    "optimizer_state_bytes": [state_loop, state_measured, state_unique],
    "peft_training_flops": [flops_formula, flops_saved, flops_products],
}
