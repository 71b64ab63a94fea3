"""Chapitre 1, quatrième partie : mesurer la surprise, générer du texte, et ce que le cache K/V fait gagner."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier import passed
from atelier.display import _display, note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch1.tokens import token_text
from atelier.figures.common.controls import Shown, Slider, explore, live, show_live
from atelier.figures.common.style import BLUE, ORANGE, SERIES, canvas, french
from atelier.hardware import beside, home
from atelier.perplexity import END
from atelier.text import NBSP, byte_size, number, percent, plural

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


# --- La surprise ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def surprises(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> tuple[Tensor, Tensor]:
    """Jetons d'un texte (T,) et surprise de chacun, −log₂ p, en bits (T,). Le premier est deviné d'après rien."""
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(END), *tokenizer(text)["input_ids"]]], device=home(model))
    logits = model(ids, use_cache=False).logits[0, :-1].float()
    return ids[0, 1:], F.cross_entropy(logits, ids[0, 1:], reduction="none") / math.log(2)


def _tint(share: float) -> str:
    """Du blanc (0) à l'orange (1), opaque : l'encre noire s'y lit dans le thème sombre aussi."""
    return "#" + "".join(f"{round(255 + share * (c - 255)):02X}" for c in (230, 159, 0))


def _surprise_markup(names: Sequence[str], bits: Sequence[float]) -> str:
    """Chaque jeton au-dessus de sa surprise : le fond fonce et le trait du bas épaissit avec elle."""
    cells = "".join(
        f'<span style="display:inline-block;text-align:center;margin:2px;color:#111;'
        f"background:{_tint(min(b / 14, 1))};border-bottom:{1 + round(min(b, 14) / 2)}px solid #333;"
        f'padding:.1em .2em"><span style="font-family:monospace">{html.escape(n)}</span><br>'
        f"<small>{number(b, decimals=1)}</small></span>"
        for n, b in zip(names, bits, strict=True)
    )
    return f'<div style="line-height:1.3">{cells}</div>'


