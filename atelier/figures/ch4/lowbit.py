"""Chapitre 4 : un Colibri sur 2 ou 3 bits, réparé par une courte distillation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import GPT2LMHeadModel

from atelier.display import note, recorded, show, table
from atelier.figures.ch4 import students as st
from atelier.figures.ch4.lessons import (
    CHAPTER,
    Build,
    Lessons,
    measures,
    missing,
    recorded_by_author,
    source,
    unread,
)
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.files import announce, file_bytes, plain_tensors
from atelier.figures.common.layers import linear_layers
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.measures import load_measures
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, spread
from atelier.variants import rows as board_rows
from atelier.variants import save_variant


class Rounded(nn.Module):
    """Le poids (entrée, sortie) d'une couche, arrondi à chaque usage, avec une échelle par sortie (absmax).

    `torch.fake_quantize_per_channel_affine` rend au poids le gradient de sa valeur arrondie, sans le changer : c'est
    l'estimateur direct (*straight-through estimator*).
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.top = 2 ** (bits - 1) - 1

    def forward(self, w: Tensor) -> Tensor:
        peak = torch.linalg.vector_norm(w.detach(), torch.inf, dim=0)
        steps = torch.where(peak > 0, peak / self.top, 1.0)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(w, steps, zeros, 1, -self.top - 1, self.top)


def rounded_copy(model: GPT2LMHeadModel, bits: int) -> GPT2LMHeadModel:
    """Une copie dont les couches linéaires calculent sur `bits` bits ; les poids qui apprennent restent en FP32."""
    copied = copy.deepcopy(model)
    for layer in linear_layers(copied).values():
        parametrize.register_parametrization(layer, "weight", Rounded(bits))
    return copied


