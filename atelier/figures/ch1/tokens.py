"""Chapitre 1, première partie : une phrase devient des jetons, des vecteurs, puis des probabilités."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import _display, note, show, table
from atelier.figures.common.controls import Shown, live, show_live
from atelier.figures.common.layers import blocks
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, canvas, french
from atelier.hardware import beside
from atelier.perplexity import END, extract
from atelier.text import NBSP, grid, number, percent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


# --- Jetons ---------------------------------------------------------------------------------------------------------


@cache
def _alphabet() -> dict[str, int]:
    """Le caractère qui représente chaque octet dans un vocabulaire « byte-level », celui de GPT-2 et de Colibri."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """Les octets d'un jeton. Un jeton spécial rend son nom."""
    text = tokenizer.convert_ids_to_tokens(token)
    if token in tokenizer.all_special_ids:
        return text.encode()
    return bytes(_alphabet()[c] for c in text)


def token_text(tokenizer: Any, token: int) -> str:
    """Un jeton lisible : ␣ pour une espace, ⏎ pour une fin de ligne ; un bout de caractère est dit tel."""
    raw = token_bytes(tokenizer, token)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "bout de caractère"
    return text.replace(" ", "␣").replace("\n", "⏎").replace(NBSP, "⍽").replace("\u202f", "⍽")


def _boxes(texts: list[str]) -> str:
    """Des jetons côte à côte, un fond sur deux et un trait entre deux."""
    shades = ("#E8F1FA", "#FFF4DC")
    return "".join(
        f'<span style="background:{shades[i % 2]};color:#111;border:1px solid #777;padding:.1em .25em;'
        f'display:inline-block;margin:1px;font-family:monospace">{html.escape(t)}</span>'
        for i, t in enumerate(texts)
    )