def _surprise(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> Shown:
    ids, bits = surprises(model, tokenizer, text)
    names, values = [token_text(tokenizer, i) for i in ids.tolist()], bits.tolist()
    worst = sorted(zip(values, names, strict=True), reverse=True)[:3]
    average = mean(values)
    summary = (
        f"Surprise moyenne{NBSP}: {number(average, decimals=2)} bits par jeton, soit "
        f"{number(average * math.log(2), decimals=2)} nats, et une perplexité de "
        f"{number(2**average, decimals=1)} sur cette phrase. Les plus surprenants{NBSP}: "
        + ", ".join(f"«{NBSP}{n}{NBSP}» ({number(b, decimals=1)} bits)" for b, n in worst)
        + "."
    )
    plain = " ".join(f"{n}[{number(b, decimals=1)}]" for n, b in zip(names, values, strict=True))
    return f"{_surprise_markup(names, values)}<p>{html.escape(summary)}</p>", f"{plain}\n{summary}"


def surprise_text(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> None:
    """La surprise de chaque jeton d'une phrase, en bits : écrite sous le jeton, et montrée par le fond et le trait."""
    if not live():
        _display(*_surprise(model, tokenizer, text))
        return
    import ipywidgets as w

    start = _surprise(model, tokenizer, text)
    typed = w.Text(text, description="Texte", continuous_update=False, layout=w.Layout(width="95%"))
    shown = w.HTML(start[0])

    def refresh(change: dict[str, Any]) -> None:
        if change["new"].strip():
            shown.value = _surprise(model, tokenizer, change["new"])[0]

    typed.observe(refresh, "value")
    show_live(w.VBox([typed, shown]), start)


def plot_surprise_by_rank(found: Mapping[tuple[int, int], Sequence[float]]) -> None:
    """Surprise moyenne selon le nombre de jetons déjà lus. found : (du rang, au rang) → bits, groupe par groupe."""
    names = [f"{low}" if low == high else f"{low} à {high}" for low, high in found]
    means = [mean(values) for values in found.values()]
    fig, ax = canvas(7.6, 3.2)
    ax.plot(range(len(means)), means, lw=1.8, **SERIES[0])
    spread = [[m - min(v) for m, v in zip(means, found.values(), strict=True)],
              [max(v) - m for m, v in zip(means, found.values(), strict=True)]]  # fmt: skip
    ax.errorbar(range(len(means)), means, yerr=spread, fmt="none", ecolor=BLUE, alpha=0.5, capsize=3)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel("nombre de jetons déjà lus dans la fenêtre")
    ax.set_ylabel("surprise moyenne (bits)")
    french(ax, x=False)
    told = ", ".join(f"{number(m, decimals=1)} après {n}" for m, n in zip(means, names, strict=True))
    show(
        fig,
        alt=f"Surprise moyenne d'un jeton, en bits, selon le nombre de jetons déjà lus : {told}. Les barres vont du "
        f"plus petit au plus grand de {plural(len(next(iter(found.values()))), 'groupe')} de fenêtres.",
    )


def plot_protocols(found: Mapping[Any, Any]) -> float:
    """La perplexité du même extrait selon le contexte et le pas. Rend la plus grande divisée par la plus petite.

    found : (« vous », contexte, contexte) → perplexité ; (« protocole », contexte, pas) → pertes et secondes ;
    « jetons », la longueur de l'extrait.
    """
    runs = {key: value for key, value in found.items() if key != "jetons"}
    values = {key: run if key[0] == "vous" else perplexity_of(run["pertes"]) for key, run in runs.items()}
    contexts = sorted({n for _, n, _ in runs})
    fig, ax = canvas(7.6, 3.6)
    series = {"votre fonction, fenêtres séparées": [values["vous", n, n] for n in contexts]}
    for k, name in ((1, "protocole, pas = contexte"), (2, "protocole, pas = contexte / 2")):
        series[name] = [values["protocole", n, n // k] for n in contexts]
    for (label, points), look in zip(series.items(), SERIES, strict=False):
        ax.plot(contexts, points, label=label, lw=1.7, **look)
    ax.set_xscale("log", base=2)
    ax.set_xticks(contexts, [number(n) for n in contexts])
    ax.set_xlabel("contexte (jetons, échelle logarithmique)")
    ax.set_ylabel("perplexité")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"{label} : " + ", ".join(f"{number(p, decimals=1)} à {n}" for n, p in zip(contexts, points, strict=True))
        for label, points in series.items()
    )
    show(fig, alt=f"Perplexité du même extrait selon le contexte. {told}.")
    rows = []
    for n in contexts:
        row: list[Any] = [plural(n, "jeton"), number(values["vous", n, n], decimals=2)]
        for stride in (n, n // 2, n // 4):
            found_here = values.get(("protocole", n, stride))
            row.append("—" if found_here is None else number(found_here, decimals=2))
        rows.append(row)
    table(
        rows,
        header=["contexte", "votre fonction", "pas = contexte", "pas = contexte / 2", "pas = contexte / 4"],
        caption=f"Perplexité sur le même extrait de {number(found['jetons'])} jetons, d'autres protocoles",
    )
    longest = contexts[-1]
    steps = [found["protocole", longest, longest // k] for k in (1, 2, 4)]
    gains = [paired(b["pertes"], a["pertes"]).as_ratio() for a, b in ((steps[0], steps[1]), (steps[1], steps[2]))]
    note(
        f"De {number(min(values.values()), decimals=2)} à {number(max(values.values()), decimals=2)} sans toucher au "
        f"modèle. Au contexte de {longest}, un pas deux fois plus court : {gains[0]} ; deux fois plus court encore : "
        f"{gains[1]} (à 95 %). Durées : {', '.join(number(s['secondes'], 2, unit='s') for s in steps)}."
    )
    return max(values.values()) / min(values.values())


# --- Générer ----------------------------------------------------------------------------------------------------------


def texts_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Les suites de quelques amorces par la fonction du lecteur. found : amorce → texte, et si c'est le même."""
    rows = [[prompt, _one_line(entry["texte"])] for prompt, entry in found.items()]
    table(rows, header=["amorce", "les jetons suivants, par votre fonction"])
    note(
        "Ce sont exactement les jetons de model.generate(do_sample=False)."
        if all(entry["le même"] for entry in found.values())
        else "Ce ne sont pas les jetons de model.generate(do_sample=False) : deux logits presque égaux, peut-être."
    )


def _one_line(text: str) -> str:
    """Un texte dont les fins de ligne se voient, pour une case de tableau."""
    return text.strip().replace("\n", " ⏎ ")


Sampler = Callable[..., Tensor]


def explore_sampling(found: Mapping[str, Any], sampling_probs: Sampler, tokenizer: Any) -> None:
    """Avant et après réglage, pour chaque début ; les curseurs vivent quand `sampling_probs` passe son check.

    found : début → logits (V,) et probabilités (V,) après le réglage ; « réglage » : température, top-k, top-p.
    """
    openings = {text: entry for text, entry in found.items() if text != "réglage"}
    temperature, top_k, top_p = found["réglage"]

    def draw(temperature: float, top_k: int, top_p: float) -> tuple[Any, str]:
        after = {
            text: sampling_probs(entry["logits"], temperature, top_k or None, top_p) for text, entry in openings.items()
        }
        return _two_distributions(openings, after, tokenizer)

    if not passed(sampling_probs):
        after = {text: entry["probabilités"] for text, entry in openings.items()}
        fig, alt = _two_distributions(openings, after, tokenizer)
        show(fig, alt=alt)
        return
    explore(
        draw,
        temperature=Slider(temperature, 0.05, 2.0, 0.05, "température"),
        top_k=Slider(top_k, 0, 200, 1, "top-k (0 : tous)"),
        top_p=Slider(top_p, 0.05, 1.0, 0.05, "top-p"),
    )


def _two_distributions(
    openings: Mapping[str, Mapping[str, Tensor]], after: Mapping[str, Tensor], tokenizer: Any, k: int = 10
) -> tuple[Any, str]:
    fig, axes = canvas(9.6, 3.2, columns=len(openings), sharey=True)
    told = []
    for ax, (text, entry) in zip(axes, openings.items(), strict=True):
        plain, kept = torch.softmax(entry["logits"].float(), -1), after[text].float()
        shown = plain.topk(k).indices.tolist()
        names = [token_text(tokenizer, i) for i in shown]
        before, now = [[100 * p[i].item() for i in shown] for p in (plain, kept)]
        x = torch.arange(k)
        ax.bar(x - 0.2, before, 0.38, color="white", edgecolor="#444444", hatch="//", label="données par le modèle")
        ax.bar(x + 0.2, now, 0.38, color=BLUE, label="après vos réglages")
        ax.set_xticks(x.tolist(), names, rotation=40, ha="right", rotation_mode="anchor", family="monospace")
        french(ax, x=False)
        alive = int((kept > 0).sum())
        ax.set_title(f"« {text} … »\n{plural(alive, 'jeton possible', 'jetons possibles')}", fontsize=10)
        pairs = ", ".join(
            f"« {n} » {number(a, decimals=1)} puis {number(b, decimals=1)} %"
            for n, a, b in zip(names, before, now, strict=True)
        )
        told.append(f"après « {text} », {plural(alive, 'jeton possible', 'jetons possibles')} : {pairs}")
    axes[0].set_ylabel("probabilité (%)")
    axes[-1].legend(frameon=False, fontsize=9)
    return fig, f"Probabilités du jeton suivant, avant et après les réglages ; {' ; '.join(told)}."


Continue = Callable[..., Tensor]


def play(
    model: GPT2LMHeadModel, tokenizer: Any, write_on: Continue, sampling_probs: Sampler, prompt: str, n_new: int = 40
) -> None:
    """Trois suites de l'amorce, tirées par `write_on(model, ids, n_new, seed, temperature=…, top_k=…, top_p=…)`.

    Dans un carnet vivant, l'amorce et les réglages se changent. Rien tant que `sampling_probs` ne passe pas son check.
    """
    if not passed(sampling_probs):
        note("Ici, Colibri écrira avec votre sampling_probs, quand elle passera son check.")
        return

    def texts(prompt: str, seed: int, temperature: float, top_k: int, top_p: float) -> Shown:
        ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
        room = max(1, min(n_new, model.config.n_positions - ids.shape[1]))
        out = write_on(model, ids.expand(3, -1), room, seed, temperature=temperature, top_k=top_k or None, top_p=top_p)
        return _written(prompt, [tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True) for row in out])

    start = {"seed": 0, "temperature": 0.8, "top_k": 40, "top_p": 0.95}
    shown = texts(prompt, **start)  # type: ignore[arg-type]
    if not live():
        _display(*shown)
        return
    import ipywidgets as w

    typed = w.Text(prompt, description="Amorce", continuous_update=False, layout=w.Layout(width="95%"))
    handles = {
        "seed": Slider(0, 0, 50, 1, "tirage").widget(),
        "temperature": Slider(0.8, 0.05, 2.0, 0.05, "température").widget(),
        "top_k": Slider(40, 0, 200, 1, "top-k (0 : tous)").widget(),
        "top_p": Slider(0.95, 0.05, 1.0, 0.05, "top-p").widget(),
    }
    body = w.HTML(shown[0])

    def refresh(_: Any) -> None:
        if typed.value.strip():
            body.value = texts(typed.value, **{name: h.value for name, h in handles.items()})[0]

    for handle in (typed, *handles.values()):
        handle.observe(refresh, "value")
    row = w.HBox(list(handles.values()), layout=w.Layout(flex_flow="row wrap"))
    show_live(w.VBox([typed, row, body]), shown)


def _written(prompt: str, texts: Sequence[str]) -> Shown:
    style = "white-space:pre-wrap"
    items = "".join(f'<li style="{style}">{html.escape(prompt)}<strong>{html.escape(t)}</strong></li>' for t in texts)
    return f"<ol>{items}</ol>", "\n".join(f"{i}. {prompt}{t}" for i, t in enumerate(texts, 1))


def settings_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Ce que Colibri pense de ce qu'il écrit. found : réglage → perplexités, variété (par début), premier texte."""
    n = len(next(iter(found.values()))["perplexités"])
    rows = [
        [
            name,
            _one_line(entry["texte"]),
            number(_typical(entry["perplexités"]), decimals=1),
            percent(mean(entry["variété"]), decimals=0),
        ]
        for name, entry in found.items()
    ]
    table(
        rows,
        header=["suite", "la première", "perplexité, par Colibri", "paires de jetons distinctes"],
        caption=f"{plural(n, 'début')} de textes ; perplexité des suites réunies",
    )


def _typical(perplexities: Sequence[float]) -> float:
    """La perplexité de suites de même longueur, réunies : l'exponentielle de la perte moyenne."""
    return math.exp(mean(map(math.log, perplexities)))


def least_perplexing(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Le texte auquel Colibri donne la plus petite perplexité, dit comme dans le pari."""
    said = {"le vrai texte": "au vrai texte", "glouton": "à ce qu'il écrit en glouton"}
    best = min(found, key=lambda name: _typical(found[name]["perplexités"]))
    return said.get(best, "à ce qu'il tire à la température 1")


# --- Le cache K/V -----------------------------------------------------------------------------------------------------


def plot_cache_times(found: Mapping[int, Mapping[str, Sequence[float]]]) -> float:
    """Temps d'un jeton de plus selon la longueur, avec et sans cache. Rend le rapport à la plus grande longueur.

    found : jetons déjà écrits → « avec », « sans » : secondes de chaque appel.
    """
    lengths = list(found)
    fig, ax = canvas(6.8, 3.4)
    looks = {"avec": ("avec le cache", SERIES[0]), "sans": ("sans : tout relu", SERIES[1] | {"color": ORANGE})}
    for kind, (label, look) in looks.items():
        middle = [1000 * median(found[n][kind]) for n in lengths]
        low, high = (
            [1000 * sorted(found[n][kind])[int(q * len(found[n][kind]))] for n in lengths] for q in (0.25, 0.75)
        )
        ax.plot(lengths, middle, label=label, lw=1.8, **look)
        ax.fill_between(lengths, low, high, alpha=0.2, color=look["color"])
    ax.set_xlabel("jetons déjà écrits")
    ax.set_ylabel("ms pour un jeton de plus")
    ax.set_ylim(0)
    french(ax)
    ax.legend(frameon=False, fontsize=9)
    middles = {n: {kind: median(v) for kind, v in times.items()} for n, times in found.items()}
    told = ", ".join(
        f"à {n} jetons {number(1000 * t['avec'], decimals=1)} ms avec et {number(1000 * t['sans'], decimals=1)} sans"
        for n, t in middles.items()
    )
    show(fig, alt=f"Temps d'un jeton de plus selon la longueur, avec et sans cache (bandes : quartiles). {told}.")
    ratios = {n: t["sans"] / t["avec"] for n, t in middles.items()}
    longest, shortest = max(lengths), min(lengths)
    growth = [middles[longest][kind] / middles[shortest][kind] for kind in ("avec", "sans")]
    note(
        f"Médianes de {plural(len(found[longest]['avec']), 'appel')}. De {shortest} à {longest} jetons déjà écrits, le "
        f"temps d'un jeton est multiplié par {number(growth[0], decimals=1)} avec le cache, par "
        f"{number(growth[1], decimals=1)} sans lui. À {longest} jetons, relire coûte "
        f"{number(ratios[longest], decimals=1)} fois le temps du cache."
    )
    return ratios[longest]


def cache_tables(found: Mapping[str, Mapping[Any, Any]]) -> None:
    """Octets du cache comptés par le lecteur et mesurés sur le vrai, puis le même compte pour de grands modèles."""
    rows = [
        [plural(n, "jeton"), entry["compté"], entry["mesuré"], entry["compté"] - entry["mesuré"]]
        for n, entry in found["Colibri"].items()
    ]
    table(
        rows,
        header=["cache de Colibri", "octets comptés par vous", "octets mesurés", "écart"],
        caption="Cache K/V d'une phrase",
    )
    rows = [
        [name, entry["contexte"], *(byte_size(n) for n in entry["octets"])] for name, entry in found["grands"].items()
    ]
    table(
        rows,
        header=["modèle", "contexte", "par jeton", "une phrase, contexte plein", "32 phrases"],
        caption="Le même compte, en 16 bits",
    )
