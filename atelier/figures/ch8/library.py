"""Chapitre 8, quatrième partie : peft, les voix mêlées, la carte des méthodes, une préférence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.ch8.seeds import perplexities, runs_table, seed_gap
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import byte_size, number, setting, spread

TEXTS = {"b_test": "fantasy (B)", "bprime_test": "vers (B′)", "a_validation": "administration (A)"}
"""Extrait → ce que c'est."""


def saved_table(found: Mapping[str, Any]) -> None:
    """Un adaptateur de peft, écrit puis relu. found : « fichiers », « relu », « débranché », « fusionné », « base »."""
    rows = [[name, byte_size(size)] for name, size in found["fichiers"].items()]
    rows.append(["Colibri entier, en FP32", byte_size(found["base"])])
    table(rows, header=["fichier", "taille"], caption="Ce que save_pretrained écrit")
    table(
        [
            ["relu sur une base neuve, contre l'original", number(found["relu"], 2)],
            ["adaptateur débranché, contre Colibri", number(found["débranché"], 2)],
            ["fusionné, contre l'original", number(found["fusionné"], 2)],
        ],
        header=["modèle", "plus grand écart de logits"],
        caption=f"Perplexité sur B, après la leçon : {number(perplexity_of(found['B']), 3)}",
    )


def peft_note(found: Mapping[str, Any]) -> None:
    """Votre LoRA et celui de peft. found : « apprennent », « taille » des logits, « à part », « fusionnés »."""
    mine, theirs = (number(n) for n in found["apprennent"])
    note(
        f"Nombres appris : {mine} chez vous, {theirs} chez peft. Plus grand écart de logits : "
        f"{number(found['à part'], 2)} à part, {number(found['fusionnés'], 2)} fusionnés, pour des logits d'écart-type "
        f"{number(found['taille'], 3)}."
    )


# --- Les voix mêlées --------------------------------------------------------------------------------------------------


