"""Longues mesures du chapitre 8 : `python cours.py mesures ch8_lora` (ou ce fichier, avec des noms d'expériences).

    python solutions/ch8_lora/measures.py                     ce qui manque dans assets/results/ch8_lora.json
    python solutions/ch8_lora/measures.py delta qlora         ces expériences seulement
    python solutions/ch8_lora/measures.py temps --redo     la refait même si elle est déjà là

Chaque expérience est enregistrée dès qu'elle finit. `temps` seule dépend de la vitesse de la machine.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from atelier import (
    corpus_tokens,
    evaluate_perplexity,
    gpt2_shape,
    load_model,
    load_tokenizer,
    median_seconds,
    windows,
)
from atelier.figures.ch8.cache import cached_loss, hidden_before, passes, step_times
from atelier.figures.common.layers import linear_layers, weight_of
from atelier.hardware import device
from atelier.measures import recorded_measures
from atelier.paths import asset
from atelier.text import number
from atelier.training import lm_loss, train
from grader.authoring.chapters import load_chapter
from grader.authoring.recording import run_measures

CHAPTER = "ch8_lora"
SOLVED = load_chapter(CHAPTER)
KINDS = ("c_attn", "c_proj", "c_fc")
"""Noms des couches linéaires d'un bloc : « c_proj » en désigne deux."""

STEPS, BATCH, LENGTH = 80, 8, 64
SEEDS = (0, 1, 2)
TOKENS = 4096
RANK, ALPHA = 8, 16
BOTTLENECK = 31
"""Largeur des adaptateurs : à peu près autant de nombres que LoRA à r = 8 sur toutes les couches."""
TOP = 2
"""Nombre de blocs, en partant du haut, où LoRA est posé dans les essais de cache."""
LR: dict[str, float] = {}
LR_CLASSES: dict[str, float] = {}
"""Pas d'apprentissage de chaque famille de méthodes : le meilleur de `reglage` et de `reglage_classes`."""
RECIPE = {
    "base": "Colibri",
    "langue": "extrait b_train, 8 fenêtres de 64 jetons par pas ; perplexité sur b_validation et a_validation",
    "classification": "8 textes d'au plus 64 jetons par pas ; exactitude sur la partie test",
    "pas": STEPS,
    "pas du réglage": "120 pour la langue, 40 pour la classification",
    "graines": list(SEEDS),
    "jetons évalués": TOKENS,
    "optimiseur": "AdamW 0,9 / 0,95, montée de 10 pas puis cosinus jusqu'à 10 %, gradient borné à 1",
    "taux d'apprentissage, langue": LR,
    "taux d'apprentissage, classification": LR_CLASSES,
    "LoRA": f"r = {RANK}, alpha = {ALPHA}, sur toutes les couches linéaires, sauf mention contraire",
}

# --- Les méthodes ---------------------------------------------------------------------------------------------------


def reference(name: str) -> Callable[..., Any]:
    """La solution d'un exercice du chapitre."""
    return SOLVED.reference(name)


def with_lora(model: nn.Module, rank: int = RANK, alpha: float = ALPHA, kinds: tuple[str, ...] = KINDS) -> nn.Module:
    """LoRA sur ces couches : `inject_lora` une fois par nom, puis tout ce qu'il a posé apprend."""
    for kind in kinds:
        reference("inject_lora")(model, rank, alpha, kind)
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name)
    return model


def only_top(model: nn.Module, blocks: int = TOP) -> nn.Module:
    """Ne laisse apprendre LoRA que dans les derniers blocs."""
    first = len(model.transformer.h) - blocks
    for name, p in model.named_parameters():
        in_block = name.startswith("transformer.h.")
        p.requires_grad_("lora_" in name and in_block and int(name.split(".")[2]) >= first)
    return model


def whole(model: nn.Module) -> nn.Module:
    """Tout apprend."""
    return model.requires_grad_(True)


def head(model: nn.Module) -> nn.Module:
    """La tête seule : dernier LayerNorm et matrice de sortie, déliée de la table des jetons pour que celle-ci gèle."""
    model.requires_grad_(False)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.transformer.ln_f.requires_grad_(True)
    return model


