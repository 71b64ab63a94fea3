"""Chapitre 5, troisième partie : retirer des têtes, des neurones, des blocs ; ce qui rétrécit pour de bon."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from atelier.display import note, recorded, show, table
from atelier.figures.common.layers import blocks
from atelier.figures.common.style import BLACK, canvas, progress_bar
from atelier.hardware import beside, home
from atelier.perplexity import evaluate_perplexity
from atelier.text import number
from atelier.training import lm_loss
from atelier.variants import window_milliseconds

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

PruneHeads = Callable[..., tuple[Tensor, Tensor, Tensor]]
Gone = Mapping[int, Sequence[int]]
"""Bloc → numéros des têtes à retirer."""


# --- Noter les têtes --------------------------------------------------------------------------------------------------


@torch.no_grad()
def silenced(model: GPT2LMHeadModel, gone: Gone) -> GPT2LMHeadModel:
    """Une copie où ces têtes se taisent : leurs lignes de c_proj sont nulles, et rien ne rétrécit."""
    changed = copy.deepcopy(model)
    for block, heads in gone.items():
        attention = blocks(changed)[block].attn
        for h in heads:
            attention.c_proj.weight[h * attention.head_dim : (h + 1) * attention.head_dim] = 0
    return changed


@torch.no_grad()
def head_scores(model: GPT2LMHeadModel, ids: Tensor) -> Tensor:
    """Ce que perd Colibri quand chaque tête se tait, seule : hausse de la perte sur ids, (bloc, tête), en nats."""
    base = lm_loss(model, ids).item()
    scores = torch.zeros(model.config.n_layer, model.config.n_head)
    for block in progress_bar(range(model.config.n_layer), "têtes"):
        for head in range(model.config.n_head):
            scores[block, head] = lm_loss(silenced(model, {block: [head]}), ids).item() - base
    fig, ax = canvas(6.6, 3.2)
    ax.imshow(scores, cmap="cividis_r", aspect="auto")
    dark = scores.min() + 0.55 * (scores.max() - scores.min())
    for i in range(len(scores)):
        for j in range(scores.shape[1]):
            text = number(scores[i, j].item(), decimals=3)
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if scores[i, j] > dark else BLACK)
    ax.set_xticks(range(scores.shape[1]), [f"tête {h}" for h in range(scores.shape[1])], fontsize=9)
    ax.set_yticks(range(len(scores)), [f"bloc {b}" for b in range(len(scores))], fontsize=9)
    ax.set_title("Hausse de la perte quand cette tête se tait (nats par jeton)", fontsize=10)
    ax.grid(False)
    flat = scores.flatten()
    low, high = (divmod(int(i), scores.shape[1]) for i in (flat.argmin(), flat.argmax()))
    show(
        fig,
        alt=f"Carte bloc par tête. La moins utile : bloc {low[0]}, tête {low[1]}, {number(flat.min().item(), 2)} nat ; "
        f"la plus utile : bloc {high[0]}, tête {high[1]}, {number(flat.max().item(), 3, unit='nat')}.",
    )
    small = int((flat < 0.02).sum())
    note(f"{small} têtes sur {len(flat)} coûtent moins de 0,02 nat, soit 2 % de perplexité, chacune de son côté.")
    return scores


def least_useful(scores: Tensor, count: int) -> dict[int, list[int]]:
    """Les `count` têtes de plus petit score, par bloc."""
    gone: dict[int, list[int]] = {}
    for i in scores.flatten().argsort()[:count].tolist():
        gone.setdefault(i // scores.shape[1], []).append(i % scores.shape[1])
    return gone


# --- Les retirer ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def without_heads(model: GPT2LMHeadModel, prune_heads: PruneHeads, gone: Gone) -> GPT2LMHeadModel:
    """Une copie plus petite, sans ces têtes : c_attn et c_proj de chaque bloc sont refaits par votre fonction."""
    changed = copy.deepcopy(model)
    for block, heads in gone.items():
        attention = blocks(changed)[block].attn
        parts = prune_heads(
            attention.c_attn.weight.detach(), attention.c_attn.bias.detach(), attention.c_proj.weight.detach(),
            list(heads), model.config.n_head,
        )  # fmt: skip
        _resize(attention, *parts)
    return changed


def _resize(attention: GPT2Attention, c_attn: Tensor, bias: Tensor, c_proj: Tensor) -> None:
    attention.c_attn.weight, attention.c_attn.bias = nn.Parameter(c_attn.contiguous()), nn.Parameter(bias.contiguous())
    attention.c_proj.weight = nn.Parameter(c_proj.contiguous())
    attention.c_attn.nf, attention.c_proj.nx = c_attn.shape[1], c_proj.shape[0]
    attention.split_size, attention.num_heads = c_proj.shape[0], c_proj.shape[0] // attention.head_dim


@recorded("ch5/silenced_or_removed", needs=("prune_heads",))
@torch.no_grad()
def silenced_or_removed(model: GPT2LMHeadModel, ids: Tensor, prune_heads: PruneHeads, gone: Gone) -> None:
    """Les logits du modèle aux têtes muettes et du modèle sans ces têtes, et ce que chacun pèse."""
    ids = beside(model, ids)
    quiet, small = silenced(model, gone), without_heads(model, prune_heads, gone)
    gap = (quiet(ids).logits - small(ids).logits).abs().max().item()
    table(
        [
            [name, m.num_parameters(), str(tuple(blocks(m)[next(iter(gone))].attn.c_attn.weight.shape))]
            for name, m in (("entier", model), ("têtes muettes", quiet), ("têtes retirées", small))
        ],
        header=["modèle", "paramètres", f"c_attn du bloc {next(iter(gone))}"],
        caption=f"Sans {sum(map(len, gone.values()))} têtes",
    )
    note(f"Plus grand écart entre les logits des deux derniers : {number(gap, 2)} (aux arrondis près).")


def fp16_bytes(model: GPT2LMHeadModel) -> int:
    """Octets du fichier des poids en FP16, la tête liée n'étant écrite qu'une fois."""
    from atelier.figures.ch5.storage import stored_bytes

    return stored_bytes({k: p.detach().half() for k, p in model.named_parameters()})


@recorded("ch5/head_curve", needs=("prune_heads",))
def head_curve(
    model: GPT2LMHeadModel, scores: Tensor, prune_heads: PruneHeads, counts: Sequence[int], tokens: int
) -> None:
    """Les têtes les moins utiles retirées les premières : paramètres, octets, temps, perplexité.

    Dernière colonne : la perplexité qu'on aurait si les hausses de perte, mesurées tête par tête, s'ajoutaient.
    """
    rows: list[list[Any]] = []
    for count in progress_bar(counts, "têtes retirées"):
        small = without_heads(model, prune_heads, least_useful(scores, count))
        perplexity = evaluate_perplexity(small, max_tokens=tokens).perplexity
        whole = rows[0][4] if rows else perplexity
        added = whole * scores.flatten().sort().values[:count].sum().exp().item()
        rows.append([count, small.num_parameters(), fp16_bytes(small), window_milliseconds(small), perplexity, added])
    table(
        rows,
        header=[
            "têtes retirées",
            "paramètres",
            "octets (FP16)",
            "ms par fenêtre",
            "perplexité",
            "si les coûts s'ajoutaient",
        ],
        caption=f"Colibri et ses {scores.numel()} têtes, sans réapprentissage ({number(tokens)} jetons évalués)",
    )


# --- Neurones, blocs --------------------------------------------------------------------------------------------------


@torch.no_grad()
def without_neurons(model: GPT2LMHeadModel, ids: Tensor, removed: int) -> GPT2LMHeadModel:
    """Un GPT-2 ordinaire dont chaque MLP a perdu ses `removed` neurones les moins utiles (n_inner le dit).

    Utilité d'un neurone : norme de ses activations sur ids, fois norme de sa ligne de c_proj (Wanda, par neurone).
    """
    from transformers import GPT2LMHeadModel as GPT2

    from atelier.figures.common.layers import layer_inputs

    width = model.config.n_inner or 4 * model.config.n_embd
    config = copy.deepcopy(model.config)
    config.n_inner = width - removed
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    inputs = layer_inputs(model, ids, [f"{b}.mlp.c_proj" for b in range(config.n_layer)])
    for b in range(config.n_layer):
        prefix = f"transformer.h.{b}.mlp"
        utility = inputs[f"{b}.mlp.c_proj"].norm(dim=0) * state[f"{prefix}.c_proj.weight"].norm(dim=1)
        kept = utility.argsort(descending=True)[: config.n_inner].sort().values
        state[f"{prefix}.c_fc.weight"] = state[f"{prefix}.c_fc.weight"][:, kept]
        state[f"{prefix}.c_fc.bias"] = state[f"{prefix}.c_fc.bias"][kept]
        state[f"{prefix}.c_proj.weight"] = state[f"{prefix}.c_proj.weight"][kept]
    small = GPT2(config)
    small.load_state_dict(state, strict=False)
    return small.to(home(model)).eval()  # type: ignore[arg-type]


@torch.no_grad()
def without_block(model: GPT2LMHeadModel, block: int) -> GPT2LMHeadModel:
    """Un GPT-2 ordinaire d'un bloc de moins."""
    small = copy.deepcopy(model)
    del small.transformer.h[block]
    small.config.n_layer -= 1
    for i, b in enumerate(blocks(small)):
        b.attn.layer_idx = i  # le numéro d'un bloc désigne sa place dans le cache
    return small


