"""Chapitre 1, première partie : une phrase devient des jetons, des vecteurs, puis des probabilités."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from atelier.display import _display, note, show, table
from atelier.figures.common.controls import Shown, live, show_live
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, canvas, french
from atelier.text import NBSP, grid, number, percent, plural

if TYPE_CHECKING:
    from transformers import GPT2Config


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


def bytes_table(found: Mapping[str, tuple[int, int]]) -> None:
    """Octets par jeton, d'un genre de texte à l'autre. found : texte → (octets, jetons)."""
    rows = [[name, n_bytes, n, number(n_bytes / n, decimals=2)] for name, (n_bytes, n) in found.items()]
    table(rows, header=["texte", "octets", "jetons", "octets par jeton"], caption="Le même découpeur, d'autres textes")


# --- Le dessin de l'architecture ------------------------------------------------------------------------------------


def architecture(config: GPT2Config, n_tokens: int) -> None:
    """L'architecture de GPT-2, de bas en haut, avec les tailles reçues."""
    from matplotlib.patches import Rectangle

    c, length = config, n_tokens
    d, heads, layers, vocabulary = c.n_embd, c.n_head, c.n_layer, c.vocab_size
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
        f"jetons elle-même, rend {vocabulary} logits pour chaque jeton ; ceux du dernier disent le jeton suivant.",
    )


# --- Le jeton suivant -----------------------------------------------------------------------------------------------


def plot_next_token(probabilities: Tensor, tokenizer: Any, text: str, k: int = 10) -> None:
    """Les k jetons les plus probables après `text`. probabilities : (V,)."""
    probabilities = probabilities.float().cpu()
    best = probabilities.topk(k)
    names = [token_text(tokenizer, i) for i in best.indices.tolist()]
    values = [100 * p for p in best.values.tolist()]
    fig, ax = canvas(7.6, 0.28 * k + 0.9)
    ax.barh(range(k), values, color=BLUE)
    ax.set_yticks(range(k), names, family="monospace")
    ax.invert_yaxis()
    for i, v in enumerate(values):
        ax.text(v, i, f" {number(v, decimals=1, unit='%')}", va="center", fontsize=8.5)
    ax.set_xlim(0, max(values) * 1.15)
    ax.set_xlabel("probabilité (%)")
    french(ax, y=False)
    told = ", ".join(f"« {n} » {number(v, decimals=1, unit='%')}" for n, v in zip(names, values, strict=True))
    show(fig, alt=f"Barres des {k} jetons les plus probables après « {text} » : {told}.")
    entropy = -(probabilities * probabilities.clamp_min(1e-30).log2()).sum().item()
    note(
        f"Ces {k} jetons réunissent {number(sum(values), decimals=0, unit='%')} de la probabilité ; les "
        f"{number(len(probabilities) - k)} autres se partagent le reste. L'hésitation totale (entropie) vaut "
        f"{number(entropy, decimals=1, unit='bits')}, autant qu'entre {number(2**entropy, decimals=0)} jetons "
        "équiprobables."
    )


def lens_table(found: Mapping[str, Mapping[str, Any]], tokenizer: Any, text: str, k: int = 3) -> None:
    """Ce que la tête préfère après chaque bloc. found : étage → probabilités (V,) et longueur du vecteur."""
    winner = int([*found.values()][-1]["probabilités"].argmax())
    rows = []
    for i, stage in enumerate(found.values()):
        best = stage["probabilités"].topk(k)
        words = ", ".join(
            f"{token_text(tokenizer, j)} {percent(v, decimals=0)}"
            for j, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        chosen = percent(stage["probabilités"][winner].item(), decimals=1)
        rows.append([_stage(i), words, chosen, number(stage["longueur"], decimals=1)])
    table(
        rows,
        header=["si l'on s'arrêtait", f"les {k} jetons préférés", "probabilité du choix final", "longueur du vecteur"],
        caption=f"Le dernier jeton de « {text} », vu par la tête après chaque bloc",
    )


def lengths_note(found: Mapping[str, Sequence[float]]) -> None:
    """La longueur moyenne du flux, de bloc en bloc. found : étage → une longueur par fenêtre."""
    means = [number(sum(values) / len(values), decimals=1) for values in found.values()]
    note(
        f"Sur {plural(len(next(iter(found.values()))), 'fenêtre')} de vrai texte, la longueur moyenne va de {means[0]} "
        f"({_stage(0)}) à {', puis '.join(means[1:])} (après chaque bloc)."
    )


def _stage(i: int) -> str:
    return "plongements seuls" if i == 0 else f"après le bloc {i - 1}"