def _tokens(tokenizer: Any, text: str) -> Shown:
    ids = tokenizer(text)["input_ids"]
    pieces = [token_text(tokenizer, i) for i in ids]
    rows = [
        [rank, piece, " ".join(f"{b:02X}" for b in token_bytes(tokenizer, i)), i]
        for rank, (piece, i) in enumerate(zip(pieces, ids, strict=True))
    ]
    n_bytes = len(text.encode())
    summary = (
        f"{len(text)} caractères, {n_bytes} octets, {len(ids)} jetons{NBSP}: "
        f"{number(n_bytes / max(len(ids), 1), 3, unit='octets')} par jeton."
    )
    head = ("rang", "jeton", "octets (hexadécimal)", "identifiant")
    lines = "".join(
        f'<tr><th scope="row">{r[0]}</th><td style="text-align:left;font-family:monospace">{html.escape(r[1])}</td>'
        f'<td style="text-align:left;font-family:monospace">{r[2]}</td>'
        f'<td style="text-align:right">{number(r[3])}</td></tr>'
        for r in rows
    )
    heads = "".join(
        f'<th scope="col" style="text-align:{side}">{h}</th>'
        for h, side in zip(head, ("right", "left", "left", "right"), strict=True)
    )
    markup = (
        f'<p aria-hidden="true" style="line-height:2">{_boxes(pieces)}</p><p>{html.escape(summary)}</p>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )
    return markup, "\n".join([summary, *grid(head, rows)])


def tokens_table(tokenizer: Any, text: str) -> None:
    """Les jetons d'un texte, leurs octets, leurs identifiants. Dans un carnet vivant, le texte se change."""
    if not live():
        _display(*_tokens(tokenizer, text))
        return
    import ipywidgets as w

    typed = w.Text(text, description="Texte", continuous_update=False, layout=w.Layout(width="95%"))
    shown = w.HTML(_tokens(tokenizer, text)[0])
    typed.observe(lambda change: setattr(shown, "value", _tokens(tokenizer, change["new"])[0]), "value")
    show_live(w.VBox([typed, shown]), _tokens(tokenizer, text))


def bytes_per_token(tokenizer: Any, others: dict[str, str] | None = None, n_bytes: int = 40_000) -> None:
    """Combien d'octets tient un jeton, d'un genre de texte à l'autre.

    others : nom → texte, en plus des trois extraits livrés.
    """
    texts = {
        "prose d'apprentissage (A)": extract("a_validation"),
        "récit de fantasy (B)": extract("b_validation"),
        "vers classiques (B′)": extract("bprime_validation"),
    }
    texts |= others or {}
    rows = []
    for name, text in texts.items():
        piece = text.encode()[:n_bytes].decode(errors="ignore")
        n = len(tokenizer.backend_tokenizer.encode(piece).ids)
        rows.append([name, len(piece.encode()), n, number(len(piece.encode()) / n, 3)])
    table(rows, header=["texte", "octets", "jetons", "octets par jeton"], caption="Le même découpeur, d'autres textes")


# --- Suivre les formes ----------------------------------------------------------------------------------------------


def _shapes(model: GPT2LMHeadModel, ids: Tensor) -> list[tuple[str, str, tuple[int, ...], str]]:
    """(étape, tenseur, forme, rôle) de chaque tenseur rencontré, relevés pendant un vrai passage dans le modèle."""
    seen: dict[str, Tensor] = {}
    t, block = model.transformer, blocks(model)[0]
    modules: dict[str, nn.Module] = {
        "wte": t.wte,
        "wpe": t.wpe,
        "ln_1": block.ln_1,
        "qkv": block.attn.c_attn,
        "attn": block.attn.c_proj,
        "ln_2": block.ln_2,
        "wide": block.mlp.c_fc,
        "mlp": block.mlp.c_proj,
        "block": block,
        "ln_f": t.ln_f,
    }

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _, __, out: seen.__setitem__(name, out[0] if isinstance(out, tuple) else out)

    hooks = [m.register_forward_hook(keep(name)) for name, m in modules.items()]
    with eager(model):
        out = model(ids, output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    batch, length, d = seen["wte"].shape
    heads = model.config.n_head
    weights = out.attentions[0]
    layers = len(t.h)
    return [
        ("entrée", "identifiants", tuple(ids.shape), "un entier par jeton"),
        ("plongements", "table des jetons", tuple(seen["wte"].shape), "une ligne de la table par jeton"),
        ("", "positions", tuple(seen["wpe"].shape), "une ligne par rang, ajoutée à la précédente"),
        (
            f"bloc (× {layers})",
            "LayerNorm 1",
            tuple(seen["ln_1"].shape),
            "chaque vecteur recentré, remis à l'échelle",
        ),
        ("", "Q, K, V", tuple(seen["qkv"].shape), "trois vecteurs par jeton, côte à côte"),
        ("", "Q par tête", (batch, heads, length, d // heads), "découpé en têtes (K et V aussi)"),
        ("", "poids d'attention", tuple(weights.shape), "qui regarde qui, une carte par tête"),
        ("", "sortie de l'attention", tuple(seen["attn"].shape), "ajoutée au flux"),
        ("", "LayerNorm 2", tuple(seen["ln_2"].shape), ""),
        ("", "MLP, milieu", tuple(seen["wide"].shape), "quatre fois plus large, puis GELU"),
        ("", "MLP, sortie", tuple(seen["mlp"].shape), "ajoutée au flux"),
        ("", "sortie du bloc", tuple(seen["block"].shape), "entrée du bloc suivant"),
        ("sortie", "LayerNorm final", tuple(seen["ln_f"].shape), ""),
        ("", "logits", tuple(out.logits.shape), "un score par entrée du vocabulaire, après chaque jeton"),
    ]


@contextmanager
def eager(model: GPT2LMHeadModel) -> Iterator[None]:
    """Le temps du bloc, l'attention du modèle est calculée de façon à rendre ses poids ; puis tout est remis."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def follow(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> None:
    """La forme de chaque tenseur que la phrase traverse, relevée pendant un vrai passage."""
    ids = beside(model, tokenizer(text, return_tensors="pt")["input_ids"])
    c = model.config
    rows = [[step, name, " × ".join(map(str, shape)), what] for step, name, shape, what in _shapes(model, ids)]
    table(
        rows,
        header=["étape", "tenseur", "forme", "ce que c'est"],
        caption=f"B = 1 phrase, T = {ids.shape[1]} jetons, d = {c.n_embd} composantes, H = {c.n_head} têtes de "
        f"D = {c.n_embd // c.n_head}, V = {c.vocab_size} entrées au vocabulaire",
    )


# --- Le dessin de l'architecture ------------------------------------------------------------------------------------


def architecture(model: GPT2LMHeadModel, n_tokens: int) -> None:
    """L'architecture de GPT-2, de bas en haut, avec les tailles du modèle reçu."""
    from matplotlib.patches import Rectangle

    c, length = model.config, n_tokens
    d, heads, layers, vocabulary = c.n_embd, c.n_head, len(model.transformer.h), c.vocab_size
    fig, ax = canvas(9.0, 8.2)
    ax.axis("off")
    ax.set_xlim(0, 18)
    ax.set_ylim(-0.6, 17.4)
    stream = 3.0

    def box(x: float, y: float, text: str, color: str, width: float = 3.6, height: float = 0.9) -> None:
        corner = (x - width / 2, y)
        ax.add_patch(Rectangle(corner, width, height, facecolor="white", zorder=2))  # cache le flux, derrière
        ax.add_patch(Rectangle(corner, width, height, facecolor=color + "38", edgecolor=color, lw=1.6, zorder=3))
        ax.text(x, y + height / 2, text, ha="center", va="center", fontsize=10, zorder=4)

    def shape(y: float, text: str, x: float = 13.6) -> None:
        ax.text(x, y, text, va="center", fontsize=9.5, family="monospace", color=BLACK)

    def arrow(start: tuple[float, float], stop: tuple[float, float]) -> None:
        ax.annotate(
            "", stop, start, arrowprops={"arrowstyle": "-|>", "lw": 1.4, "color": BLACK, "shrinkA": 0, "shrinkB": 0}
        )

    def plus(y: float) -> None:
        ax.plot(stream, y, "o", ms=15, markerfacecolor="white", markeredgecolor=BLACK, zorder=3)
        ax.text(stream, y - 0.02, "+", ha="center", va="center", fontsize=12, zorder=4)

    ax.text(13.6, 17.0, "forme du tenseur", fontsize=10, weight="bold", va="center")
    box(stream, -0.4, "jetons", PURPLE)
    shape(0.05, f"T = {length}")
    arrow((stream, 0.5), (stream, 1.1))
    box(stream, 1.1, "table des jetons", BLUE)
    shape(1.55, f"T×d = {length}×{d}")
    ax.text(5.1, 1.55, f"V×d = {vocabulary}×{d} paramètres", fontsize=8.5, va="center")
    plus(2.75)
    arrow((stream, 2.0), (stream, 2.45))
    box(7.6, 2.3, "table des positions", BLUE)
    ax.text(9.6, 2.75, f"{c.n_positions}×{d}", fontsize=8.5, va="center")
    arrow((5.8, 2.75), (stream + 0.35, 2.75))

    ax.add_patch(Rectangle((0.6, 3.4), 12.4, 9.3, fill=False, edgecolor=BLACK, lw=1.4, linestyle=(0, (5, 3))))
    ax.text(0.9, 12.25, f"bloc, × {layers}", fontsize=11, weight="bold", va="center")
    ax.plot([stream, stream], [3.05, 15.0], color=BLACK, lw=2.2, zorder=1)
    ax.text(stream - 0.3, 8.0, "flux résiduel", rotation=90, ha="right", va="center", fontsize=9.5)

    for base, first, second, colors in (
        (3.9, "attention", f"H×T×D = {heads}×{length}×{d // heads}", (ORANGE,)),
        (8.5, "MLP", f"T×4d = {length}×{4 * d}", (GREEN,)),
    ):
        arrow((stream, base + 0.45), (5.6, base + 0.45))
        box(7.4, base, "LayerNorm", SKY)
        arrow((7.4, base + 0.9), (7.4, base + 1.4))
        box(7.4, base + 1.4, first, colors[0], height=1.2)
        arrow((5.6, base + 2.9), (stream + 0.35, base + 2.9))
        ax.plot([7.4, 7.4, 5.6], [base + 2.6, base + 2.9, base + 2.9], color=BLACK, lw=1.4)
        plus(base + 2.9)
        shape(base + 0.45, f"T×d = {length}×{d}")
        shape(base + 2.0, second)
        shape(base + 2.9, f"T×d = {length}×{d}")
    ax.text(9.5, 5.9, "Q, K, V\npar tête", fontsize=8.5, va="center")
    shape(5.3, f"H×T×T = {heads}×{length}×{length}")
    ax.text(9.5, 10.5, "d → 4d → d,\nGELU au milieu", fontsize=8.5, va="center")

    box(stream, 13.1, "LayerNorm", SKY)
    box(stream, 14.5, "tête", BLUE)
    ax.text(
        5.1, 14.95, "la table des jetons, relue à l'envers : liée, aucun paramètre de plus", fontsize=8.5, va="center"
    )
    shape(14.35, f"T×V = {length}×{vocabulary}")
    arrow((stream, 15.4), (stream, 16.0))
    box(stream, 16.0, "jeton suivant", PURPLE)
    shape(16.4, f"V = {vocabulary} probabilités")
    show(
        fig,
        alt=f"L'architecture de GPT-2, de bas en haut. Les {length} jetons deviennent chacun une ligne de la table "
        f"des jetons ({vocabulary} lignes de {d} nombres), à laquelle s'ajoute une ligne de la table des positions. Le "
        f"flux résiduel, {length} vecteurs de {d} nombres, monte alors à travers {layers} blocs. Dans chaque bloc, une "
        f"première branche le normalise et le fait passer par l'attention ({heads} têtes de {d // heads} composantes, "
        f"{heads} cartes de {length} sur {length}), puis s'y ajoute ; une seconde le normalise et le fait passer par "
        f"un MLP large de {4 * d}, puis s'y ajoute. En haut, un dernier LayerNorm, puis la tête, qui est la table des "
        f"jetons elle-même, rend {vocabulary} scores pour chaque jeton ; ceux du dernier disent le jeton suivant.",
    )


# --- Le jeton suivant -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def next_token(model: GPT2LMHeadModel, tokenizer: Any, text: str, k: int = 10) -> None:
    """Les k jetons les plus probables après `text`."""
    ids = beside(model, tokenizer(text, return_tensors="pt")["input_ids"])
    probabilities = torch.softmax(model(ids).logits[0, -1].float(), dim=-1)
    best = probabilities.topk(k)
    names = [token_text(tokenizer, i) for i in best.indices.tolist()]
    values = [100 * p for p in best.values.tolist()]
    fig, ax = canvas(7.6, 0.28 * k + 0.9)
    ax.barh(range(k), values, color=BLUE)
    ax.set_yticks(range(k), names, family="monospace")
    ax.invert_yaxis()
    for i, v in enumerate(values):
        ax.text(v, i, f" {number(v, 3, unit='%')}", va="center", fontsize=8.5)
    ax.set_xlim(0, max(values) * 1.15)
    ax.set_xlabel("probabilité (%)")
    french(ax, y=False)
    told = ", ".join(f"«{NBSP}{n}{NBSP}» {number(v, 3, unit='%')}" for n, v in zip(names, values, strict=True))
    show(fig, alt=f"Barres des {k} jetons les plus probables après «{NBSP}{text}{NBSP}»{NBSP}: {told}.")
    entropy = -(probabilities * probabilities.clamp_min(1e-30).log2()).sum().item()
    note(
        f"Ces {k} jetons réunissent {number(sum(values), 3, unit='%')} de la probabilité ; les "
        f"{number(len(probabilities) - k)} autres se partagent le reste. L'hésitation totale (entropie) vaut "
        f"{number(entropy, 3, unit='bits')}, autant qu'entre {number(2**entropy, 3)} jetons équiprobables."
    )


@torch.inference_mode()
def block_by_block(model: GPT2LMHeadModel, tokenizer: Any, text: str, k: int = 3) -> None:
    """Ce que le modèle prédirait s'il s'arrêtait après chaque bloc (la « logit lens » de nostalgebraist, 2020)."""
    ids = beside(model, tokenizer(text, return_tensors="pt")["input_ids"])
    out = model(ids, output_hidden_states=True)
    final = torch.log_softmax(out.logits[0, -1].float(), dim=-1)
    winner = int(final.argmax())
    rows = []
    *inner, last = out.hidden_states
    for i, hidden in enumerate([*inner, last]):
        done = i == len(inner)  # la dernière sortie est déjà passée par le LayerNorm final
        x = hidden[0, -1] if done else model.transformer.ln_f(hidden[0, -1])
        p = torch.softmax(model.lm_head(x).float(), dim=-1)
        best = p.topk(k)
        words = " ".join(
            f"{token_text(tokenizer, j)} ({percent(v, 3)})"
            for j, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        where = "plongements seuls" if i == 0 else f"après le bloc {i - 1}"
        rows.append([where, words, percent(p[winner].item(), 3), number(hidden[0, -1].norm().item(), 3)])
    table(
        rows,
        header=["si l'on s'arrêtait", f"les {k} jetons préférés", "probabilité du choix final", "longueur du vecteur"],
        caption=f"Le dernier jeton de «{NBSP}{text}{NBSP}», vu par la tête après chaque bloc",
    )


def end_token(tokenizer: Any) -> int:
    """L'identifiant du jeton de début de texte."""
    return tokenizer.convert_tokens_to_ids(END)