@recorded("ch5/three_ways", needs=("prune_heads",))
def three_ways(
    model: GPT2LMHeadModel, ids: Tensor, scores: Tensor, prune_heads: PruneHeads, tokens: int
) -> dict[str, Any]:
    """Têtes, neurones ou bloc : trois façons de retirer à peu près autant de paramètres. Rend les trois modèles."""
    config = model.config
    head = 4 * config.n_embd * (config.n_embd // config.n_head)
    block = sum(p.numel() for p in model.transformer.h[0].parameters())
    heads = min(round(block / head), scores.numel() - config.n_layer)
    neurons = 32 * round(block / config.n_layer / (2 * config.n_embd + 1) / 32)  # une largeur que les noyaux aiment
    losses = [lm_loss(without_block(model, b), ids).item() for b in range(config.n_layer)]
    best = losses.index(min(losses))
    made = {
        f"{heads} têtes": without_heads(model, prune_heads, least_useful(scores, heads)),
        f"{neurons} neurones par MLP": without_neurons(model, ids, neurons),
        f"le bloc {best}": without_block(model, best),
    }
    rows = []
    for name, m in (("rien", model), *made.items()):
        perplexity = evaluate_perplexity(m, max_tokens=tokens).perplexity
        rows.append([name, m.num_parameters(), fp16_bytes(m), window_milliseconds(m), perplexity])
    table(
        rows,
        header=["retiré", "paramètres", "octets (FP16)", "ms par fenêtre", "perplexité"],
        caption=f"Sans réapprentissage, à peu près autant de paramètres en moins ({number(tokens)} jetons évalués)",
    )
    return made


# --- Écrire et relire -------------------------------------------------------------------------------------------------


@recorded("ch5/save_and_reload", needs=("prune_heads",))
def save_and_reload(model: GPT2LMHeadModel, ids: Tensor, scores: Tensor, prune_heads: PruneHeads, tokens: int) -> None:
    """Chaque modèle aminci, écrit par save_pretrained puis relu par from_pretrained : ce qui revient, ou non."""
    from transformers import GPT2LMHeadModel as GPT2
    from transformers.utils import logging

    heads = without_heads(model, prune_heads, least_useful(scores, 8))
    everywhere = {b: [int(scores[b].argmin())] for b in range(model.config.n_layer)}
    even = without_heads(model, prune_heads, everywhere)
    models = {
        "8 têtes, ici et là": heads,
        "une tête par bloc": even,
        "100 neurones par MLP": without_neurons(model, ids, 100),
        "un bloc": without_block(model, 2),
    }
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    rows = []
    try:
        for name, small in models.items():
            with tempfile.TemporaryDirectory() as folder:
                small.save_pretrained(folder)
                rows.append([name, *_reload(GPT2, folder, small, ids, tokens)])
    finally:
        logging.set_verbosity(verbosity)
    table(
        rows,
        header=["retiré", "from_pretrained", "… ignore_mismatched_sizes=True", "notre relecture"],
        caption="Écrits par save_pretrained, puis relus",
    )


def _reload(kind: Any, folder: str, small: GPT2LMHeadModel, ids: Tensor, tokens: int) -> list[str]:
    def judged(load: Callable[[], GPT2LMHeadModel]) -> str:
        try:
            again = load().to(home(small)).eval()  # type: ignore[arg-type]
        except (RuntimeError, ValueError) as error:
            return f"refuse ({type(error).__name__})"
        with torch.no_grad():
            same = again.num_parameters() == small.num_parameters() and torch.allclose(
                again(first).logits, small(first).logits, atol=1e-4
            )
        if same:
            return "le même modèle"
        perplexity = evaluate_perplexity(again, max_tokens=tokens).perplexity
        return f"un autre : {number(again.num_parameters())} paramètres, perplexité {number(perplexity, 4)}"

    first = beside(small, ids[:1])
    torch.manual_seed(0)  # ce qui ne se relit pas est tiré au hasard
    return [
        judged(lambda: kind.from_pretrained(folder)),
        judged(lambda: kind.from_pretrained(folder, ignore_mismatched_sizes=True)),
        judged(lambda: load_thinned(folder)),
    ]


def load_thinned(folder: str | Path) -> GPT2LMHeadModel:
    """Relit un GPT-2 écrit par save_pretrained, même si des têtes ont été retirées de certains blocs.

    Les formes du fichier disent combien de têtes garde chaque bloc ; l'attention de transformers accepte de calculer
    avec moins de têtes, c'est la configuration qui ne sait pas le dire.
    """
    from transformers import GPT2Config
    from transformers import GPT2LMHeadModel as GPT2

    config = GPT2Config(**json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
    state = load_file(Path(folder) / "model.safetensors")
    model = GPT2(config)
    for b, block in enumerate(blocks(model)):
        prefix = f"transformer.h.{b}.attn"
        names = (f"{prefix}.c_attn.weight", f"{prefix}.c_attn.bias", f"{prefix}.c_proj.weight")
        _resize(block.attn, *(state[name] for name in names))
    model.load_state_dict(state, strict=False)
    return model.eval()
