"""Le tableau du cours : une ligne par variante de Colibri, perplexité × octets × temps, d'un chapitre à l'autre."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save

from atelier.display import note, number, show, table
from atelier.hardware import device, median_seconds, scale
from atelier.models import load_model
from atelier.paths import asset, course, state_dir, write_state
from atelier.perplexity import evaluate_perplexity

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Row = dict[str, Any]
BOARD_TOKENS = 8192
"""Jetons évalués pour une ligne, les mêmes sur toutes les machines ; moins à l'échelle d'essai."""
YOURS, OURS = "vous", "auteur"


def _authoring() -> bool:
    return os.environ.get("COURS_ENREGISTRER") == "1"


def _read(path: Path) -> list[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else []


def rows() -> list[Row]:
    """Les lignes du tableau : les vôtres, et celles de l'auteur que vous n'avez pas encore refaites."""
    yours = [] if _authoring() else _read(state_dir() / "tableau.json")
    done = {r["name"] for r in yours}
    ours = [r for r in _read(asset("mesures", "tableau.json")) if r["name"] not in done]
    order = [c["name"] for c in course()["chapters"]]
    return sorted(
        [*yours, *ours], key=lambda r: (order.index(r["chapter"]) if r["chapter"] in order else 99, r["rank"])
    )


@torch.inference_mode()
def window_milliseconds(model: torch.nn.Module) -> float:
    """Durée médiane d'une fenêtre de 256 jetons (ou du contexte du modèle, s'il est plus court), en millisecondes."""
    context = min(model.config.n_positions, 256)
    ids = torch.arange(context, device=next(model.parameters()).device)[None] % model.config.vocab_size
    return 1000 * median_seconds(lambda: model(ids), repeats=25)


def save_variant(
    name: str,
    model: GPT2LMHeadModel,
    n_bytes: int,
    chapter: str,
    what: str = "",
    keep_weights: bool = False,
) -> Row:
    """Mesure une variante, l'inscrit au tableau et, si `keep_weights`, garde ses poids pour les chapitres suivants.

    name : identifiant court (« int8 », « gptq4 ») ; n_bytes : octets du fichier de poids, mesurés par vous ;
    chapter : chapitre qui la construit ; what : une phrase. Les poids sont gardés en float16 dans un GPT-2 ordinaire.
    Rend la ligne inscrite : perplexity, bytes, ms (durée médiane d'une fenêtre de 256 jetons).
    """
    path = asset("mesures", "tableau.json") if _authoring() else state_dir() / "tableau.json"
    existing = _read(path)
    known = [*existing, *_read(asset("mesures", "tableau.json"))]
    rank = next((r["rank"] for r in known if r["name"] == name), 1 + max((r["rank"] for r in known), default=0))
    evaluation = evaluate_perplexity(model, max_tokens=scale().pick(essai=2048, cpu=BOARD_TOKENS, gpu=BOARD_TOKENS))
    row = {
        "name": name,
        "chapter": chapter,
        "what": what,
        "by": OURS if _authoring() else YOURS,
        "perplexity": round(evaluation.perplexity, 3),
        "tokens": evaluation.tokens,
        "bytes": int(n_bytes),
        "ms": round(window_milliseconds(model), 2),
        "rank": rank,
    }
    updated = [r for r in existing if r["name"] != name] + [row]
    updated.sort(key=lambda r: r["rank"])
    weights = _packed_weights(model) if keep_weights else None
    if _authoring():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(updated, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if weights is not None:
            asset("variantes").mkdir(exist_ok=True)
            asset("variantes", f"{name}.safetensors").write_bytes(weights)
    else:
        kept = write_state("tableau.json", updated)
        if weights is not None:
            kept = write_state(f"variantes/{name}.safetensors", weights) and kept
        if not kept:
            note("Ce dossier est en lecture seule : la variante est mesurée, mais elle ne sera pas gardée.")
    return row


def _packed_weights(model: torch.nn.Module) -> bytes:
    """Poids en float16, au format safetensors, la tête liée n'étant écrite qu'une fois."""
    return save({name: p.detach().cpu().to(torch.float16).contiguous() for name, p in model.named_parameters()})


def load_variant(name: str) -> GPT2LMHeadModel:
    """La variante de ce nom : celle que vous avez gardée, sinon celle de l'auteur, et une phrase le dit.

    Lève `ValueError` si ni vous ni l'auteur ne l'avez gardée.
    """
    for path, whose in (
        (state_dir() / "variantes" / f"{name}.safetensors", "la vôtre"),
        (asset("variantes", f"{name}.safetensors"), "celle de l'auteur (vous n'avez pas encore construit la vôtre)"),
    ):
        if path.is_file():
            model = load_model("colibri")
            weights = {k: v.to(device(), torch.float32) for k, v in load_file(path).items()}
            missing = set(dict(model.named_parameters())) - set(weights)
            if missing:
                raise ValueError(f"{path} n'a pas les poids d'un Colibri complet : il manque {sorted(missing)[0]}.")
            model.load_state_dict(weights, strict=False)
            note(f"Variante « {name} » : {whose}.")
            return model
    raise ValueError(
        f"pas de variante « {name} » : construisez-la dans son chapitre, avec save_variant(…, keep_weights=True)."
    )


def board() -> None:
    """Affiche le tableau du cours, puis la figure perplexité contre octets."""
    lines = rows()
    if not lines:
        note("Le tableau est vide : la première variante s'y inscrira au chapitre 3.")
        return
    table(
        [[r["name"], r["perplexity"], r["bytes"], r["ms"], r["by"], r["what"]] for r in lines],
        header=["variante", "perplexité", "octets", "ms par fenêtre", "par", "ce que c'est"],
        caption="Colibri et ses variantes (même extrait, même protocole ; une fenêtre fait 256 jetons)",
    )
    show(figure(lines), alt=_alt(lines))
    if len(counts := {r.get("tokens", BOARD_TOKENS) for r in lines}) > 1:
        told = " et ".join(number(n) for n in sorted(counts))
        note(f"Attention : ces lignes ont été mesurées sur des extraits de longueurs différentes ({told} jetons).")


def _ticks(low: float, high: float) -> list[float]:
    """Graduations lisibles d'une échelle logarithmique : 1, 2, 5 par décade, ou régulières si l'étendue est courte."""
    from matplotlib.ticker import MaxNLocator

    if high / low < 10:
        return [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
    return [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def figure(lines: list[Row]) -> Any:
    """Perplexité contre taille du fichier ; plein : vous, creux : l'auteur ; en bas à gauche, c'est mieux."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    for r in lines:
        mine = r["by"] == YOURS
        ax.plot(
            r["bytes"] / 1e6,
            r["perplexity"],
            "o" if mine else "s",
            color="#0072B2" if mine else "#D55E00",
            markerfacecolor="#0072B2" if mine else "white",
            markersize=8,
        )
    for axis, values in ((ax.xaxis, [r["bytes"] / 1e6 for r in lines]), (ax.yaxis, [r["perplexity"] for r in lines])):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(FixedLocator(_ticks(0.9 * min(values), 1.1 * max(values))))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda v, _: number(float(v), 3))
    ax.set_xlabel("taille du fichier de poids (Mo, échelle logarithmique)")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.set_title("Plus bas et plus à gauche, c'est mieux (rond plein : vous ; carré creux : l'auteur)", fontsize=10)
    ax.margins(0.12)
    ax.grid(alpha=0.3)
    _name_points(ax, {r["name"]: (r["bytes"] / 1e6, r["perplexity"]) for r in lines})
    return fig