class Adapted(nn.Module):
    """Une couche gelée suivie d'un adaptateur de Houlsby : identité au départ."""

    def __init__(self, base: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.normal_(self.down.weight, std=width**-0.5)
        for p in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y + self.up(nn.functional.gelu(self.down(y)))


def adapters(model: nn.Module, bottleneck: int = BOTTLENECK) -> nn.Module:
    """Un adaptateur sur chaque sortie d'attention et de MLP ."""
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            owner.c_proj = Adapted(owner.c_proj, model.config.n_embd, bottleneck).to(device())
    return model


def rounded(model: nn.Module, rule: Callable[[Tensor], Tensor]) -> nn.Module:
    """Le modèle dont chaque couche linéaire porte rule(poids (sortie, entrée))."""
    with torch.no_grad():
        for layer in linear_layers(model).values():
            layer.weight.copy_(rule(weight_of(layer)).T)
    return model


def nf4(w: Tensor) -> Tensor:
    """w écrit en NF4 par blocs de 64, puis relu."""
    codes, absmax = reference("nf4_quantize")(w, 64)
    levels = SOLVED.namespace["NF4_LEVELS"].to(w)
    return (levels[codes.long()].reshape(-1, 64) * absmax[:, None]).reshape(w.shape)


def int4(w: Tensor) -> Tensor:
    """w arrondi sur les 15 crans réguliers de −7 à 7, par blocs de 64, puis relu."""
    blocks = w.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    return (torch.round(blocks / scale).clamp(-7, 7) * scale).reshape(w.shape)


METHODS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "tout": (whole, "tout"),
    "tête": (head, "tête"),
    "adaptateurs": (adapters, "adaptateurs"),
    "LoRA": (with_lora, "LoRA"),
    "QLoRA": (lambda m: with_lora(rounded(m, nf4)), "LoRA"),
}
"""Nom → (ce qui prépare le modèle, la famille dont il prend le pas d'apprentissage)."""


def trained_numbers(model: nn.Module) -> int:
    """Nombre de paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# --- Deux tâches ----------------------------------------------------------------------------------------------------


@cache
def voice(name: str = "b_train") -> Tensor:
    """Jetons d'un extrait, lus une seule fois."""
    return corpus_tokens(name)


def perplexities(model: nn.Module, a: bool = True, b: str = "b_validation") -> dict[str, float]:
    """Perplexité sur B, et sur A si demandé."""
    found = {"B": round(evaluate_perplexity(model, b, max_tokens=TOKENS).perplexity, 3)}
    if a:
        found["A"] = round(evaluate_perplexity(model, "a_validation", max_tokens=TOKENS).perplexity, 3)
    return found


def fit(prepare: Callable[[nn.Module], nn.Module], lr: float, seed: int, steps: int = STEPS, a: bool = True) -> dict:
    """Colibri préparé puis entraîné sur B : perplexités, pertes, paramètres entraînés."""
    torch.manual_seed(seed)
    model = prepare(load_model("colibri"))
    log = train(model, windows(voice(), BATCH, LENGTH, seed=seed), steps, lr=lr)
    return {
        "graine": seed,
        "entraînés": trained_numbers(model),
        **perplexities(model, a),
        "pertes": [round(v, 3) for v in log.smoothed(10)[4::5]],
    }


class Classifier(nn.Module):
    """Colibri, et une tête linéaire nulle au départ sur le dernier vrai jeton."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.output = nn.Linear(model.config.n_embd, classes).to(device())
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, ids: Tensor, last: Tensor) -> Tensor:
        hidden = self.model.transformer(ids, use_cache=False)[0]
        return self.output(hidden[torch.arange(len(ids), device=ids.device), last])


@cache
def labelled(part: str, length: int = 64) -> tuple[Tensor, Tensor, Tensor, int]:
    """Textes d'une partie : jetons (n, length), rang du dernier vrai jeton (n,), classe (n,), nombre de classes."""
    with open(asset("corpora", "classification.tsv"), encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = sorted({r["sujet"] for r in rows})
    tokenizer = load_tokenizer("colibri")
    chosen = [r for r in rows if r["partie"] == part]
    texts = [tokenizer(r["texte"], truncation=True, max_length=length)["input_ids"] for r in chosen]
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    last = torch.tensor([len(t) - 1 for t in texts])
    return ids, last, torch.tensor([names.index(r["sujet"]) for r in chosen]), len(names)


def text_batches(data: tuple[Tensor, Tensor, Tensor, int], seed: int, size: int = 8) -> Iterator[tuple[Tensor, ...]]:
    """Lots sans fin de textes tirés au hasard."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        pick = torch.randint(0, len(data[0]), (size,), generator=generator)
        yield tuple(t[pick].to(device()) for t in data[:3])


def class_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Entropie croisée des classes."""
    ids, last, labels = batch
    return nn.functional.cross_entropy(model(ids, last), labels)


@torch.inference_mode()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor, Tensor, int]) -> float:
    """Part des textes bien classés."""
    right = 0
    for i in range(0, len(data[0]), 64):
        ids, last, labels = (t[i : i + 64].to(device()) for t in data[:3])
        right += int((model(ids, last).argmax(-1) == labels).sum())
    return right / len(data[0])


