"""Chapitre 1, deuxième partie : l'attention de l'étudiant dans Colibri, et ce que font ses têtes sur du vrai texte."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from atelier.display import note, recorded, show, table
from atelier.figures.ch1.tokens import eager, token_text
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.layers import blocks
from atelier.figures.common.style import canvas
from atelier.hardware import beside
from atelier.perplexity import evaluate_perplexity
from atelier.text import NBSP, number, percent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

SETTLED = 16
"""Premières positions d'une fenêtre laissées de côté dans les mesures : elles ont trop peu de passé."""


# --- Votre attention dans Colibri -------------------------------------------------------------------------------------


class OwnAttention(nn.Module):
    """L'attention d'un bloc de GPT-2, où le découpage et la moyenne sont ceux de l'étudiant."""

    def __init__(self, layer: GPT2Attention, split_heads: Any, causal_attention: Any) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = layer.c_attn, layer.c_proj, layer.num_heads
        self.split, self.average = split_heads, causal_attention

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        q, k, v = (self.split(t, self.n_head) for t in self.c_attn(hidden).chunk(3, dim=-1))
        mixed = self.average(q, k, v)
        return self.c_proj(mixed.transpose(1, 2).flatten(2)), None


@recorded("ch1/attention_inside", needs=("split_heads", "causal_attention"))
@torch.inference_mode()
def attention_inside(
    model: GPT2LMHeadModel, ids: Tensor, split_heads: Any, causal_attention: Any, **evaluation: Any
) -> None:
    """Les logits de Colibri avec l'attention de la bibliothèque, puis avec celle de l'étudiant dans chaque bloc."""
    ids, own = beside(model, ids), copy.deepcopy(model)
    for block in own.transformer.h:
        block.attn = OwnAttention(cast("GPT2Attention", block.attn), split_heads, causal_attention)
    theirs, yours = model(ids, use_cache=False).logits, own(ids, use_cache=False).logits
    gap = (theirs - yours).abs().max().item()
    rows = [
        [name, number(logits.std().item(), 4), number(logits[0, -1].max().item(), 7), number(perplexity, 7)]
        for name, logits, perplexity in (
            ("attention de transformers", theirs, evaluate_perplexity(model, **evaluation).perplexity),
            ("votre attention", yours, evaluate_perplexity(own, **evaluation).perplexity),
        )
    ]
    table(
        rows,
        header=["Colibri avec", "écart type des logits", "plus grand logit, dernier jeton", "perplexité"],
        caption=f"{ids.shape[0]} fenêtres de {ids.shape[1]} jetons, {number(theirs.numel())} logits",
    )
    same = (theirs.argmax(-1) == yours.argmax(-1)).float().mean().item()
    verdict = "en dessous" if gap < 1e-4 else "AU-DESSUS"
    note(
        f"Plus grand écart entre les deux, sur tous les logits{NBSP}: {number(gap, 3)}, {verdict} de 0,0001. "
        f"Le jeton préféré est le même à {percent(same, 5)} des positions."
    )


# --- Les cartes d'attention -------------------------------------------------------------------------------------------


@torch.inference_mode()
def attentions(model: GPT2LMHeadModel, ids: Tensor) -> Tensor:
    """Poids d'attention (L, B, H, T, T) de tous les blocs."""
    with eager(model):
        return torch.stack(model(beside(model, ids), output_attentions=True, use_cache=False).attentions).cpu()


