"""Chapitre 8, troisième partie : plus rapide, ou pas ? Compté, chronométré, à qualité égale ; servir ; et GPT-3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from atelier.display import note, table
from atelier.evidence import paired
from atelier.figures.ch8.tools import PARTS
from atelier.text import byte_size, number, percent, spread

GPT3 = {"n_layer": 96, "d_model": 12288, "parameters": 175_255_800_000}
"""Brown et al., 2020, tableau 2.1 ; le nombre de paramètres est celui du tableau 4 de l'article LoRA (175 255,8 M)."""

Times = Mapping[str, Mapping[str, Sequence[float]]]
"""Méthode → partie du pas → une durée par tour, en secondes."""


def counted_table(found: Mapping[str, tuple[int, int]]) -> None:
    """Opérations d'un pas. found : méthode → (opérations, nombres qui apprennent)."""
    full = found["tout"][0]
    table(
        [[name, n, number(flops / 1e9, 3), percent(flops / full)] for name, (flops, n) in found.items()],
        header=["ce qui apprend", "nombres appris", "GFLOP par pas", "du pas complet"],
        caption="Opérations comptées d'un pas, passages avant et arrière, tête de sortie comprise",
    )


def without_optimizer(times: Mapping[str, Sequence[float]]) -> list[float]:
    """Passage avant et passage arrière, tour par tour."""
    return [a + b for a, b in zip(times["avant"], times["arrière"], strict=True)]


def whole_step(times: Mapping[str, Sequence[float]]) -> list[float]:
    """Le pas entier, tour par tour."""
    return [sum(parts) for parts in zip(*(times[part] for part in PARTS), strict=True)]


