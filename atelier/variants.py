"""Le tableau du cours : une ligne par variante de Colibri, perplexité × octets × temps, d'un chapitre à l'autre."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from atelier import settings, state
from atelier.display import note, show, table
from atelier.hardware import call_seconds, device, home, scale
from atelier.models import load_model
from atelier.paths import asset, chapter_titles
from atelier.perplexity import evaluate_perplexity
from atelier.text import graduation, number

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Row = dict[str, Any]
BOARD_TOKENS = 8192
"""Jetons évalués pour une ligne, les mêmes sur toutes les machines ; moins à l'échelle d'essai."""
YOURS, OURS = "vous", "auteur"


_NUMBERS = ("perplexity", "bytes", "ms", "rank")


def _clean(raw: Any) -> tuple[list[Row], bool]:
    """Les lignes d'un tableau lu qui en sont bien, et si d'autres ont été laissées."""
    if raw is not None and not isinstance(raw, list):
        raise ValueError("une liste est attendue")
    given = raw or []
    kept = [{"by": YOURS, "what": ""} | row for row in given if _is_row(row)]
    return kept, len(kept) < len(given)


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(key, ""), str) for key in ("by", "what")):
        return False
    return all(isinstance(row.get(key), str) for key in ("name", "chapter")) and all(
        isinstance(row.get(key), (int, float)) for key in _NUMBERS
    )


def authors_rows() -> list[Row]:
    """Les lignes du tableau de l'auteur."""
    path = asset("results", "tableau.json")
    return _clean(json.loads(path.read_text(encoding="utf-8")))[0] if path.is_file() else []


def rows() -> list[Row]:
    """Les lignes du tableau : les vôtres, et celles de l'auteur que vous n'avez pas encore refaites."""
    yours = [] if settings.recording() else state.read(state.BOARD, _clean)
    done = {r["name"] for r in yours}
    ours = [r for r in authors_rows() if r["name"] not in done]
    order = list(chapter_titles())
    return sorted(
        [*yours, *ours], key=lambda r: (order.index(r["chapter"]) if r["chapter"] in order else 99, r["rank"])
    )


def window(model: torch.nn.Module) -> Callable[[], object]:
    """De quoi chronométrer une fenêtre de 256 jetons (ou du contexte du modèle, s'il est plus court)."""
    config: Any = model.config
    ids = torch.arange(min(config.n_positions, 256), device=home(model))[None] % config.vocab_size
    return torch.inference_mode()(lambda: model(ids))


def timing(seconds: Sequence[float]) -> dict[str, Any]:
    """Ce qu'une ligne dit d'une durée : la médiane, et les quartiles, en millisecondes."""
    marks = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = (
        round(1000 * v, 2) for v in torch.tensor(seconds, dtype=torch.float64).quantile(marks).tolist()
    )
    return {"ms": middle, "quartiles": [low, high]}