def classify(method: str, lr: float, seed: int, part: str = "test", steps: int = STEPS) -> dict:
    """Colibri adapté à la classification : exactitude, perplexité sur A de son modèle de langue, paramètres."""
    torch.manual_seed(seed)
    train_data, test_data = labelled("train"), labelled(part)
    base = load_model("colibri")
    if method == "tête":
        base.requires_grad_(False)
    else:
        base = METHODS[method][0](base)
    model = Classifier(base, train_data[3])
    train(model, text_batches(train_data, seed), steps, lr=lr, loss=class_loss)
    a = evaluate_perplexity(base, "a_validation", max_tokens=TOKENS).perplexity
    return {
        "graine": seed,
        "entraînés": trained_numbers(model),
        "exactitude": round(accuracy(model, test_data), 4),
        "A": round(a, 3),
    }


# --- Les expériences ------------------------------------------------------------------------------------------------


def reglage(_: dict) -> Any:
    """Le pas d'apprentissage de chaque famille, choisi sur la validation avec une graine à part."""
    grid = {
        "tout": (3e-4, 1e-3, 2e-3),
        "tête": (1e-3, 3e-3, 1e-2),
        "adaptateurs": (3e-4, 1e-3, 3e-3),
        "LoRA": (1e-3, 3e-3, 1e-2),
    }
    return {m: {str(lr): fit(METHODS[m][0], lr, 100, 120, False)["B"] for lr in rates} for m, rates in grid.items()}