def settle(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Remplace, sur place, chaque poids par sa valeur arrondie : de nouveau un GPT-2 ordinaire."""
    for layer in linear_layers(model).values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model


# --- Arrondir, puis réparer ---------------------------------------------------------------------------------------


def straight_through(bits: int = 3) -> None:
    """L'escalier de l'arrondi, sa vraie pente, et celle qu'on lui prête ; `bits` se règle au curseur."""
    x = torch.linspace(-1, 1, 801)

    def draw(bits: int) -> tuple[Any, str]:
        top = 2 ** (bits - 1) - 1
        y = torch.round(x * top) / top
        fig, (left, right) = canvas(8.4, 2.9, columns=2)
        left.plot(x, x, color=BLACK, lw=1, linestyle=":", label="poids gardé")
        left.plot(x, y, color=BLUE, lw=1.8, drawstyle="steps-mid", label="poids employé")
        left.legend(frameon=False, fontsize=8.5)
        right.plot(x, torch.zeros_like(x), color=BLUE, lw=1.8, label="vraie dérivée, presque partout")
        right.plot(x, torch.ones_like(x), color=RED, lw=1.8, linestyle="--", label="dérivée prêtée")
        right.set_ylim(-0.2, 1.6)
        right.legend(frameon=False, fontsize=8.5, loc="upper center", ncols=1)
        for ax in (left, right):
            ax.set_xlabel("poids (1 : le plus grand)")
            french(ax)
        left.set_ylabel("valeur")
        right.set_ylabel("dérivée")
        return fig, (
            f"À gauche, un escalier de {2 * top + 1} marches pour {bits} bits, autour de la diagonale. À droite, sa "
            "dérivée : 0 presque partout ; celle que l'estimateur direct lui prête : 1."
        )

    explore(draw, bits=Slider(bits, 2, 6, 1, "bits"))


@recorded("ch4/repair", needs=("combined",))
@recorded_by_author("trois_bits")
def repair(
    teacher: GPT2LMHeadModel, combined: st.Combined, bits: int, steps: int, tokens: int, lr: float
) -> GPT2LMHeadModel:
    """Colibri sur `bits` bits, réparé par une courte distillation (T = 1, étiquettes douces seules). Le rend."""
    broken = evaluate_perplexity(rounded_copy(teacher, bits), max_tokens=tokens).perplexity
    whole = evaluate_perplexity(teacher, max_tokens=tokens).perplexity
    student = rounded_copy(teacher, bits).requires_grad_(True)
    loss = st.taught(teacher, combined, 1.0, 1.0)
    lesson = st.teach(student, loss, steps, 7, f"réparation, {bits} bits", max(1, steps // 4), lr, tokens)
    _repair_figure(lesson, bits, teacher, tokens)
    kept = {b: key for b, key in {2: "deux_bits", 3: "trois_bits"}.items() if key in load_measures(CHAPTER)}
    rows: list[list[Any]] = [[f"{bits} bits, ici", broken, "—", number(lesson.perplexity, 3), steps, number(lr)]]
    for b, key in sorted(kept.items(), reverse=True):
        runs = measures(key)
        hard, soft = ([r["perplexité"] for r in runs[k]] for k in ("dures", "douces"))
        rows.append(
            [f"{b} bits, auteur", runs["arrondi"], spread(hard, 3), spread(soft, 3), runs["pas"], number(runs["taux"])]
        )
    table(
        rows,
        header=[
            "couches linéaires",
            "arrondi seul",
            "réparé, étiquettes dures",
            "réparé, étiquettes douces",
            "pas",
            "taux",
        ],
        caption=f"Perplexité sur {number(tokens)} jetons jamais lus ; Colibri entier : {number(whole, 4)} ({source()})",
    )
    same = (r["perplexity"] for r in board_rows() if r["name"] == "int4-gptq" and r["tokens"] == tokens)
    gptq = next(same, None)
    note(
        f"Réparé ici, {bits} bits : {number(lesson.perplexity / whole, 3)} fois la perplexité de Colibri."
        + (f" GPTQ sur 4 bits, au tableau du cours : {number(gptq / whole, 3)} fois." if gptq else "")
    )
    return settle(student)


def _repair_figure(lesson: st.Lesson, bits: int, teacher: GPT2LMHeadModel, tokens: int) -> None:
    whole = evaluate_perplexity(teacher, max_tokens=min(st.CURVE_TOKENS, tokens)).perplexity
    runs = measures({2: "deux_bits", 3: "trois_bits"}[bits])
    fig, ax = canvas(7.2, 3.3)
    for name, look in (("dures", SERIES[0]), ("douces", SERIES[1])):
        for k, run in enumerate(runs[name]):
            label = f"étiquettes {name}, auteur" if k == 0 else None
            ax.plot(*zip(*run["courbe"], strict=True), lw=1.0, label=label, **look | {"marker": ""})
    ax.plot(*zip(*lesson.curve, strict=True), color=RED, marker="*", ms=11, mec=BLACK, lw=1.8, label="douces, ici")
    ax.axhline(whole, color=BLACK, lw=1, linestyle=":")
    ax.text(0, whole, "Colibri entier", fontsize=8.5, va="bottom")
    ax.set_yscale("log")
    ax.set_yticks([8, 10, 15, 20, 30, 50])
    ax.set_xlabel("pas de réparation")
    ax.set_ylabel(unread(tokens))
    ax.legend(frameon=False, fontsize=8.5)
    french(ax)
    first, last = lesson.curve[0], lesson.curve[-1]
    show(
        fig,
        alt=f"Colibri sur {bits} bits pendant sa réparation, {unread(tokens)} : de {number(first[1], 3)} à "
        f"{number(last[1], 3)} en {last[0]} pas ; Colibri entier : {number(whole, 3)}.",
    )


# --- Les lignes du tableau ----------------------------------------------------------------------------------------


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Codes signés serrés bit à bit, dans un tenseur d'octets."""
    raw = codes.flatten().to(torch.int64).numpy() & (2**bits - 1)
    each = (raw[:, None] >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(each.astype(np.uint8)))


def _unpack(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """L'inverse de `_pack`."""
    each = np.unpackbits(packed.numpy())[: bits * shape.numel()].reshape(-1, bits).astype(np.int64)
    raw = (each << np.arange(bits)).sum(1)
    return torch.from_numpy(np.where(raw >= 2 ** (bits - 1), raw - 2**bits, raw)).reshape(shape)


def low_bit_file(model: GPT2LMHeadModel, bits: int) -> dict[str, Tensor]:
    """Le fichier d'un modèle aux poids déjà arrondis : codes serrés et échelles FP16, le reste en FP16."""
    layers = linear_layers(model)
    linear = {f"transformer.h.{n}.weight" for n in layers}
    stored = {k: p.detach().to("cpu", torch.float16) for k, p in model.named_parameters() if k not in linear}
    top = 2 ** (bits - 1) - 1
    for name, layer in layers.items():
        w = layer.weight.detach().cpu()
        steps = torch.linalg.vector_norm(w, torch.inf, dim=0) / top
        stored[f"{name}.q"] = _pack(torch.round(w / steps), bits)
        stored[f"{name}.s"] = steps.half()
    return {k: v.contiguous() for k, v in stored.items()}


def from_low_bit_file(model: GPT2LMHeadModel, stored: dict[str, Tensor], bits: int) -> GPT2LMHeadModel:
    """Le modèle que rend ce fichier : c'est lui qu'on évalue, arrondis en FP16 compris."""
    rebuilt = copy.deepcopy(model)
    own = dict(rebuilt.named_parameters())
    with torch.no_grad():
        for key in own.keys() & stored.keys():
            own[key].copy_(stored[key])
        for name, layer in linear_layers(rebuilt).items():
            codes = _unpack(stored[f"{name}.q"], bits, layer.weight.shape)
            layer.weight.copy_(codes * stored[f"{name}.s"].float())
    return rebuilt


@recorded("ch4/row_student", needs=("build", "combined"))
def row_student(lessons: Lessons | None, build: Build, combined: st.Combined) -> None:
    """Inscrit au tableau l'élève qui a appris des deux étiquettes, en FP16."""
    if missing(lessons):
        return
    student = copy.deepcopy(lessons["les deux"][0])
    stored = plain_tensors(student, torch.float16)
    with torch.no_grad():
        for name, p in student.named_parameters():
            p.copy_(stored[name])
    what = "élève de deux blocs, étiquettes dures et douces, FP16"
    announce(save_variant("eleve-2-blocs", student, file_bytes(stored), CHAPTER, what))


@recorded("ch4/row_repaired", needs=("combined",))
def row_repaired(repaired: GPT2LMHeadModel | None, combined: st.Combined, bits: int) -> None:
    """Inscrit au tableau le Colibri réparé, codes serrés bit à bit."""
    if repaired is None:
        note("Rien à inscrire : relancez d'abord la cellule qui répare Colibri.")
        return
    stored = low_bit_file(repaired, bits)
    rebuilt = from_low_bit_file(repaired, stored, bits)
    what = f"poids sur {bits} bits, par canal, réparés par distillation, calcul en FP32"
    announce(save_variant(f"int{bits}-distille", rebuilt, file_bytes(stored), CHAPTER, what))