def _name_points(ax: Any, points: dict[str, tuple[float, float]]) -> None:
    """Écrit chaque nom là où il n'en couvre aucun autre, ni aucun point ; un trait le relie s'il en est loin."""
    from matplotlib.transforms import Bbox

    fig = ax.figure
    fig.canvas.draw()
    unit = fig.dpi / 72
    centres = {name: ax.transData.transform(xy) for name, xy in points.items()}
    taken = [Bbox.from_extents(*(c - 5 * unit), *(c + 5 * unit)) for c in centres.values()]
    places = sorted(
        ((side * dx, dy) for side in (1, -1) for dx in (7, 26, 48) for dy in range(-72, 73, 9)),
        key=lambda at: abs(at[0]) + abs(at[1]) + (at[0] < 0),
    )
    for name, xy in sorted(points.items(), key=lambda item: -item[1][1]):
        text = ax.annotate(name, xy, xytext=(7, 0), textcoords="offset points", fontsize=9, va="center")
        for dx, dy in places:
            text.set(position=(dx, dy), ha="left" if dx > 0 else "right")
            box = text.get_window_extent()
            inside = ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())
        if max(abs(dx) - 7, abs(dy) - 9) > 0:
            ax.annotate("", xy, (dx, dy), textcoords="offset points", arrowprops={"arrowstyle": "-", "lw": 0.6})


def _alt(lines: list[Row]) -> str:
    body = " ; ".join(
        f"{r['name']}, {number(r['bytes'] / 1e6)} Mo, perplexité {number(r['perplexity'])}" for r in lines
    )
    return f"Nuage de points, perplexité contre taille du fichier : {body}."