def plot_mixed(found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Perplexité de λΔ(B) + (1 − λ)Δ(B′) sur trois textes. found : « λ = … », « somme », « rien » → texte → parts."""
    shares = {float(name[4:]): name for name in found if name.startswith("λ")}
    fig, ax = canvas(7.6, 3.7)
    for style, (text, label) in zip(SERIES, TEXTS.items(), strict=False):
        xs = sorted(shares)
        ax.plot(xs, [perplexity_of(found[shares[x]][text]) for x in xs], label=label, **style)
        ax.plot([1.12], [perplexity_of(found["somme"][text])], color=style["color"], marker=style["marker"], lw=0)
        ax.axhline(perplexity_of(found["rien"][text]), color=style["color"], lw=0.8, linestyle=":")
    ax.set_xticks([*sorted(shares), 1.12], [*(number(x) for x in sorted(shares)), "somme"])
    ax.set(xlabel="λ, part de la fantasy", ylabel="perplexité (échelle logarithmique)", yscale="log")
    ticks = [10, 20, 50, 100, 200, 400]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=9, title="jugé sur (pointillé : sans LoRA)", title_fontsize=9)
    french(ax, x=False)
    told = " ; ".join(
        f"{name} : " + ", ".join(f"{label} {number(perplexity_of(row[text]), 3)}" for text, label in TEXTS.items())
        for name, row in found.items()
    )
    show(fig, alt=f"Perplexité sur trois textes selon le mélange. {told}.")
    table(
        [[name, *(number(perplexity_of(row[text]), 3) for text in TEXTS)] for name, row in found.items()],
        header=["mises à jour", *TEXTS.values()],
        caption="Perplexité ; « rien » : Colibri lui-même",
    )


# --- La carte des méthodes --------------------------------------------------------------------------------------------

FAMILIES = {
    "tout": "tout",
    "BitFit": "choisissent",
    "LayerNorm": "choisissent",
    "(IA)³": "ajoutent",
    "prefix": "ajoutent",
    "VeRA": "réécrivent",
    "LoRA": "réécrivent",
    "LoRA+": "réécrivent",
    "rsLoRA": "réécrivent",
    "DoRA": "réécrivent",
    "PiSSA": "réécrivent",
}
"""Méthode → famille : celles qui ajoutent, celles qui choisissent, celles qui réécrivent la mise à jour."""


def peft_map_table(here: Mapping[str, Any], author: Mapping[str, Any] | None) -> str:
    """Chaque méthode, à son taux. here, author : « B », « A », « apprennent », « taux », et « rien », Colibri.

    Rend la variante de LoRA qui la devance d'au moins 3 % de perplexité sur B, ou « aucune ».
    """
    kept = author or here
    more = {
        name: [FAMILIES[name], n, setting(kept["taux"][name]), spread(perplexities(kept["A"][name]), 3)]
        for name, n in sorted(kept["apprennent"].items(), key=lambda item: item[1])
    }
    before = {key: number(perplexity_of(parts), 3) for key, parts in kept["rien"].items()}
    runs_table(
        here["B"],
        None if author is None else {name: author["B"][name] for name in more},
        "LoRA",
        f"Après une leçon, chaque méthode à son taux (Colibri, par ces fenêtres : {before['B']} sur B, "
        f"{before['A']} sur A)",
        more=more,
        more_header=["celles qui…", "nombres appris", "taux", "perplexité sur A"],
    )
    gaps = {n: seed_gap(kept["B"][n], kept["B"].get("LoRA", ())) for n in ("DoRA", "rsLoRA", "LoRA+") if n in kept["B"]}
    ahead = {name: gap.mean for name, gap in gaps.items() if gap is not None and gap.high < 0 and gap.mean < -0.03}
    return min(ahead, key=lambda name: ahead[name]) if ahead else "aucune"


def plot_peft_map(found: Mapping[str, Any]) -> None:
    """Ce que chaque méthode apprend contre ce qu'elle oublie, moyenne des graines ; hors du cadre, elle est écrite."""
    fig, ax = canvas(7.6, 4.4)
    styles = dict(zip(dict.fromkeys(FAMILIES.values()), SERIES, strict=False))
    points = {n: tuple(mean(perplexities(found[key][n])) for key in ("A", "B")) for n in found["apprennent"]}
    start = tuple(perplexity_of(found["rien"][key]) for key in ("A", "B"))
    seen, outside = set(), []
    for name, point in points.items():
        family = FAMILIES[name]
        told = f"{name} (A {number(point[0], 3)}, B {number(point[1], 3)})"
        if point[1] > 1.05 * start[1]:
            outside.append(told)
            continue
        label = "tout apprend" if family == "tout" else f"celles qui {family}"
        style = {"color": styles[family]["color"], "marker": styles[family]["marker"]}
        ax.plot(*point, lw=0, label=None if family in seen else label, **style)
        ax.annotate(name, point, xytext=BESIDE.get(name, (7, -3)), textcoords="offset points", fontsize=9)
        seen.add(family)
    ax.plot(*start, marker="x", color=BLACK, lw=0, label="Colibri, sans rien apprendre")
    ax.set_xlabel("perplexité sur A, ensuite (à gauche : moins d'oubli)")
    ax.set_ylabel("perplexité sur B, ensuite (en bas : mieux appris)")
    ax.margins(x=0.1)
    french(ax)
    ax.legend(fontsize=8.5, title=f"hors du cadre : {', '.join(outside)}" if outside else None, title_fontsize=8.5)
    told = " ; ".join(f"{n}, A {number(a, 3)}, B {number(b, 3)}" for n, (a, b) in points.items())
    show(fig, alt=f"Perplexité sur B contre perplexité sur A, méthode par méthode. {told}.")


BESIDE = {"LoRA": (-12, 8), "DoRA": (6, -10), "rsLoRA": (6, -10), "LoRA+": (6, 4), "VeRA": (-14, -14), "(IA)³": (7, 0)}
"""Où écrire un nom à côté de son point, en points typographiques, quand deux points se touchent."""


# --- Une préférence ---------------------------------------------------------------------------------------------------


def preferences_table(
    here: Sequence[Mapping[str, Any]],
    author: Sequence[Mapping[str, Any]] | None,
    before: Mapping[str, Sequence[float]],
) -> None:
    """Une course de DPO. here, author : par graine, « pertes » pas à pas, et les parts de deux textes."""
    kept = author or here
    fig, ax = canvas(6.4, 3.0)
    for k, run in enumerate(kept):
        ax.plot(range(1, len(run["pertes"]) + 1), run["pertes"], color=SERIES[0]["color"], lw=1.2, alpha=0.8,
                label="une graine" if not k else None)  # fmt: skip
    ax.axhline(0.693, color=BLACK, linestyle=":", label="ln 2 : aucune préférence")
    ax.set(xlabel="pas", ylabel="perte DPO (nats)", ylim=(0, 0.8))
    french(ax)
    ax.legend(fontsize=9)
    first, last = (mean(run["pertes"][k] for run in kept) for k in (0, -1))
    show(fig, alt=f"Perte DPO pas à pas, de {number(first, 2)} à {number(last, 2)} en moyenne sur {len(kept)} graines.")
    rows = []
    for text, label in (("bprime_test", "vers (choisis)"), ("a_validation", "administration (rejetée)")):
        after = [perplexity_of(run[text]) for run in kept]
        rows.append([label, perplexity_of(before[text]), spread(after, 3)])
    table(
        rows, header=["perplexité sur…", "avant", "après DPO (étendue)"], caption="Sur des textes que rien n'a appris"
    )