def share_of_full(times: Times, name: str, of: str = "tout") -> list[float]:
    """La part d'un pas complet, optimiseur non compris, tour par tour : les deux ont couru au même moment."""
    own, full = without_optimizer(times[name]), without_optimizer(times[of])
    return [a / b for a, b in zip(own, full, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Premier quartile, médiane, troisième quartile."""
    ranked = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ranked) - 1)
        low = int(place)
        return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])

    return at(0.25), at(0.5), at(0.75)


def _shown(values: Sequence[float], factor: float, decimals: int = 0, unit: str = "") -> str:
    low, middle, high = (factor * v for v in quartiles(values))
    told = f"{number(middle, decimals=decimals)} [{number(low, decimals=decimals)} ; {number(high, decimals=decimals)}]"
    return told + f" {unit}" * bool(unit)


def step_times_table(found: Mapping[str, Any], counted: Mapping[str, tuple[int, int]], model: str = "Colibri") -> None:
    """Durées d'un pas, à côté du compte. found : « pas » (méthode → durées), « lot », et « AdamW » s'il est mesuré."""
    times: Times = found["pas"]
    rows = []
    for name, parts in times.items():
        share = "—" if name == "tout" else _shown(share_of_full(times, name), 100, unit="%")
        rows.append(
            [
                name,
                percent(counted[name][0] / counted["tout"][0]),
                share,
                number(1000 * median(without_optimizer(parts)), decimals=0),
                number(1000 * median(parts["optimiseur"]), decimals=1),
                _shown(whole_step(parts), 1000),
            ]
        )
    rounds = len(whole_step(times["tout"]))
    rows_, columns_ = found["lot"]
    table(
        rows,
        header=["ce qui apprend", "compté", "sans l'optimiseur", "avant + arrière (ms)", "AdamW fusionné (ms)",
                "le pas (ms)"],
        caption=f"{model}, un pas de {rows_} × {columns_} jetons : médianes [quartiles] de {rounds} tours, un fil",
    )  # fmt: skip
    _say_what_was_timed(times, counted, model)
    if "AdamW" in found:
        slow, quick = (median(found["AdamW"][name]) for name in ("par défaut", "fusionné"))
        note(
            f"AdamW seul, sur tous les poids : {number(1000 * slow, 3, unit='ms')} par défaut, "
            f"{number(1000 * quick, 3, unit='ms')} fusionné, {number(slow / quick, 2)} fois moins."
        )


def _say_what_was_timed(times: Times, counted: Mapping[str, tuple[int, int]], model: str) -> None:
    """La phrase que disent ces durées, et elles seules."""
    for name in (n for n in ("LoRA", "LoRA en haut, cache") if n in times):
        low, middle, high = quartiles(share_of_full(times, name))
        told = counted[name][0] / counted["tout"][0]
        verdict = "comme" if low <= told <= high else "plus que" if low > told else "moins que"
        entire = [a / b for a, b in zip(whole_step(times[name]), whole_step(times["tout"]), strict=True)]
        note(
            f"{model}, « {name} » : {percent(middle)} d'un pas complet sans l'optimiseur ({verdict} le compte, "
            f"{percent(told)}), {percent(quartiles(entire)[1])} avec lui."
        )


# --- À qualité égale --------------------------------------------------------------------------------------------------


def durable_crossing(curve: Mapping[int, Sequence[float]], wanted: float) -> int | None:
    """Le premier pas relevé à partir duquel la perte moyenne reste sous `wanted` ; None si elle n'y reste pas."""
    steps = sorted(curve)
    below = [mean(curve[i]) <= wanted for i in steps]
    for k, i in enumerate(steps):
        if all(below[k:]):
            return i
    return None


def crossings(found: Mapping[str, Any], of: str = "LoRA") -> dict[str, list[int | None]]:
    """Méthode → par graine, le pas où elle passe pour de bon sous la perte finale de `of`, même graine."""
    wanted = [mean(run["B"][max(run["B"])]) for run in found[of]]
    return {
        name: [durable_crossing(run["B"], goal) for run, goal in zip(runs, wanted, strict=True)]
        for name, runs in found.items()
        if name != "apprennent"
    }


TIMED = {"tout": "tout", "LoRA": "LoRA", "LoRA en haut": "LoRA en haut"}
"""Les méthodes des descentes dont un pas a été chronométré."""


def durable_table(found: Mapping[str, Any] | None, times: Mapping[str, Any] | None) -> None:
    """Pas, puis secondes, jusqu'à la qualité finale de LoRA."""
    if found is None or times is None:
        note("Il manque un résultat enregistré pour ce tableau.")
        return
    reached, rows = crossings(found), []
    seconds = {
        name: [median(whole_step(times["pas"][TIMED[name]])) * i for i in steps if i is not None]
        for name, steps in reached.items()
        if name in TIMED and None not in steps
    }
    for name, steps in reached.items():
        arrived = [i for i in steps if i is not None]
        told = f"{len(arrived)} sur {len(steps)}"
        average = number(mean(arrived), 3) if arrived else "—"
        clock, gap = spread(seconds[name], 2, unit="s") if name in seconds else "—", "—"
        if name != "LoRA" and name in seconds and "LoRA" in seconds and len(seconds[name]) >= 5:
            between = paired(seconds[name], seconds["LoRA"])
            gap = f"{number(between.mean, 2, signed=True)} [{number(between.low, 2)} ; {number(between.high, 2)}] s"
        rows.append([name, told, average, clock, gap])
    table(
        rows,
        header=["méthode", "y arrivent", "pas, en moyenne", "secondes (étendue)", "face à LoRA [95 %]"],
        caption="Jusqu'à la perplexité finale de LoRA, durablement ; relevée tous les huit pas, cinq graines",
    )


# --- Servir -----------------------------------------------------------------------------------------------------------


def serving_table(found: Mapping[str, Sequence[float]]) -> None:
    """Une fenêtre, un jeton : Colibri, LoRA à part, LoRA fusionné. found : « version, quoi » → durées."""
    versions = list(dict.fromkeys(name.rpartition(", ")[0] for name in found))
    table(
        [[v, *(_shown(found[f"{v}, {what}"], 1000, 1) for what in ("fenêtre", "jeton"))] for v in versions],
        header=["modèle", "une fenêtre de 256 jetons (ms)", "un jeton (ms)"],
        caption=f"Médianes [quartiles] de {len(next(iter(found.values())))} tours, un fil",
    )
    for what, label in (("fenêtre", "une fenêtre"), ("jeton", "un jeton")):
        base = found[f"Colibri, {what}"]
        ratios = {v: quartiles([a / b for a, b in zip(found[f"{v}, {what}"], base, strict=True)]) for v in versions[1:]}
        told = " ; ".join(
            f"{v}, × {number(middle, decimals=2)} [{number(low, decimals=2)} ; {number(high, decimals=2)}]"
            for v, (low, middle, high) in ratios.items()
        )
        note(f"Pour {label}, face à Colibri : {told}.")


def ten_voices_table(found: Mapping[str, Any]) -> None:
    """Dix voix en un lot, ou dix passages. found : « durées », « écart », « octets »."""
    table(
        [
            [name, byte_size(found["octets"][name]), _shown(found["durées"][name], 1000, 1)]
            for name in ("un lot", "dix passages")
        ],
        header=["dix demandes, dix voix", "poids tenus", "durée (ms)"],
        caption=f"Médianes [quartiles] de {len(found['durées']['un lot'])} tours, un fil ; fenêtres de 64 jetons",
    )
    pairs = zip(found["durées"]["dix passages"], found["durées"]["un lot"], strict=True)
    low, middle, high = quartiles([a / b for a, b in pairs])
    note(
        f"Dix passages durent {number(middle, 2)} fois un lot (quartiles {number(low, 2)} et {number(high, 2)}) ; plus "
        f"grand écart de logits : {number(found['écart'], 2)}."
    )


# --- GPT-3 ------------------------------------------------------------------------------------------------------------


def paper_arithmetic() -> None:
    """Les trois affirmations de § 4.2 et de ses notes, refaites à la main."""
    total = GPT3["parameters"]
    full, lora = 32.5, 43.1
    rows = [
        ["« 350 GB », un modèle", f"175 255,8 M × 2 octets = {number(2 * total / 1e9, 4)} Go", "juste, en FP16"],
        [
            "« 35MB », son LoRA à r = 4",
            f"18,87 M × 2 octets = {number(2 * 18_874_368 / 1e6, 3, unit='Mo')}",
            f"« roughly 10,000× » : {number(total / 18_874_368, 4)}",
        ],
        [
            "« 25% speedup »",
            f"{number(lora, 3)} / {number(full, 3)} jetons/s = {percent(lora / full - 1, signed=True)} de débit",
            f"soit {percent(full / lora - 1)} de temps : 25 % est un gain de temps",
        ],
        [
            "ce que dirait 4N / 6N",
            f"{percent(4 / 6 - 1)} de temps, {percent(6 / 4 - 1, signed=True)} de débit",
            "le plafond, si tout le temps était dans ces produits",
        ],
        [
            "… et en recalculant les activations",
            f"6N / 8N : {percent(6 / 8 - 1)} de temps",
            "l'article ne dit pas s'il le fait : coïncidence, peut-être",
        ],
        [
            "« 1.2TB to 350GB » à l'apprentissage",
            f"3 × 350,5 = {number(3 * 2 * total / 1e12, 3, unit='To')} avec deux moments en FP16",
            "« by up to 2/3 » : un modèle au lieu de trois ; c'est notre lecture",
        ],
        [
            "100 tâches (note 4)",
            f"350 Go + 100 × 35 Mo = {number(350 + 100 * 0.035, 4, unit='Go')}",
            "contre 100 × 350 Go = 35 To",
        ],
    ]
    table(rows, header=["l'article (Hu et al., § 4.2)", "le calcul", "ce qu'il faut lire"])