def reglage_classes(_: dict) -> Any:
    """Le même réglage pour la classification, sur sa partie de validation, en deux fois moins de pas."""
    grid = {"tout": (3e-4, 1e-3), "tête": (1e-2, 3e-2), "adaptateurs": (1e-3, 3e-3), "LoRA": (1e-3, 3e-3)}
    found = {}
    for m, rates in grid.items():
        found[m] = {str(lr): classify(m, lr, 100, "validation", STEPS // 2)["exactitude"] for lr in rates}
    return found


def linear_weights(model: nn.Module) -> nn.Module:
    """Seuls apprennent les poids des couches linéaires : ceux que LoRA sait changer."""
    model.requires_grad_(False)
    for layer in linear_layers(model).values():
        layer.weight.requires_grad_(True)
    return model


def delta(_: dict) -> Any:
    """ΔW de deux fine-tunings : valeurs singulières, perplexité quand on n'en garde que r directions."""
    base = load_model("colibri")
    before = {name: weight_of(layer).clone() for name, layer in linear_layers(base).items()}
    low_rank, ranks = reference("low_rank"), (1, 2, 4, 8, 16, 32, 64, 128)

    def carrying(model: nn.Module, weights: dict[str, Tensor]) -> float:
        """Perplexité sur B du modèle dont les couches linéaires portent ces poids."""
        cut = copy.deepcopy(model)
        for name, layer in linear_layers(cut).items():
            layer.weight.data = weights[name].T.contiguous()
        return perplexities(cut, a=False)["B"]

    found: dict[str, Any] = {"base": perplexities(base)}
    for kind, prepare in {"tout": whole, "couches linéaires": linear_weights}.items():
        model = prepare(load_model("colibri"))
        train(model, windows(voice(), BATCH, LENGTH, seed=0), STEPS, lr=LR["tout"])
        changes = {name: weight_of(layer) - before[name] for name, layer in linear_layers(model).items()}
        found[kind] = {
            "entraînés": trained_numbers(model),
            "valeurs singulières": {
                n: [float(f"{v:.4g}") for v in torch.linalg.svdvals(d)] for n, d in changes.items()
            },
            "après": perplexities(model),
            "sans ΔW": carrying(model, before),
            "ΔW de rang r": {
                r: carrying(model, {n: before[n] + low_rank(d, r)[0] for n, d in changes.items()}) for r in ranks
            },
        }
    found["W de rang r"] = {r: carrying(base, {n: low_rank(w, r)[0] for n, w in before.items()}) for r in (32, 64, 128)}
    return found


def rangs(found: dict) -> Any:
    """Le rang, sur toutes les couches linéaires ; trois graines partout où les courbes se touchent."""
    runs = {
        str(r): [fit(lambda m, r=r: with_lora(m, r, 2 * r), LR["LoRA"], s, a=False) for s in seeds]
        for r, seeds in ((1, SEEDS), (4, SEEDS), (64, SEEDS))
    }
    return runs


def cibles(_: dict) -> Any:
    """Où poser LoRA, à nombre de paramètres égal (environ 12 300 par bloc)."""
    places = {"c_attn": (16, ("c_attn",)), "c_proj": (9, ("c_proj",)), "c_fc": (13, ("c_fc",))}
    return {
        name: [fit(lambda m, r=r, k=k: with_lora(m, r, 2 * r, k), LR["LoRA"], s, a=False) | {"rang": r} for s in SEEDS]
        for name, (r, k) in places.items()
    }


def _start(kind: str) -> Callable[[nn.Module], nn.Module]:
    """LoRA dont le départ est changé : ce que valent A et B avant le premier pas."""

    def prepare(model: nn.Module) -> nn.Module:
        with_lora(model)
        for name, p in model.named_parameters():
            if "lora_A" in name and "A = 0" in kind:
                nn.init.zeros_(p)
            if "lora_B" in name and "B gaussienne" in kind:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)
        return model

    return prepare


def departs(_: dict) -> Any:
    """Quatre départs, mêmes lots."""
    kinds = {
        "A gaussienne, B = 0": SEEDS,
        "A = 0, B gaussienne": SEEDS,
        "A = 0, B = 0": (0,),
        "A et B gaussiennes": (0,),
    }
    return {
        kind: [
            fit(_start(kind if kind != "A et B gaussiennes" else "B gaussienne"), LR["LoRA"], s, 60, False) for s in ss
        ]
        for kind, ss in kinds.items()
    }


def alphas(_: dict) -> Any:
    """Le facteur devant BA, divisé par r ou par racine de r, et égal à celui de `rangs` pour r = 8."""
    rules = {"α/r": lambda r: ALPHA, "α/√r": lambda r: ALPHA * (r / RANK) ** 0.5}
    return {
        rule: {str(r): fit(lambda m, r=r, f=f: with_lora(m, r, f(r)), LR["LoRA"], 0, a=False)["B"] for r in (1, 64)}
        for rule, f in rules.items()
    }


def qlora(_: dict) -> Any:
    """Une base sur 4 bits, arrondie en NF4 ou régulièrement, puis LoRA en FP32 par-dessus."""
    found = {}
    for name, rule in {"NF4": nf4, "int4": int4}.items():
        base = load_model("colibri")
        before = {n: weight_of(layer).clone() for n, layer in linear_layers(base).items()}
        rounded(base, rule)
        after = {n: weight_of(layer) for n, layer in linear_layers(base).items()}
        found[name] = {
            "erreur relative": {n: round(float((after[n] - w).norm() / w.norm()), 5) for n, w in before.items()},
            "emploi des codes": code_usage(name, list(before.values())),
            "avant": perplexities(base),
            "après": [fit(lambda m, rule=rule: with_lora(rounded(m, rule)), LR["LoRA"], s) for s in SEEDS],
        }
    return found


def code_usage(name: str, weights: list[Tensor]) -> list[float]:
    """Part des poids qui prennent chaque code, par blocs de 64."""
    if name == "NF4":
        codes = torch.cat([reference("nf4_quantize")(w, 64)[0] for w in weights]).long()
    else:
        blocks = torch.cat([w.reshape(-1, 64) for w in weights])
        codes = (torch.round(7 * blocks / blocks.abs().amax(dim=1, keepdim=True)) + 7).long().flatten()
    return [round(float(v), 5) for v in torch.bincount(codes, minlength=16) / len(codes)]


def langue(_: dict) -> Any:
    """Les méthodes sur la modélisation de B (QLoRA est dans l'expérience du même nom)."""
    return {m: [fit(METHODS[m][0], LR[METHODS[m][1]], s) for s in SEEDS] for m in METHODS if m != "QLoRA"}


def classes(_: dict) -> Any:
    """Les méthodes sur la classification."""
    return {m: [classify(m, LR_CLASSES[METHODS[m][1]], s) for s in SEEDS] for m in METHODS}


def courbes(_: dict) -> Any:
    """Perplexité après chaque passage sur les mêmes 256 fenêtres, avec et sans cache des couches gelées."""
    ids = next(windows(voice(), 256, LENGTH, seed=7))
    epochs, found = 5, {}
    plans = {
        "tout": (whole, "tout", None),
        "LoRA partout": (with_lora, "LoRA", None),
        "LoRA en haut": (lambda m: only_top(with_lora(m)), "LoRA", None),
        "LoRA en haut, cache": (lambda m: only_top(with_lora(m)), "LoRA", TOP),
        "tête, cache": (head, "tête", 0),
    }
    for name, (prepare, family, top) in plans.items():
        torch.manual_seed(0)
        model, points = prepare(load_model("colibri")), []
        loss: Callable[..., Tensor] = lm_loss if top is None else cached_loss(top)
        inputs = None if top is None else hidden_before(model, ids, top)

        def note(i: int, model: nn.Module = model, points: list = points) -> None:
            if (i + 1) % (len(ids) // BATCH) == 0:
                points.append(perplexities(model, a=False)["B"])

        train(model, passes(ids, inputs, BATCH, seed=0), epochs * len(ids) // BATCH, LR[family], loss, after_step=note)
        found[name] = {"entraînés": trained_numbers(model), "B": points}
        if inputs is not None:
            found[name]["octets du cache"] = inputs.numel() * inputs.element_size()
    return {"fenêtres": len(ids), "jetons par fenêtre": LENGTH, "passages": epochs, "méthodes": found}


class Packed(nn.Module):
    """Une couche dont le poids est gardé en NF4, deux codes par octet, et relu à chaque passage."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        w = weight_of(layer)
        self.shape, self.bias = w.shape, nn.Parameter(layer.bias.detach(), requires_grad=False)
        codes, absmax = reference("nf4_quantize")(w, 64)
        self.register_buffer("codes", codes[0::2] | (codes[1::2] << 4))
        self.register_buffer("absmax", absmax)
        self.register_buffer("levels", SOLVED.namespace["NF4_LEVELS"].to(w))
        self.register_buffer("weight", w.new_zeros(1).expand(w.shape[1], w.shape[0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.stack([self.codes & 15, self.codes >> 4], dim=-1)
        w = (self.levels[codes.long()].reshape(-1, 64) * self.absmax[:, None]).reshape(self.shape)
        return nn.functional.linear(x, w, self.bias)


SHAPES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], int, int]] = {
    "Colibri": (lambda: load_model("colibri"), (BATCH, LENGTH), TOP, 5),
    "GPT-2 small (poids au hasard)": (gpt2_shape, (1, 128), 3, 2),
}
"""Nom → (modèle, fenêtres × jetons d'un pas, blocs du haut, répétitions)."""


def _plans(top: int) -> dict[str, tuple[Callable[[nn.Module], nn.Module], int | None]]:
    """Nom → (ce qui prépare le modèle, nombre de blocs refaits au-dessus du cache, None sans cache)."""
    return {
        "tout": (whole, None),
        "adaptateurs": (adapters, None),
        "LoRA partout": (with_lora, None),
        "QLoRA (NF4 relu à chaque pas)": (lambda m: with_lora(_packed(m)), None),
        "LoRA en haut": (lambda m: only_top(with_lora(m), top), None),
        "LoRA en haut, cache": (lambda m: only_top(with_lora(m), top), top),
        "tête": (head, None),
        "tête, cache": (head, 0),
    }


def _some_ids(model: nn.Module, rows: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, (rows, length), generator=generator).to(device())


def temps(_: dict) -> Any:
    """Durée d'un pas, avec ou sans cache, et d'une fenêtre d'inférence, avec et sans fusion, à deux tailles."""
    found: dict[str, Any] = {"pas": {}, "inférence": {}, "remplir le cache": {}, "quatre fenêtres": {}}
    for shape, (make, (rows, length), top, repeats) in SHAPES.items():
        base = make()
        ids, lines = _some_ids(base, rows, length), {}
        for name, (prepare, kept) in _plans(top).items():
            began = time.perf_counter()
            torch.manual_seed(0)
            model = prepare(copy.deepcopy(base))
            batch: Any = ids if kept is None else (hidden_before(model, ids, kept), ids)
            lines[name] = step_times(model, batch, lm_loss if kept is None else cached_loss(kept), repeats)
            if kept is not None:
                spent = median_seconds(lambda m=model, w=ids, k=kept: hidden_before(m, w, k), repeats, 1)
                found["remplir le cache"][f"{shape}, {name}"] = round(1000 * spent, 2)
            del model
            print(f"  {shape}, {name} : {number(time.perf_counter() - began, decimals=1, unit='s')}", flush=True)
        found["pas"][shape] = {"fenêtres": rows, "jetons": length, "blocs du haut": top, "méthodes": lines}
        found["inférence"][shape] = _inference(base, ids, repeats)
    for name in ("tout", "LoRA partout"):  # GPT-2 encore, avec quatre fois plus de jetons par pas
        model = _plans(3)[name][0](copy.deepcopy(base))
        found["quatre fenêtres"][name] = step_times(model, _some_ids(base, 4, 128), lm_loss, 1)
        del model
    return found


def _packed(model: nn.Module) -> nn.Module:
    for block in model.transformer.h:
        for owner, names in ((block.attn, ("c_attn", "c_proj")), (block.mlp, ("c_fc", "c_proj"))):
            for name in names:
                setattr(owner, name, Packed(getattr(owner, name)))
    return model


@torch.inference_mode()
def _inference(base: nn.Module, ids: Tensor, repeats: int) -> dict[str, float]:
    """ms pour une fenêtre et pour un seul jeton, modèle nu, LoRA à part, adaptateurs."""
    models = {
        "base, ou LoRA fusionné": base,
        "LoRA à part": with_lora(copy.deepcopy(base)),
        "adaptateurs": adapters(copy.deepcopy(base)),
    }
    rows: dict[str, Any] = {}
    for name, model in models.items():
        whole_window = median_seconds(lambda m=model: m(ids[:1], use_cache=False), 2 * repeats + 1, 2)
        one_token = median_seconds(lambda m=model: m(ids[:1, :1], use_cache=False), 4 * repeats + 1, 2)
        rows[name] = {"fenêtre": round(1000 * whole_window, 2), "un jeton": round(1000 * one_token, 2)}
    return rows


def choose_rates(found: dict[str, Any]) -> None:
    """Retient, pour chaque famille, le pas d'apprentissage que le réglage a préféré."""
    LR.update({m: float(min(line, key=line.get)) for m, line in found.get("reglage", {}).items()})
    LR_CLASSES.update({m: float(max(line, key=line.get)) for m, line in found.get("reglage_classes", {}).items()})


def with_rates(measure: Callable[[dict[str, Any]], Any]) -> Any:
    """La mesure, aux pas d'apprentissage que le réglage a préférés ; s'il est la mesure, ce sont les nouveaux."""
    found = recorded_measures(CHAPTER)
    choose_rates(found)
    value = measure(found)
    choose_rates(found | {measure.__name__: value})
    return value


EXPERIMENTS: dict[str, Callable[[], Any]] = {
    f.__name__: partial(with_rates, f)
    for f in (reglage, reglage_classes, delta, rangs, cibles, departs, alphas, qlora, langue, classes, courbes, temps)
}

if __name__ == "__main__":
    run_measures(CHAPTER, RECIPE, EXPERIMENTS)
