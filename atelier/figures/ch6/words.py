"""Chapitre 6, troisième partie : étiqueter des mots, reconnaître des catégories, traduire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from atelier.display import note, show, table
from atelier.figures.ch6 import tasks
from atelier.figures.ch6.classes import UNDECIDED
from atelier.figures.ch6.compare import gaps, points, said, verdict
from atelier.figures.common.style import BLUE, GREEN, ORANGE, RED, canvas, french
from atelier.models import load_tokenizer
from atelier.text import number, plural, setting, spread

SHOWN = 5
"""Phrase montrée : son rang dans la partie test."""
_TAGGERS = {
    ("l'étiquette la plus fréquente du mot", ""): "l'étiquette la plus fréquente du mot, sans modèle",
    ("zéro", "premier"): "parti de zéro, premier jeton",
    ("Colibri", "premier"): "Colibri, premier jeton",
    ("Colibri", "dernier"): "Colibri, dernier jeton",
}


def pieces(ids: Sequence[int], tokenizer: Any = None) -> list[str]:
    """Ce que chaque jeton écrit, les espaces montrées."""
    tokenizer = tokenizer or load_tokenizer("colibri")
    shown = (tasks.decoded(tokenizer, [i], clean_up_tokenization_spaces=False) for i in ids)
    return [text.replace(" ", "␣").replace("\n", "⏎") for text in shown]


def tagged_sentence() -> None:
    """Une phrase : ses jetons, le mot de chacun, son étiquette."""
    line = tasks.tagged("test")[SHOWN]
    ids, word_ids = tasks.words_to_tokens(line["mots"])
    rows = [
        [piece, "–", "", ""] if w is None else [piece, str(w), line["mots"][w], line["etiquettes"][w]]
        for piece, w in zip(pieces(ids), word_ids, strict=True)
    ]
    table(
        rows,
        header=["jeton", "numéro du mot", "mot", "étiquette du mot"],
        caption=f"{len(line['mots'])} mots, {len(ids)} jetons : où poser chaque étiquette ? (␣ : une espace)",
    )


def _rates(found: Mapping[Any, float], names: Mapping[Any, str], caption: str, lowest: bool = False) -> None:
    """Un taux par ligne de façons : (façon, taux) → note ; le meilleur est le plus haut, ou le plus bas."""
    rows = []
    for way, name in names.items():
        tried = {key[-1]: value for key, value in found.items() if tuple(key[:-1]) == way}
        if not tried:
            continue
        best = (min if lowest else max)(tried, key=lambda lr: tried[lr])
        every = " · ".join(
            f"{setting(lr)} : {number(v, 3) if lowest else number(100 * v, decimals=1)}" for lr, v in tried.items()
        )
        rows.append([name, every, setting(best)])
    what = "perplexité" if lowest else "bonnes réponses (%)"
    table(rows, header=["façon", f"réglage : {what}, validation", "le meilleur"], caption=caption)


def tag_rates_table(found: Mapping[tuple[str, str, float], float]) -> None:
    """Mots bien étiquetés sur la validation, selon le taux."""
    _rates(found, _TAGGERS, "Étiqueter : soixante pas, une graine")


def category_settings_table(found: Mapping[tuple[str, float], float]) -> None:
    """Catégories bien devinées sur la validation, selon le réglage."""
    names = {("zéro",): "de zéro", ("Colibri",): "de Colibri", ("TF-IDF",): "TF-IDF des suites de lettres"}
    _rates(found, names, "Catégories de Littré : soixante pas, une graine")


def translation_rates_table(found: Mapping[tuple[str, float], float]) -> None:
    """Perplexité des réponses de la validation, selon le taux."""
    names = {(way,): f"perte sur {LEARNED[way]}" for way in LEARNED}
    _rates(found, names, "Traduire : quarante pas, une graine", lowest=True)


def tags_table(here: Mapping[Any, Tensor], author: Mapping[Any, Tensor] | None) -> str:
    """Mots bien étiquetés, et l'écart au premier jeton. found : (départ, jeton) → (graines, mots), 1 si juste.

    Rend le verdict du pari.
    """
    kept = author or here
    rows, base = [], kept.get(("Colibri", "premier"))
    for way, name in _TAGGERS.items():
        if way not in kept:
            continue
        both = None if base is None or way == ("Colibri", "premier") else gaps(kept[way], base)
        cells = ["—", "—"] if both is None else [said(both.by_seed), said(both.by_item)]
        rows.append([name, number(points(kept[way]), decimals=1), *cells, verdict(both)])
    seeds = max(map(len, kept.values()))
    table(
        rows,
        header=["façon d'étiqueter", "mots (%)", "face au premier jeton, par graine", "par mot", "départagés ?"],
        caption=f"Mots d'accord avec l'étiquette d'argent : 150 phrases de test, {plural(seeds, 'graine')}"
        + (" (auteur)" if author else ""),
    )
    _live(here, author, _TAGGERS)
    last = kept.get(("Colibri", "dernier"))
    both = gaps(last, base) if base is not None and last is not None else None
    if both is None or not both.told_apart:
        return UNDECIDED
    return "le dernier" if both.by_seed.mean > 0 else "le premier jeton du mot"


def _live(here: Mapping[Any, Tensor], author: Mapping[Any, Tensor] | None, names: Mapping[Any, str]) -> None:
    if author is None or here is author:
        return
    told = [
        f"{names.get(way, way)} : {number(points(v), decimals=1)} %"
        for way, v in here.items()
        if way not in author or v.shape != author[way].shape
    ]
    if told:
        note(f"Ici, une graine : {' ; '.join(told)}.")


def plot_littre(here: Mapping[str, Tensor], author: Mapping[str, Tensor] | None) -> str:
    """Catégories bien devinées, façon par façon ; un trait par graine. Rend le verdict du pari."""
    kept = author or here
    lines = tasks.rows("categories_littre", "test")
    table(
        [[word, category, definition[:90]] for word, category, definition in lines[:5]],
        header=["mot", "catégorie selon Littré", "début de la définition"],
        caption="Étiquettes posées par Littré lui-même, 1863-1877",
    )
    ways = {
        "la plus fréquente": ("catégorie la plus fréquente", "", ORANGE),
        "zéro": ("de zéro", "xx", RED),
        "TF-IDF": ("TF-IDF des suites de lettres", "//", GREEN),
        "Colibri": ("de Colibri", "", BLUE),
    }
    ways = {way: about for way, about in ways.items() if way in kept}
    fig, ax = canvas(7.5, 2.6)
    told = []
    for i, (way, (name, hatch, color)) in enumerate(ways.items()):
        each = [100 * v for v in kept[way].float().mean(1).tolist()]
        ax.barh(i, mean(each), color=color, alpha=0.8, hatch=hatch, edgecolor="white")
        ax.plot(each, [i] * len(each), "|", color="black", markersize=12)
        shown = number(mean(each), decimals=1, unit="%")
        ax.annotate(shown, (max(each), i), xytext=(6, -3), textcoords="offset points")
        told.append(f"{name}, {shown}")
    ax.set_yticks(range(len(ways)), [name for name, *_ in ways.values()])
    ax.set(xlim=(0, 105), xlabel="bonnes réponses sur les mots de test (%)")
    french(ax, y=False)
    show(fig, alt=f"Barres, catégorie grammaticale devinée, un trait par graine : {' ; '.join(told)}.")
    both = gaps(kept["Colibri"], kept["TF-IDF"])
    if both is not None:
        note(f"Colibri face à TF-IDF, en points : {said(both.by_seed)} par graine, {said(both.by_item)} par mot.")
    _live(here, author, {way: name for way, (name, *_) in ways.items()})
    if both is None or not both.told_apart:
        return "aussi bien, à l'incertitude près"
    return "mieux" if both.by_seed.mean > 0 else "moins bien"


# --- Traduire ---------------------------------------------------------------------------------------------------------

LEARNED = {"réponse seule": "la réponse seule", "amorce aussi": "l'amorce aussi"}


def translation_sample(tokenizer: Any) -> None:
    """Quelques couples, dans le format qui sera donné au modèle."""
    couples, rows = tasks.pairs("train"), []
    for en, fr in couples[3:120:29]:
        inside = len(tokenizer(tasks.prompt(en))["input_ids"])
        whole = len(tokenizer(f"{tasks.prompt(en)} {fr}")["input_ids"])
        rows.append([f"{tasks.prompt(en)} {fr}", inside, whole - inside])
    table(
        rows,
        header=["le texte à continuer", "jetons d'amorce", "jetons de réponse"],
        caption=f"{number(len(couples))} couples de l'aide de LibreOffice, 40 jetons au plus",
    )


def translation_table(
    here: Mapping[str, Sequence[Mapping[str, Any]]], author: Mapping[str, Sequence[Mapping[str, Any]]] | None
) -> str:
    """Traductions : chrF, exactes, et la surprise devant la bonne réponse. found : façon → notes par graine.

    Rend le verdict du pari.
    """
    kept = author or here
    rows = []
    for way, notes in kept.items():
        cells = [
            spread([n[key] for n in notes], 3) if key in notes[0] else "—" for key in ("bonne amorce", "autre amorce")
        ]
        exact = number(100 * mean(n["exact"] for n in notes), decimals=1)
        rows.append([LEARNED.get(way, way), spread([n["chrf"] for n in notes], 3), exact, *cells])
    seeds = max(map(len, kept.values()))
    table(
        rows,
        header=[
            "façon de traduire",
            "chrF (0 à 100)",
            "exactes (%)",
            "perplexité de la bonne réponse",
            "la même, après l'amorce d'une autre phrase",
        ],
        caption=f"191 phrases de test ; moyenne et étendue de {plural(seeds, 'graine')}{' (auteur)' if author else ''}",
    )
    own = here.get("réponse seule", [])
    if own and "phrases" in own[0]:
        table(
            [[en, fr, " / ".join(made.splitlines())] for en, fr, made in own[0]["phrases"][:6]],
            header=["anglais", "traduction du corpus", "Colibri, réponse seule"],
            caption="Ce qu'il écrit",
        )
    if author is not None and here is not author and own:
        note(f"Ici, réponse seule, une graine : chrF {number(own[0]['chrf'], 3)}.")
    memory = kept["phrase connue la plus proche"][0]["chrf"]
    return "la bat" if min(n["chrf"] for n in kept["réponse seule"]) > memory else "ne la bat pas"