def attention_map(model: GPT2LMHeadModel, tokenizer: Any, text: str, layer: int = 0, head: int = 0) -> None:
    """Qui regarde qui, dans une tête d'un bloc. `layer` et `head` se règlent au curseur."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    weights = attentions(model, ids)[:, 0]
    names = [token_text(tokenizer, i) for i in ids[0].tolist()]

    def draw(layer: int, head: int) -> tuple[Any, str]:
        return _map(weights[layer, head], names, layer, head)

    explore(
        draw,
        layer=Slider(layer, 0, weights.shape[0] - 1, 1, "bloc"),
        head=Slider(head, 0, weights.shape[1] - 1, 1, "tête"),
    )


def _map(weights: Tensor, names: list[str], layer: int, head: int) -> tuple[Any, str]:
    n = len(names)
    size = min(0.42 * n + 2.2, 9.0)
    fig, ax = canvas(size, size * 0.86)
    ax.grid(False)
    image = ax.imshow(100 * weights, cmap="Blues", vmin=0, vmax=100)
    ax.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor", family="monospace", fontsize=8.5)
    ax.set_yticks(range(n), names, family="monospace", fontsize=8.5)
    ax.set_xlabel("jeton regardé (sa clé)")
    ax.set_ylabel("jeton qui regarde (sa requête)")
    ax.set_title(f"bloc {layer}, tête {head}", fontsize=11)
    if n <= 20:
        for i in range(n):
            for j in range(i + 1):
                p = 100 * weights[i, j].item()
                if p >= 5:
                    ax.text(
                        j,
                        i,
                        number(p, decimals=0),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if p > 55 else "black",
                    )
    fig.colorbar(image, ax=ax, label="poids (%)", shrink=0.75)
    last = weights[-1]
    strongest = last.topk(min(3, n))
    told = ", ".join(
        f"«{NBSP}{names[j]}{NBSP}» {percent(v, 3)}"
        for j, v in zip(strongest.indices.tolist(), strongest.values.tolist(), strict=True)
    )
    alt = (
        f"Carte d'attention du bloc {layer}, tête {head}{NBSP}: une ligne par jeton qui regarde, une colonne par jeton "
        f"regardé, rien au-dessus de la diagonale. Le dernier jeton regarde surtout {told}. En moyenne, "
        f"{percent(weights.diagonal().mean().item(), 3)} du poids va au jeton lui-même, "
        f"{percent(weights.diagonal(-1).mean().item(), 3)} au précédent et "
        f"{percent(weights[1:, 0].mean().item(), 3)} au premier."
    )
    return fig, alt


# --- Ce que font les têtes --------------------------------------------------------------------------------------------


def _targets(ids: Tensor, breaks: Tensor) -> dict[str, Tensor]:
    """Comportement → masque (B, T, T) des jetons visés par chaque jeton. breaks : jetons qui ferment une phrase."""
    batch, n = ids.shape
    rows, columns = torch.arange(n)[:, None], torch.arange(n)[None]
    past = (columns <= rows).expand(batch, n, n)
    same = (ids[:, :, None] == ids[:, None, :]) & (columns < rows)
    after_same = torch.zeros_like(same)
    after_same[:, :, 1:] = same[:, :, :-1] & (columns[:, 1:] < rows)
    closes = torch.isin(ids, breaks)
    last_close = torch.where(closes, torch.arange(n), -1).cummax(dim=1).values
    return {
        "lui-même": (columns == rows) & past,
        "le jeton précédent": (columns == rows - 1) & past,
        "le premier jeton de la fenêtre": (columns == 0) & past,
        "la dernière fin de phrase": (columns == last_close[:, :, None]) & past,
        "le même jeton, plus tôt": same,
        "ce qui suivait le même jeton": after_same,
    }


def _share(weights: Tensor, target: Tensor) -> Tensor:
    """Poids moyen (…) que (…, B, T, T) donne à target (B, T, T), là où target n'est pas vide."""
    asked = target.any(-1)
    asked[:, :SETTLED] = False
    given = (weights * target).sum(-1)
    return (given * asked).sum(dim=(-2, -1)) / asked.sum()