def shape_of(model: torch.nn.Module) -> list[list[int]] | None:
    """Ce que calcule un GPT-2 : les largeurs de chaque bloc, attention et MLP ; mêmes formes, même calcul, même temps.

    None si l'un de ses modules n'est ni de torch, ni de transformers : son temps ne se déduit pas de ses formes.
    """
    if any(not type(m).__module__.startswith(("torch.", "transformers.")) for m in model.modules()):
        return None
    found: Any = model
    try:
        return [[block.attn.c_attn.nf, block.mlp.c_fc.nf] for block in found.transformer.h]
    except AttributeError:
        return None


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
    Rend la ligne inscrite : perplexity, bytes, ms (durée médiane d'une fenêtre de 256 jetons), ses quartiles, shape
    (`shape_of`) ; et losses, qui n'y est pas : la perte de chaque part de l'extrait, de quoi la comparer à une autre.
    """
    if not re.fullmatch(r"[\w+-][\w .+-]{0,59}", name):
        raise ValueError(
            f"«\u00a0{name}\u00a0» ne convient pas comme nom de variante\u00a0: soixante caractères au plus, "
            "lettres, chiffres, espaces, points, «\u00a0+\u00a0», «\u00a0_\u00a0» et «\u00a0-\u00a0»."
        )
    evaluation = evaluate_perplexity(model, max_tokens=scale().pick(essai=512, cpu=BOARD_TOKENS, gpu=BOARD_TOKENS))
    row = {
        "name": name,
        "chapter": chapter,
        "what": what,
        "by": OURS if settings.recording() else YOURS,
        "perplexity": round(evaluation.perplexity, 3),
        "tokens": evaluation.tokens,
        "bytes": int(n_bytes),
        **timing(call_seconds(window(model), repeats=25)),
        "shape": shape_of(model),
    }
    weights = {f"{name}.safetensors": _packed_weights(model)} if keep_weights else {}
    authors = authors_rows()
    kept = next((r for r in authors if r["name"] == name), None) if settings.recording() else None
    finer = kept is not None and kept.get("tokens", 0) > evaluation.tokens
    if kept is not None and (finer or not settings.measuring()):
        # un carnet que l'on exécute fait de courtes leçons, sur une machine occupée : seules les mesures remplacent
        if finer:
            note(f"La ligne «\u00a0{name}\u00a0» de l'auteur, mesurée sur plus de jetons, est gardée telle quelle.")
        return row | {"losses": evaluation.losses}

    def inscribe(lines: list[Row]) -> None:
        known = [*lines, *authors]
        row["rank"] = next(
            (r["rank"] for r in known if r["name"] == name), 1 + max((r["rank"] for r in known), default=0)
        )
        lines[:] = sorted([*(r for r in lines if r["name"] != name), row], key=lambda r: r["rank"])

    if settings.recording():
        inscribe(authors)
        write_authors_rows(authors)
        for file, content in weights.items():
            asset("variantes").mkdir(exist_ok=True)
            asset("variantes", file).write_bytes(content)
    else:
        kept = {f"{state.VARIANTS}/{file}": content for file, content in weights.items()}
        state.update(state.BOARD, _clean, inscribe, kept)
    return row | {"losses": evaluation.losses}


def write_authors_rows(lines: list[Row]) -> None:
    """Écrit le tableau de l'auteur."""
    asset("results").mkdir(parents=True, exist_ok=True)
    text = json.dumps(lines, ensure_ascii=False, indent=1)
    asset("results", "tableau.json").write_text(text + "\n", encoding="utf-8")


def _packed_weights(model: torch.nn.Module) -> bytes:
    """Poids en float16, au format safetensors, la tête liée n'étant écrite qu'une fois."""
    return save({name: p.detach().cpu().to(torch.float16).contiguous() for name, p in model.named_parameters()})


def load_variant(name: str) -> GPT2LMHeadModel:
    """La variante de ce nom : celle que vous avez gardée, sinon celle de l'auteur, et une phrase le dit.

    Lève `ValueError` si ni vous ni l'auteur ne l'avez gardée, ou si ce qui est gardé est abîmé.
    """
    file, damage = f"{name}.safetensors", ""
    try:
        if (yours := state.read_file(f"{state.VARIANTS}/{file}")) is not None:
            model = _loaded(yours)
            note(f"Variante «\u00a0{name}\u00a0»\u00a0: la vôtre.")
            return model
    except (OSError, ValueError) as error:
        damage = str(error)
    if asset("variantes", file).is_file():
        model = _loaded(asset("variantes", file).read_bytes())
        why = (
            f"la vôtre est abîmée\u00a0: {damage}. {_rebuild(name)}"
            if damage
            else "vous n'avez pas encore construit la vôtre"
        )
        note(f"Variante «\u00a0{name}\u00a0»\u00a0: celle de l'auteur ({why}).")
        return model
    if damage:
        place = state.folder() / state.VARIANTS / file
        raise ValueError(f"votre variante «\u00a0{name}\u00a0» est abîmée ({place}\u00a0: {damage}). {_rebuild(name)}")
    raise ValueError(
        f"pas de variante «\u00a0{name}\u00a0»\u00a0: construisez-la dans son chapitre, "
        "avec save_variant(…, keep_weights=True)."
    )


def _rebuild(name: str) -> str:
    """Que faire d'une variante perdue."""
    chapter = next((r["chapter"] for r in rows() if r["name"] == name), "")
    where = f"au chapitre «\u00a0{chapter_titles().get(chapter, chapter)}\u00a0»" if chapter else "dans son chapitre"
    return f"Pour la refaire, exécutez à nouveau, {where}, la cellule qui appelle save_variant({name!r}, …)."


def _loaded(content: bytes) -> GPT2LMHeadModel:
    """Le Colibri que gardent ces octets. Lève `ValueError` s'ils sont abîmés ou ne sont pas d'un Colibri."""
    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError("le fichier est coupé ou illisible") from error
    model = load_model("colibri")
    for name, p in model.named_parameters():
        if name not in weights:
            raise ValueError(f"il y manque les poids {name}")
        if weights[name].shape != p.shape:
            raise ValueError(f"{name} y a la forme {tuple(weights[name].shape)} au lieu de {tuple(p.shape)}")
    model.load_state_dict({k: v.to(device(), torch.float32) for k, v in weights.items()}, strict=False)
    return model


def board(until: str = "") -> None:
    """Affiche le tableau du cours, puis la figure perplexité contre octets.

    until : le chapitre où l'on est ; ce que l'auteur a construit dans les suivants n'est pas encore montré.
    """
    order = list(chapter_titles())
    reached = set(order[: order.index(until) + 1] if until in order else order)
    everything = rows()
    lines = [r for r in everything if r["by"] == YOURS or r["chapter"] in reached or not until]
    if not lines:
        note("Le tableau est vide : la première variante s'y inscrira au chapitre 3.")
        return
    table(
        [[r["name"], r["perplexity"], r["bytes"], _told_ms(r), r["by"], r["what"]] for r in lines],
        header=["variante", "perplexité", "octets", "ms par fenêtre [quartiles]", "par", "ce que c'est"],
        caption="Colibri et ses variantes (même extrait, même protocole ; une fenêtre fait 256 jetons)",
    )
    if later := len(everything) - len(lines):
        said = f"{number(later)} autres viendront" if later > 1 else "Une autre viendra"
        note(f"{said} s'y ajouter, aux chapitres suivants.")
    drawn = [r for r in lines if all(math.isfinite(r[key]) and r[key] > 0 for key in ("perplexity", "bytes"))]
    if drawn:
        show(figure(drawn), alt=_alt(drawn))
    if len(counts := {r.get("tokens", BOARD_TOKENS) for r in lines}) > 1:
        told = " et ".join(number(n) for n in sorted(counts))
        note(f"Attention : ces lignes ont été mesurées sur des extraits de longueurs différentes ({told} jetons).")


def _told_ms(row: Row) -> str:
    """La durée médiane d'une ligne, et ses quartiles si elle les a."""
    middle = number(row["ms"], decimals=1)
    if not (isinstance(found := row.get("quartiles"), list) and len(found) == 2):
        return middle
    low, high = (number(v, decimals=1) for v in found)
    return f"{middle} [{low} ; {high}]"


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
        axis.set_major_formatter(lambda v, _: graduation(v))
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
        f"{r['name']}, {number(r['bytes'] / 1e6, unit='Mo')}, perplexité {number(r['perplexity'])}" for r in lines
    )
    return f"Nuage de points, perplexité contre taille du fichier : {body}."
