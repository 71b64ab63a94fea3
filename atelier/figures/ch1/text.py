"""Chapitre 1, quatrième partie : mesurer la surprise, générer du texte, et ce que le cache K/V fait gagner."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.display import _display, note, recorded, show, table
from atelier.figures.ch1.tokens import end_token, token_text
from atelier.figures.common.controls import Shown, live, picture, show_live
from atelier.figures.common.sizes import GPT3
from atelier.figures.common.style import BLUE, ORANGE, SERIES, canvas, french
from atelier.hardware import beside, card_memory, home, median_seconds
from atelier.models import GPT2_SIZES, gpt2_shape
from atelier.perplexity import encode_documents, evaluate_perplexity, extract
from atelier.text import NBSP, byte_size, number, percent, plural

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


# --- La surprise ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def surprises(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> tuple[Tensor, Tensor]:
    """Jetons d'un texte (T,) et surprise de chacun, −log₂ p, en bits (T,). Le premier est deviné d'après rien."""
    ids = torch.tensor([[end_token(tokenizer), *tokenizer(text)["input_ids"]]], device=home(model))
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
        f"<small>{number(round(b, 1), 3)}</small></span>"
        for n, b in zip(names, bits, strict=True)
    )
    return f'<div style="line-height:1.3">{cells}</div>'


def _surprise(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> Shown:
    ids, bits = surprises(model, tokenizer, text)
    names, values = [token_text(tokenizer, i) for i in ids.tolist()], bits.tolist()
    worst = sorted(zip(values, names, strict=True), reverse=True)[:3]
    mean = sum(values) / len(values)
    summary = (
        f"Surprise moyenne{NBSP}: {number(mean, 3)} bits par jeton, soit une perplexité de 2^{number(mean, 3)} = "
        f"{number(2**mean, 3)} sur cette phrase. Les plus surprenants{NBSP}: "
        + ", ".join(f"«{NBSP}{n}{NBSP}» ({number(b, 3)} bits)" for b, n in worst)
        + "."
    )
    plain = " ".join(f"{n}[{number(round(b, 1), 3)}]" for n, b in zip(names, values, strict=True))
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


@torch.inference_mode()
def surprise_by_rank(model: GPT2LMHeadModel, tokenizer: Any, n_windows: int) -> None:
    """Surprise moyenne selon le rang du jeton dans sa fenêtre : ce que le contexte apporte."""
    context = min(model.config.n_positions, 1024)
    ids = encode_documents(extract("a_validation"), tokenizer, n_windows * context)
    windows = ids[: len(ids) // context * context].reshape(-1, context)
    losses = []
    for batch in windows.split(16):
        batch = beside(model, batch)
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        targets = batch[:, 1:]
        losses.append(F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").cpu())
    bits = torch.cat(losses).mean(0) / math.log(2)
    n = len(bits)
    edges = [1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 128, 192, 256, 384, 512, 768, 1024]
    edges = [e for e in edges if e <= n] + [n + 1]
    middles, values = [], []
    for low, high in zip(edges, edges[1:], strict=False):
        middles.append((low + high - 1) / 2)
        values.append(bits[low - 1 : high - 1].mean().item())
    fig, ax = canvas(7.6, 3.2)
    ax.plot(middles, values, lw=1.8, **SERIES[0])
    ax.set_xscale("log")
    ax.set_xlabel("nombre de jetons déjà lus dans la fenêtre (échelle logarithmique)")
    ax.set_ylabel("surprise moyenne (bits)")
    french(ax)
    show(
        fig,
        alt=f"Surprise moyenne d'un jeton selon le nombre de jetons déjà lus{NBSP}: {number(values[0], 3)} bits après "
        f"un seul jeton, {number(values[len(values) // 2], 3)} après {number(middles[len(values) // 2], decimals=0)}, "
        f"{number(values[-1], 3)} vers la fin de la fenêtre ({len(windows)} fenêtres de {n + 1} jetons).",
    )
    note(
        f"Après un seul jeton{NBSP}: {number(values[0], 3)} bits. Après une trentaine{NBSP}: "
        f"{number(bits[24:40].mean().item(), 3)}. À la fin de la fenêtre{NBSP}: {number(values[-1], 3)}."
    )


@recorded("ch1/protocols", needs=("perplexity",))
@torch.inference_mode()
def protocols(model: GPT2LMHeadModel, tokenizer: Any, perplexity: Any, max_tokens: int = 4096) -> None:
    """La perplexité du même texte par la fonction de l'étudiant, fenêtre par fenêtre, et par le protocole."""
    longest = min(model.config.n_positions, 1024)
    text = encode_documents(extract("a_validation"), tokenizer, max_tokens)
    lengths = [longest // k for k in (16, 8, 4, 2, 1)]
    yours: dict[int, float] = {}
    for n in lengths:
        windows = beside(model, text[: len(text) // n * n].reshape(-1, n))
        yours[n] = float(perplexity(model(windows, use_cache=False).logits.float(), windows))
    evaluated = {
        (n, stride): evaluate_perplexity(
            model, max_tokens=max_tokens, context=n, stride=stride, batch_size=max(1, 4096 // n)
        )
        for n in lengths
        for stride in ((n, n // 2) if n < longest else (n, n // 2, n // 4))
    }
    fig, ax = canvas(7.6, 3.6)
    series = {
        "votre fonction, fenêtres séparées": yours,
        "protocole, pas = contexte": {n: e.perplexity for (n, s), e in evaluated.items() if s == n},
        "protocole, pas = contexte / 2": {n: e.perplexity for (n, s), e in evaluated.items() if s == n // 2},
    }
    for (label, points), look in zip(series.items(), SERIES, strict=False):
        ax.plot(list(points), list(points.values()), label=label, lw=1.7, **look)
    ax.set_xscale("log", base=2)
    ax.set_xticks(lengths, [number(n) for n in lengths])
    ax.set_xlabel("contexte (jetons, échelle logarithmique)")
    ax.set_ylabel("perplexité")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"{label}{NBSP}: " + ", ".join(f"{number(p, 4)} à {n}" for n, p in points.items())
        for label, points in series.items()
    )
    show(fig, alt=f"Perplexité du même extrait selon le contexte. {told}.")
    rows = [
        [f"{n} jetons", number(yours[n], 4)]
        + [
            f"{number(evaluated[n, s].perplexity, 4)} ({number(evaluated[n, s].seconds, 2)} s)"
            if (n, s) in evaluated
            else "—"
            for s in (n, n // 2, n // 4)
        ]
        for n in lengths
    ]
    table(
        rows,
        header=["contexte", "votre fonction", "pas = contexte", "pas = contexte / 2", "pas = contexte / 4"],
        caption=f"Le même modèle, les mêmes {number(len(text) - 1)} jetons, d'autres protocoles (durée)",
    )
    spread = [*yours.values(), *(e.perplexity for e in evaluated.values())]
    change = evaluated[longest, longest // 2].perplexity / evaluated[longest, longest].perplexity - 1
    note(
        f"De {number(min(spread), 4)} à {number(max(spread), 4)} sans toucher au modèle. Protocole du cours{NBSP}: "
        f"contexte de {longest}, pas de {longest // 2}. Au plus long contexte, diviser le pas par deux change la "
        f"perplexité de {percent(change, signed=True)}."
    )


# --- Générer ----------------------------------------------------------------------------------------------------------


@recorded("ch1/greedy_text", needs=("greedy",))
def greedy_text(model: GPT2LMHeadModel, tokenizer: Any, prompts: Sequence[str], greedy: Any, n_new: int = 40) -> None:
    """La suite la plus probable de quelques amorces par la fonction de l'étudiant, et celle de `model.generate`."""
    rows, equal = [], True
    for prompt in prompts:
        ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
        mine = greedy(model, ids, n_new)
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=n_new, max_new_tokens=n_new,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        equal &= torch.equal(mine, theirs)
        rows.append([prompt, _one_line(tokenizer.decode(mine[0, ids.shape[1] :]))])
    table(rows, header=["amorce", f"les {n_new} jetons suivants, par votre fonction"])
    note(
        "Ce sont exactement les jetons de model.generate(do_sample=False)."
        if equal
        else "Ce ne sont pas les jetons de model.generate(do_sample=False) : deux scores presque égaux, peut-être."
    )


def _one_line(text: str) -> str:
    """Un texte dont les fins de ligne se voient, pour une case de tableau."""
    return text.strip().replace("\n", " ⏎ ")


def _filtered(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Probabilités (V,) après température, puis top-k, puis top-p : l'ordre de transformers."""
    logits = logits / temperature
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(min(top_k, len(logits))).values[-1], -math.inf)
    p = torch.softmax(logits, dim=-1)
    ordered = p.sort(descending=True)
    dropped = ordered.values.cumsum(-1) - ordered.values >= top_p
    p = p.masked_fill(torch.zeros_like(dropped).scatter(0, ordered.indices, dropped), 0.0)
    return p / p.sum()


@torch.inference_mode()
def _play(
    model: GPT2LMHeadModel, tokenizer: Any, prompt: str, temperature: float, top_k: int, top_p: float, seed: int,
    n_new: int,
) -> tuple[Any, str, list[str]]:  # fmt: skip
    """La figure du premier tirage, son texte alternatif, et trois suites."""
    ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
    logits = model(ids, use_cache=False).logits[0, -1].float().cpu()
    plain, kept = torch.softmax(logits, -1), _filtered(logits, temperature, top_k, top_p)
    shown = plain.topk(12).indices.tolist()
    names = [token_text(tokenizer, i) for i in shown]
    fig, ax = canvas(8.4, 2.7)
    x = torch.arange(len(shown))
    before, after = [[100 * p[i].item() for i in shown] for p in (plain, kept)]
    ax.bar(x - 0.2, before, 0.38, color="white", edgecolor="#444444", hatch="//", label="données par le modèle")
    ax.bar(x + 0.2, after, 0.38, color=BLUE, label="après vos réglages")
    ax.set_xticks(x.tolist(), names, rotation=40, ha="right", rotation_mode="anchor", family="monospace")
    ax.set_ylabel("probabilité (%)")
    french(ax, x=False)
    alive = int((kept > 0).sum())
    ax.set_title(f"jeton suivant : {number(alive)} restent possibles sur {number(len(kept))}", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    told = ", ".join(
        f"«{NBSP}{n}{NBSP}» {number(a, 3)} puis {number(b, 3)} %" for n, a, b in zip(names, before, after, strict=True)
    )
    room = model.config.n_positions - ids.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(
            ids.expand(3, -1), attention_mask=torch.ones_like(ids).expand(3, -1), do_sample=True,
            temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max(1, min(n_new, room)),
            pad_token_id=model.config.eos_token_id,
        )  # fmt: skip
    texts = [tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True) for row in out]
    alt = (
        f"Après «{NBSP}{prompt}{NBSP}», à la température {number(temperature, 3)}, top-k {top_k}, "
        f"top-p {number(top_p, 3)}, {alive} jetons restent possibles. Probabilités avant et après{NBSP}: {told}."
    )
    return fig, alt, texts


def _written(prompt: str, texts: Sequence[str]) -> Shown:
    style = "white-space:pre-wrap"
    items = "".join(f'<li style="{style}">{html.escape(prompt)}<strong>{html.escape(t)}</strong></li>' for t in texts)
    return f"<ol>{items}</ol>", "\n".join(f"{i}. {prompt}{t}" for i, t in enumerate(texts, 1))


def play(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    prompt: str,
    temperature: float = 0.8,
    top_k: int = 40,
    top_p: float = 0.95,
    seed: int = 0,
    n_new: int = 40,
) -> None:
    """Trois suites tirées au sort, et la distribution d'où sort leur premier jeton. top_k = 0 : pas de top-k.

    Dans un carnet vivant, l'amorce et les réglages se changent ; ailleurs, la fonction suffit.
    """
    start: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    fig, alt, texts = _play(model, tokenizer, prompt, n_new=n_new, **start)
    if not live():
        show(fig, alt=alt)
        _display(*_written(prompt, texts))
        return
    import ipywidgets as w

    markup, plain = picture(fig, alt)
    written, written_plain = _written(prompt, texts)
    typed = w.Text(prompt, description="Amorce", continuous_update=False, layout=w.Layout(width="95%"))
    options = {"continuous_update": False, "style": {"description_width": "initial"}}
    handles = {
        "temperature": w.FloatSlider(temperature, min=0.05, max=2.0, step=0.05, description="température", **options),
        "top_k": w.IntSlider(top_k, min=0, max=200, step=1, description="top-k (0 : tous)", **options),
        "top_p": w.FloatSlider(top_p, min=0.05, max=1.0, step=0.05, description="top-p", **options),
        "seed": w.IntSlider(seed, min=0, max=50, step=1, description="tirage", **options),
    }
    image, body = w.HTML(markup), w.HTML(written)

    def refresh(_: Any) -> None:
        if not typed.value.strip():
            return
        values = {name: h.value for name, h in handles.items()}
        fig, alt, texts = _play(model, tokenizer, typed.value, n_new=n_new, **values)
        image.value, body.value = picture(fig, alt)[0], _written(typed.value, texts)[0]

    for handle in (typed, *handles.values()):
        handle.observe(refresh, "value")
    row = w.HBox(list(handles.values()), layout=w.Layout(flex_flow="row wrap"))
    show_live(w.VBox([typed, row, image, body]), (markup + written, f"{plain}\n{written_plain}"))


@torch.inference_mode()
def settings_compared(model: GPT2LMHeadModel, tokenizer: Any, prompt: str, n_new: int = 30) -> None:
    """La même amorce à quatre réglages : la suite, et la perplexité que le modèle lui-même lui donne."""
    settings = {
        "le plus probable": None,
        "T = 0,7, top-p 0,9": (0.7, 0, 0.9),
        "T = 1, sans filtre": (1.0, 0, 1.0),
        "T = 1,5, sans filtre": (1.5, 0, 1.0),
    }
    ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
    rows = []
    for name, values in settings.items():
        sampling: dict[str, Any] = {"do_sample": False}
        if values:
            sampling = {"do_sample": True} | dict(zip(("temperature", "top_k", "top_p"), values, strict=True))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            out = model.generate(
                ids.expand(4, -1), attention_mask=torch.ones_like(ids).expand(4, -1), pad_token_id=0, eos_token_id=None,
                min_new_tokens=n_new, max_new_tokens=n_new, **sampling,
            )  # fmt: skip
        logits = model(out, use_cache=False).logits[:, ids.shape[1] - 1 : -1].float()
        new = out[:, ids.shape[1] :]
        loss = F.cross_entropy(logits.transpose(1, 2), new).item()
        pairs = {(a, b) for row in new.tolist() for a, b in zip(row, row[1:], strict=False)}
        varied = len(pairs) / (new.shape[0] * (n_new - 1))
        rows.append([name, _one_line(tokenizer.decode(new[0])), number(math.exp(loss), 3), percent(varied, 3)])
    table(
        rows,
        header=["réglage", f"«{NBSP}{prompt} …{NBSP}»", "perplexité, par Colibri", "paires de jetons différentes"],
        caption="Quatre suites par réglage ; la première est montrée",
    )


# --- Le cache K/V -----------------------------------------------------------------------------------------------------


def _cache_after(model: GPT2LMHeadModel, n_tokens: int) -> Any:
    """Le cache d'un modèle qui a lu n_tokens jetons."""
    ids = torch.arange(n_tokens, device=home(model))[None] % model.config.vocab_size
    return model(ids, use_cache=True)[1]


def _bytes(cache: Any) -> int:
    return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))


@recorded("ch1/cache_bytes", needs=("cache_bytes",))
@torch.inference_mode()
def cache_sizes(model: GPT2LMHeadModel, cache_bytes: Any) -> None:
    """Octets du cache prédits par l'étudiant et mesurés sur le vrai, puis la même prédiction pour de grands modèles."""
    c = model.config
    width = next(model.parameters()).element_size()
    rows = []
    for n in (1, c.n_positions // 4, c.n_positions // 2, c.n_positions):
        predicted, measured = cache_bytes(c.n_layer, c.n_embd, n, 1, width), _bytes(_cache_after(model, n))
        rows.append([f"Colibri, {plural(n, 'jeton')}", predicted, measured, predicted - measured])
    table(
        rows,
        header=["cache", "octets prédits par vous", "octets mesurés", "écart"],
        caption=f"Cache K/V d'une phrase, {8 * width} bits par nombre",
    )
    shapes = {f"GPT-2 {name}": (layers, d, 1024) for name, (layers, d, _) in GPT2_SIZES.items()}
    shapes["GPT-3"] = (GPT3["n_layer"], GPT3["d_model"], GPT3["n_ctx"])
    rows = []
    for name, (layers, d, n) in shapes.items():
        one, full = cache_bytes(layers, d, 1), cache_bytes(layers, d, n)
        rows.append([name, n, byte_size(one), byte_size(full), byte_size(cache_bytes(layers, d, n, 32))])
    table(
        rows,
        header=["modèle", "contexte", "par jeton", "une phrase, contexte plein", "32 phrases"],
        caption="La même prédiction en 16 bits",
    )
    exact = cache_bytes(GPT3["n_layer"], GPT3["d_model"], GPT3["n_ctx"])
    note(
        f"Pour GPT-3, une seule phrase de {number(GPT3['n_ctx'])} jetons garde {number(exact)} octets, "
        f"soit {byte_size(exact)}."
    )


@torch.inference_mode()
def _step_times(model: GPT2LMHeadModel, n_tokens: int, repeats: int) -> tuple[float, float]:
    """Secondes pour produire le jeton qui suit n_tokens : avec le cache des n_tokens − 1 premiers, puis sans."""
    ids = torch.arange(n_tokens, device=home(model))[None] % model.config.vocab_size
    cache = _cache_after(model, n_tokens - 1)
    caches = iter([copy.deepcopy(cache) for _ in range(repeats + 1)])  # un cache grandit quand il sert
    with_cache = median_seconds(lambda: model(ids[:, -1:], next(caches), use_cache=True), repeats, warmup=1)
    without = median_seconds(lambda: model(ids, use_cache=False, logits_to_keep=1), repeats, warmup=1)
    return with_cache, without


def cache_times(model: GPT2LMHeadModel, lengths: Sequence[int], repeats: int = 7, size: str | None = None) -> None:
    """Temps pour produire un jeton de plus, avec et sans le cache, selon la longueur déjà écrite.

    size : mesure aussi un GPT-2 de cette taille, aux poids tirés au hasard (le temps n'en dépend pas).
    """
    models = {"Colibri": (model, [n for n in lengths if n <= model.config.n_positions])}
    if size:
        models[f"GPT-2 {size} (poids au hasard)"] = (gpt2_shape(size), list(lengths))
    fig, axes = canvas(4.6 * len(models) + 2.2, 3.4, columns=len(models), squeeze=False)
    rows, told = [], []
    for ax, (name, (m, wanted)) in zip(axes.flat, models.items(), strict=True):
        found = {n: _step_times(m, n, repeats) for n in wanted}
        for k, (label, color) in enumerate((("avec le cache", BLUE), ("sans : tout relu", ORANGE))):
            look = SERIES[0] | {"color": color} if k == 0 else SERIES[1] | {"color": color}
            ax.plot(wanted, [1000 * found[n][k] for n in wanted], label=label, lw=1.8, **look)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("jetons déjà écrits")
        ax.set_ylim(0)
        french(ax)
        for n, (fast, slow) in found.items():
            rows.append([name, n, number(1000 * fast, 3), number(1000 * slow, 3), number(slow / fast, 3)])
        told.append(
            f"{name}{NBSP}: "
            + ", ".join(
                f"à {n} jetons {number(1000 * a, 2)} ms avec et {number(1000 * b, 2)} sans"
                for n, (a, b) in found.items()
            )
        )
    axes[0, 0].set_ylabel("ms pour un jeton de plus")
    axes[0, 0].legend(frameon=False, fontsize=9)
    show(fig, alt=f"Temps d'un jeton de plus selon la longueur, avec et sans cache. {' ; '.join(told)}.")
    table(
        rows,
        header=["modèle", "jetons déjà écrits", "ms avec le cache", "ms sans", "rapport sans / avec"],
        caption=f"Médiane de {repeats} mesures",
    )
    _card_memory(models)


def _card_memory(models: dict[str, tuple[GPT2LMHeadModel, list[int]]]) -> None:
    """Mémoire de la carte prise par le cache d'une phrase de la plus grande longueur mesurée."""
    for name, (m, lengths) in models.items():
        with torch.inference_mode(), card_memory() as card:
            cache = _cache_after(m, max(lengths))
        if card.before is None or card.after is None or card.peak is None:
            return
        note(
            f"{name}, {max(lengths)} jetons{NBSP}: le cache compte {byte_size(_bytes(cache))}, la carte en garde "
            f"{byte_size(card.after - card.before)} ; au plus haut, {byte_size(card.peak)} étaient pris."
        )
