"""Chapitre 7, deuxième partie : des voix dans un modèle gelé, entraînées, échangées, pesées."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from atelier.display import note, recorded, table
from atelier.hardware import beside, device, home, median_seconds
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent
from atelier.training import Log, corpus_tokens, train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHAPTER = "ch7_adapters"
VOICES = {"B": ("b", "fantasy"), "B′": ("bprime", "vers classiques")}
"""Nom de la voix → (préfixe des extraits, ce que c'est)."""
WIDTH = 16
ADAPTER_LR, FULL_LR, REPAIR_LR = 2e-3, 1e-3, 1e-3
Insert = Callable[[Any, int], Any]
Weights = dict[str, Tensor]


# --- Outils ---------------------------------------------------------------------------------------------------------


def adapted(model: GPT2LMHeadModel, insert: Insert, bottleneck: int = WIDTH, seed: int = 0) -> GPT2LMHeadModel:
    """Une copie de `model` où `insert` a mis ses adaptateurs ; `seed` fixe leur départ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return insert(copy.deepcopy(model), bottleneck).to(device()).eval()


def all_trained(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Une copie dont tous les paramètres apprennent."""
    return copy.deepcopy(model).requires_grad_(True).eval()


def trained_count(model: nn.Module) -> int:
    """Nombre de paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def trained_tensors(model: nn.Module) -> Weights:
    """Les seuls paramètres qui apprennent, copiés : c'est tout ce qu'il faut garder d'une voix."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


def put_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Pose une voix dans un modèle qui a les mêmes adaptateurs."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, w in weights.items():
            own[name].copy_(w)


def base_hash(model: nn.Module) -> str:
    """Empreinte (SHA-256, 12 premiers caractères) de tous les octets gelés, quels que soient leurs noms et leur ordre.

    Si rien n'est gelé, celle du modèle entier.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad] or list(model.parameters())
    digests = sorted(hashlib.sha256(p.detach().cpu().contiguous().numpy().tobytes()).digest() for p in frozen)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def adapters_of(model: GPT2LMHeadModel) -> list[nn.Module]:
    """Les adaptateurs (modules qui ont `down` et `up`) dans l'ordre où un passage les traverse."""
    found: list[nn.Module] = []
    hooks = [
        m.register_forward_hook(lambda m, _x, _y: found.append(m))
        for m in model.modules()
        if hasattr(m, "down") and hasattr(m, "up")
    ]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long, device=home(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def file_bytes(weights: Mapping[str, Tensor], dtype: torch.dtype) -> int:
    """Octets d'un fichier safetensors qui contient ces tenseurs, dans ce type."""
    return len(save({name: w.to("cpu", dtype).contiguous() for name, w in weights.items()}))


def teach(
    model: GPT2LMHeadModel, extract: str, steps: int, seed: int = 0, lr: float = ADAPTER_LR, **options: Any
) -> Log:
    """Entraîne sur place ce qui apprend dans `model`, sur un extrait : 8 fenêtres de 128 jetons par pas."""
    return train(model, windows(corpus_tokens(extract), seed=seed), steps, lr=lr, what=extract, **options)


def imitate(teacher: GPT2LMHeadModel) -> Callable[[nn.Module, Tensor], Tensor]:
    """Perte de distillation : divergence KL du maître à l'élève, moyenne par jeton, en nats."""

    def loss(student: nn.Module, ids: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(ids, use_cache=False).logits.log_softmax(-1).flatten(0, 1)
        got = student(ids, use_cache=False).logits.log_softmax(-1).flatten(0, 1)
        return nn.functional.kl_div(got, wanted, log_target=True, reduction="batchmean")

    return loss


def continuation(model: GPT2LMHeadModel, tokenizer: Any, opening: str, n_new: int, seed: int = 0) -> str:
    """Une suite tirée au hasard (température 0,7, top-k 20), toujours la même pour une même graine."""
    ids = beside(model, tokenizer(opening, return_tensors="pt")["input_ids"])
    options = {"do_sample": True, "temperature": 0.7, "top_k": 20, "pad_token_id": 0, "suppress_tokens": [0]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=n_new, max_new_tokens=n_new, **options
        )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


# --- Brancher -------------------------------------------------------------------------------------------------------


@recorded("ch7/same_start", needs=("insert",))
def same_start(model: GPT2LMHeadModel, insert: Insert, bottleneck: int = WIDTH, steps: int = 3) -> None:
    """Avant, juste après le branchement, puis après quelques pas : logits, paramètres qui apprennent, octets gelés."""
    ids = next(windows(corpus_tokens("b_train", 4096), 2, 64))
    with torch.no_grad():
        plain = model(ids).logits
    ready = adapted(model, insert, bottleneck)
    rows = [["Colibri seul", 0.0, 0, base_hash(model)]]
    for what, n in (("adaptateurs branchés", 0), (f"après {steps} pas sur B", steps)):
        if n:
            teach(ready, "b_train", n)
        with torch.no_grad():
            gap = (ready(ids).logits - plain).abs().max().item()
        rows.append([what, gap, trained_count(ready), base_hash(ready)])
    table(
        [[what, number(gap, 3), n, digest] for what, gap, n, digest in rows],
        header=["", "plus grand écart d'un logit", "paramètres qui apprennent", "empreinte des octets gelés"],
        caption=f"Brancher {2 * model.config.n_layer} adaptateurs de largeur {bottleneck}",
    )
    note(
        f"Seuls {percent(trained_count(ready) / model.num_parameters())} des paramètres apprennent ; l'empreinte est "
        "celle de tous les octets de la base, et elle ne bouge pas."
    )


# --- Deux voix ------------------------------------------------------------------------------------------------------


def _three(model: GPT2LMHeadModel, max_tokens: int) -> list[float]:
    return [
        evaluate_perplexity(model, f"{t}_validation", max_tokens=max_tokens).perplexity for t in ("a", "b", "bprime")
    ]


@recorded("ch7/learn_voices", needs=("insert",))
def learn_voices(
    model: GPT2LMHeadModel, insert: Insert, steps: int, bottleneck: int = WIDTH, max_tokens: int = 2048
) -> dict[str, Weights]:
    """Un adaptateur appris sur B, un sur B′, l'un après l'autre dans la même base. Rend voix → poids."""
    ready = adapted(model, insert, bottleneck)
    silent = trained_tensors(ready)
    rows = [["Colibri", *_three(model, max_tokens)]]
    voices: dict[str, Weights] = {}
    seconds = 0.0
    for voice, (text, what) in VOICES.items():
        put_back(ready, silent)
        seconds += teach(ready, f"{text}_train", steps).seconds
        voices[voice] = trained_tensors(ready)
        rows.append([f"… et l'adaptateur {voice} ({what})", *_three(ready, max_tokens)])
    put_back(ready, silent)
    rows.append(["… adaptateurs remis au départ", *_three(ready, max_tokens)])
    table(
        rows,
        header=["modèle", "sur A", "sur B", "sur B′"],
        caption=f"Perplexité sur {number(max_tokens)} jetons de validation, après {steps} pas pour chaque voix "
        f"({number(seconds, 2, unit='s')} en tout)",
    )
    return voices


@recorded("ch7/swap_voices", needs=("insert",))
def swap_voices(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    insert: Insert,
    voices: Mapping[str, Weights],
    openings: Sequence[str],
    bottleneck: int = WIDTH,
    n_new: int = 40,
) -> None:
    """La même amorce continuée par la base, puis par chaque voix posée tour à tour dans le même modèle."""
    ready = adapted(model, insert, bottleneck)
    settings = {"Colibri": trained_tensors(ready), **{f"voix {v} ({VOICES[v][1]})": w for v, w in voices.items()}}
    durations = []
    for opening in openings:
        rows = []
        for name, weights in settings.items():
            durations.append(median_seconds(partial(put_back, ready, weights), repeats=1, warmup=0))
            told = continuation(ready, tokenizer, opening, n_new)
            rows.append([name, f"{opening}{told}".replace("\n", " / "), base_hash(ready)])
        table(rows, header=["", "texte", "empreinte de la base"], caption=f"Amorce : « {opening} »")
    middle = sorted(durations)[len(durations) // 2]
    note(
        f"Changer de voix : {number(1000 * middle, 2, unit='ms')}, pour recopier "
        f"{number(trained_count(ready))} nombres. La base n'est jamais rechargée. (« / » marque un retour à la ligne.)"
    )


# --- Peser ----------------------------------------------------------------------------------------------------------


@recorded("ch7/weigh_voices", needs=("insert",))
def weigh_voices(
    model: GPT2LMHeadModel, insert: Insert, voices: Mapping[str, Weights], bottleneck: int = WIDTH, tasks: int = 100
) -> None:
    """Le fichier d'une voix seule contre une copie du modèle, pour une tâche et pour cent ; relu et vérifié."""
    whole = dict(model.named_parameters())
    one = next(iter(voices.values()))
    base = file_bytes(whole, torch.float16)
    rows = []
    for what, weights, shared in (("une copie complète", whole, 0), ("une voix seule", one, base)):
        for dtype, name in ((torch.float32, "FP32"), (torch.float16, "FP16")):
            size = file_bytes(weights, dtype)
            rows.append([f"{what}, {name}", size, percent(size / file_bytes(whole, dtype)), shared + tasks * size])
    table(
        rows,
        header=["fichier", "octets", "part d'une copie", f"octets pour {tasks} tâches, base en FP16 comprise"],
        caption="Fichiers safetensors écrits, puis pesés",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voix.safetensors"
        save_file({k: w.contiguous() for k, w in one.items()}, path)
        first, second = adapted(model, insert, bottleneck), adapted(model, insert, bottleneck, seed=1)
        put_back(first, one)
        put_back(second, load_file(path))
        ids = next(windows(corpus_tokens("b_train", 4096), 2, 64))
        with torch.no_grad():
            same = torch.equal(first(ids).logits, second(ids).logits)
    note(
        f"Le fichier ne contient que {len(one)} tenseurs. Relu dans une base fraîche, il donne "
        + ("exactement les mêmes logits." if same else "d'autres logits !")
    )


# --- Qui travaille ? ------------------------------------------------------------------------------------------------


@recorded("ch7/who_works", needs=("insert",))
def who_works(
    model: GPT2LMHeadModel,
    insert: Insert,
    voices: Mapping[str, Weights],
    bottleneck: int = WIDTH,
    max_tokens: int = 2048,
) -> None:
    """Perplexité de chaque voix quand on fait taire les adaptateurs d'un bloc, ou ceux d'un genre, sans réentraîner."""
    ready = adapted(model, insert, bottleneck)
    modules = adapters_of(ready)
    groups = {f"bloc {i}": modules[2 * i : 2 * i + 2] for i in range(len(modules) // 2)}
    groups |= {"après l'attention": modules[0::2], "après le MLP": modules[1::2], "tous": modules}
    rows: list[list[Any]] = [["aucun (voix complète)"], *([name] for name in groups)]
    for voice, weights in voices.items():
        put_back(ready, weights)
        for row, silenced in zip(rows, [[], *groups.values()], strict=True):
            row.append(_without(ready, silenced, f"{VOICES[voice][0]}_validation", max_tokens))
    table(
        rows,
        header=["adaptateurs réduits au silence", *(f"voix {v}, sur {v}" for v in voices)],
        caption=f"Perplexité sur {number(max_tokens)} jetons de validation, sans réentraîner",
    )


def _without(model: GPT2LMHeadModel, silenced: Sequence[nn.Module], text: str, max_tokens: int) -> float:
    kept = [(p, p.detach().clone()) for m in silenced for p in m.get_submodule("up").parameters()]
    with torch.no_grad():
        for p, _ in kept:
            p.zero_()
        found = evaluate_perplexity(model, text, max_tokens=max_tokens).perplexity
        for p, w in kept:
            p.copy_(w)
    return found