@torch.inference_mode()
def _without_head(model: GPT2LMHeadModel, layer: int, head: int, **evaluation: Any) -> float:
    """Perplexité quand la sortie d'une tête est remplacée par zéro."""
    size = model.config.n_embd // model.config.n_head
    mine = slice(head * size, (head + 1) * size)

    def silence(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0].clone()
        x[..., mine] = 0
        return (x,)

    hook = blocks(model)[layer].attn.c_proj.register_forward_pre_hook(silence)
    try:
        return evaluate_perplexity(model, **evaluation).perplexity
    finally:
        hook.remove()


def what_heads_do(
    model: GPT2LMHeadModel, tokenizer: Any, windows: Tensor, **evaluation: Any
) -> dict[str, dict[str, int]]:
    """Mesure, sur du vrai texte, ce que regarde chaque tête ; rend, par comportement, la tête qui le fait le plus.

    windows : (B, T) jetons. evaluation : options d'`evaluate_perplexity`, pour l'ablation de chaque tête montrée.
    """
    weights = attentions(model, windows).transpose(1, 2)  # (L, H, B, T, T)
    layers, heads, _, n, _ = weights.shape
    vocabulary = range(model.config.vocab_size)
    breaks = torch.tensor([i for i in vocabulary if token_text(tokenizer, i).rstrip("⏎␣⍽")[-1:] in (".", "!", "?", "…")
                           or "⏎" in token_text(tokenizer, i)])  # fmt: skip
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    targets = _targets(windows.cpu(), breaks)
    shares = {name: _share(weights, target) for name, target in targets.items()}
    chance = {name: _share(uniform.expand(windows.shape[0], n, n), target).item() for name, target in targets.items()}
    _heads_figure(shares, chance)
    full = evaluate_perplexity(model, **evaluation).perplexity
    best, rows = {}, []
    for name, share in shares.items():
        layer, head = divmod(int(share.argmax()), heads)
        best[name] = {"layer": layer, "head": head}
        value = share[layer, head].item()
        rows.append(
            [
                name,
                f"bloc {layer}, tête {head}",
                percent(value, 3),
                percent(chance[name], 3),
                number(value / chance[name], 2, before="×"),
                number(_without_head(model, layer, head, **evaluation), 4),
            ]
        )
    table(
        rows,
        header=[
            "ce qui est regardé",
            "la tête qui le regarde le plus",
            "part de son attention",
            "si elle regardait partout",
            "rapport",
            "perplexité sans elle",
        ],
        caption=f"{windows.shape[0]} fenêtres de {n} jetons ; perplexité du modèle entier{NBSP}: {number(full, 4)}",
    )
    return best


def _heads_figure(shares: dict[str, Tensor], chance: dict[str, float]) -> None:
    layers, heads = next(iter(shares.values())).shape
    top = 100 * max(share.max().item() for share in shares.values())
    fig, axes = canvas(9.4, 1.1 + 0.62 * layers, rows=2, columns=3)
    for ax, (name, share) in zip(axes.flat, shares.items(), strict=True):
        ax.grid(False)
        ax.imshow(100 * share, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        for i in range(layers):
            for j in range(heads):
                p = 100 * share[i, j].item()
                color = "white" if p > 0.55 * top else "black"
                ax.text(j, i, number(p, decimals=0), ha="center", va="center", fontsize=7.5, color=color)
        ax.set_title(f"{name} (au hasard{NBSP}: {number(100 * chance[name], 2)})", fontsize=8.5)
        ax.set_xticks(range(heads))
        ax.set_yticks(range(layers))
    for ax in axes[1]:
        ax.set_xlabel("tête", fontsize=8.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("bloc", fontsize=8.5)
    told = " ; ".join(
        f"{name}{NBSP}: au plus {percent(share.max().item(), 3)} (bloc {int(share.argmax()) // heads}, "
        f"tête {int(share.argmax()) % heads}), en moyenne {percent(share.mean().item(), 3)}"
        for name, share in shares.items()
    )
    show(fig, alt=f"Six grilles, une case par tête, qui donnent en % la part d'attention portée à… {told}.")
