"""Chapitre 6, première partie : changer la voix de Colibri, et ce que cela lui fait oublier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.common.measured import measured
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.hardware import beside
from atelier.models import load_model
from atelier.perplexity import evaluate_perplexity, extract
from atelier.text import long_date, number
from atelier.training import corpus_tokens, train, windows

if TYPE_CHECKING:
    from torch import nn
    from transformers import GPT2LMHeadModel

CHAPTER = "ch6_finetuning"
TEXTS = {"a": "A, langue générale", "b": "B, fantasy", "bprime": "B′, vers classiques"}
"""Extraits → ce qu'ils sont."""
VOICES = {"b": "fantasy", "bprime": "vers"}

DEPTHS = {
    "ln_f": ["ln_f"],
    "dernier bloc": ["h.4.", "ln_f"],
    "2 derniers": ["h.3.", "h.4.", "ln_f"],
    "3 derniers": ["h.2.", "h.3.", "h.4.", "ln_f"],
    "tous les blocs": ["h.", "ln_f"],
    "table seule": ["wte"],
    "premier bloc": ["h.0."],
    "tout": ["transformer"],
}
"""Ce que l'on dégèle dans Colibri : nom enregistré → motifs de noms de paramètres."""
SHOWN_DEPTHS = {
    "ln_f": "dernier LayerNorm",
    "2 derniers": "2 derniers blocs",
    "3 derniers": "3 derniers blocs",
    "table seule": "table des jetons",
}
"""Comment le dire au lecteur, quand le nom enregistré ne suffit pas."""


measures = partial(measured, CHAPTER)
"""Les mesures enregistrées de ces expériences ; None, et une phrase, s'il en manque."""


def source(found: dict[str, Any], what: str) -> str:
    """« Mesuré par l'auteur (…) » : d'où vient un chiffre enregistré."""
    return f"Mesuré par l'auteur ({what} ; {found['machine'].split(' · ')[0]}, {long_date(found['date'])})."


def three_texts(model: GPT2LMHeadModel, tokenizer: Any, max_tokens: int) -> None:
    """Les trois textes : leurs premiers mots, et la perplexité de Colibri sur chacun (validation)."""
    rows = []
    for name, label in TEXTS.items():
        text = extract(f"{name}_validation")
        words = " / ".join(line for line in text.splitlines()[2:12] if line)[:120]
        found = evaluate_perplexity(model, f"{name}_validation", tokenizer, max_tokens)
        rows.append([label, f"{words}…", round(found.perplexity, 2), round(found.bits_per_byte, 3)])
    table(
        rows,
        header=["texte", "un début", "perplexité de Colibri", "bits par octet"],
        caption="Trois voix, jamais lues par Colibri pendant son apprentissage (extraits de validation)",
    )


def plot_own_loop(found: Mapping[str, Any]) -> None:
    """La perte et la norme du gradient de chaque pas, sa borne, et ce que la boucle a changé.

    found : « pas » (perte en nats, norme avant la borne), « borne », « avant », « après » (perplexités), « jetons ».
    """
    losses, norms = zip(*found["pas"], strict=True)
    steps, limit = range(1, len(losses) + 1), found["borne"]
    fig, axes = canvas(9.0, 2.9, columns=2)
    for ax, values, title, look in zip(
        axes, (losses, norms), ("perte (nats)", "norme du gradient"), SERIES, strict=False
    ):
        ax.plot(steps, values, lw=1.4, **look | {"ms": 3})
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("pas")
        french(ax)
    axes[1].axhline(limit, color=BLACK, lw=1.0, linestyle=":", label="borne")
    axes[1].legend(frameon=False, fontsize=8.5)
    bounded = sum(n > limit for n in norms)
    told = f"{bounded} pas sur {len(norms)} dépassent la borne, {number(limit, 2)}"
    show(
        fig,
        alt=f"Deux courbes, {len(losses)} pas. Perte : de {number(losses[0], 3)} à {number(losses[-1], 3)} nats ; "
        f"norme du gradient : de {number(norms[0], 3)} à {number(norms[-1], 3)} ; {told}.",
    )
    before, after = (number(found[when], decimals=1) for when in ("avant", "après"))
    note(f"{told}. Perplexité sur la fantasy, {found['jetons']} jetons : {before} avant, {after} après.")


def new_voice(voice: str, steps: int, lr: float = 1e-3) -> GPT2LMHeadModel:
    """Une copie de Colibri, tous ses poids ajustés sur cette voix (« b » ou « bprime ») ; dit le temps et la perte."""
    model = load_model("colibri")
    batches = windows(corpus_tokens(f"{voice}_train"), batch_size=8, length=96, seed=0)
    log = train(model, batches, steps, lr=lr, what=VOICES[voice])
    smooth = log.smoothed(10)
    note(
        f"{TEXTS[voice]} : {steps} pas de 8 × 96 jetons en {number(log.seconds, 2, unit='s')} ; "
        f"perte {number(log.losses[0], 3)} au premier pas, {number(smooth[-1], 3)} à la fin (moyenne de dix pas)."
    )
    return model


def side_by_side(models: dict[str, GPT2LMHeadModel], tokenizer: Any, openings: Sequence[str], n_new: int) -> None:
    """Les mêmes débuts, continués par chaque modèle : même graine, température 0,8, 40 jetons les plus probables."""
    rows = []
    for opening in openings:
        line = [opening]
        for model in models.values():
            ids = beside(model, tokenizer(opening, return_tensors="pt")["input_ids"])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                made = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    temperature=0.8,
                    top_k=40,
                    max_new_tokens=n_new,
                    min_new_tokens=n_new,
                    pad_token_id=model.config.eos_token_id,
                )[0, ids.shape[1] :]
            line.append("… " + " / ".join(tokenizer.decode(made, skip_special_tokens=True).strip().splitlines()))
        rows.append(line)
    table(rows, header=["début", *models], caption="Tirage au sort : même graine, température 0,8, top-k de 40")


def perplexity_grid(models: dict[str, GPT2LMHeadModel], max_tokens: int) -> None:
    """Perplexité de chaque modèle sur chacun des trois textes."""
    rows = [
        [name, *(round(evaluate_perplexity(m, f"{t}_validation", max_tokens=max_tokens).perplexity, 1) for t in TEXTS)]
        for name, m in models.items()
    ]
    table(rows, header=["modèle", *TEXTS.values()], caption="Perplexité : une ligne par modèle, une colonne par texte")


def forgetting_curves() -> None:
    """Perplexité sur la voix apprise et sur la langue d'origine, pas après pas (enregistré, trois graines)."""
    if (found := measures("voix b")) is None:
        return
    voices = {voice: label for voice, label in VOICES.items() if f"voix {voice}" in found}
    fig, axes = canvas(9.0, 3.7, columns=2)
    told = []
    for style, (voice, label) in zip(SERIES, voices.items(), strict=False):
        runs = found[f"voix {voice}"]
        steps, new, old = zip(*runs[0]["trace"], strict=True)
        ends = [run["trace"][-1] for run in runs]
        for ax, values, column in ((axes[0], new, 1), (axes[1], old, 2)):
            ax.plot(steps, values, label=label, **style)
            ax.plot([e[0] for e in ends], [e[column] for e in ends], "_", color=style["color"], markersize=14)
        told.append(
            f"{label} : de {number(new[0], 3)} à {number(new[-1], 3)} sur sa voix, "
            f"de {number(old[0], 3)} à {number(old[-1], 3)} sur A"
        )
    for ax, title in zip(axes, ("sur la voix apprise", "sur la langue d'origine (A)"), strict=True):
        ax.set(title=title, xlabel="pas de fine-tuning", ylabel="perplexité")
        ax.set_yscale("log")
        _plain_log(ax)
        ax.legend(frameon=False)
    show(fig, alt=f"Deux courbes par cadre, pas 0 à {steps[-1]}. {'. '.join(told)}.")
    note(
        source(
            found,
            f"{len(runs)} graines : les tirets marquent la fin de chacune ; courbe de la première ; "
            f"{number(found['recette']['voix']['jetons'])} jetons évalués",
        )
    )


def _plain_log(ax: Any) -> None:
    """Échelle logarithmique verticale, graduée de nombres ordinaires."""
    from matplotlib.ticker import LogLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    french(ax, x=False)


def rates_and_forgetting() -> None:
    """Un point par taux d'apprentissage : ce que l'on gagne sur la fantasy, ce que l'on perd sur A (enregistré)."""
    if (found := measures("taux", "voix b")) is None:
        return
    first = found["voix b"][0]["trace"]
    points = {float(lr): line for lr, line in found["taux"].items()}
    points[found["recette"]["voix"]["taux"]] = first[-1]
    fig, ax = canvas(6.8, 4.0)
    rates = sorted(points)
    xs, ys = [first[0][2], *(points[r][2] for r in rates)], [first[0][1], *(points[r][1] for r in rates)]
    ax.plot(xs, ys, "-", color="#999999", linewidth=1)
    ax.plot(xs[0], ys[0], "D", color=RED, markersize=9)
    ax.annotate("Colibri, avant", (xs[0], ys[0]), xytext=(8, 2), textcoords="offset points")
    for rate, x, y in zip(rates, xs[1:], ys[1:], strict=True):
        ax.plot(x, y, "o", color=BLUE, markersize=8)
        place = {"xytext": (-9, -11), "ha": "right"} if rate <= 1e-3 else {"xytext": (8, -4)}
        ax.annotate(f"taux {number(rate, 2)}", (x, y), textcoords="offset points", **place)
    ax.set(xscale="log", yscale="log", xlabel="perplexité sur A : l'oubli, vers la droite", ylabel="perplexité sur B")
    ax.set_title("Plus bas, il parle mieux la fantasy ; plus à gauche, il oublie moins", fontsize=10)
    french(ax)
    _plain_log(ax)
    ax.margins(x=0.25, y=0.15)
    body = " ; ".join(f"taux {number(r, 2)}, B {number(points[r][1], 3)}, A {number(points[r][2], 3)}" for r in rates)
    show(fig, alt=f"Nuage relié, perplexité sur B contre perplexité sur A. Avant : B {number(ys[0], 3)}, "
         f"A {number(xs[0], 3)} ; {body}.")  # fmt: skip
    note(source(found, f"une graine, {first[-1][0]} pas"))


def rehearsal() -> None:
    """L'ancien texte glissé dans les lots, à nombre de pas égal ; et le même modèle parti de zéro (enregistré)."""
    if (found := measures("remedes", "voix b")) is None:
        return
    start, *_, end = found["voix b"][0]["trace"]
    rows = [["Colibri, avant", start[1], start[2]], ["fantasy seule", end[1], end[2]]]
    rows += [[name, line[1], line[2]] for name, line in found["remedes"].items() if name != "zéro"]
    zero = found["remedes"]["zéro"]
    rows.append(["fantasy seule, modèle parti de zéro", zero[1], zero[2]])
    table(
        [[name, round(b, 1), round(a, 1)] for name, b, a in rows],
        header=["lots de 8 fenêtres", "perplexité sur B", "perplexité sur A"],
        caption=f"Répétition : des fenêtres de A à la place de fenêtres de B, {end[0]} pas pour tous",
    )
    note(source(found, "une graine"))


@recorded("ch6/depths", needs=("freeze",))
def depths(freeze: Any) -> None:
    """Dégeler étage par étage : paramètres (comptés par l'étudiant), perplexités sur B et sur A (enregistrées)."""
    model, found = load_model("colibri"), measures("profondeur", "voix b")
    ends = {name: found["profondeur"][name]["trace"][-1][1:] for name in DEPTHS} if found else {}
    rows = []
    for name, patterns in DEPTHS.items():
        trained = set(freeze(model, patterns))
        count = sum(p.numel() for n, p in model.named_parameters() if n in trained)
        rows.append([SHOWN_DEPTHS.get(name, name), count, *(round(v, 1) for v in ends.get(name, ()))])
    table(
        rows,
        header=["ce qui apprend", "paramètres", *(["perplexité sur B", "perplexité sur A"] if ends else [])],
        caption="Colibri fine-tuné sur la fantasy, dégelé par étages",
    )
    if found is None:
        return
    start = found["voix b"][0]["trace"][0]
    points = {name: (old, new) for name, (new, old) in ends.items()}
    fig, ax = canvas(7.2, 4.0)
    ax.plot(start[2], start[1], "D", color=RED, markersize=9)
    ax.annotate("Colibri, avant", (start[2], start[1]), xytext=(8, -3), textcoords="offset points", fontsize=9)
    from_top = [points[n] for n in ("ln_f", "dernier bloc", "2 derniers", "3 derniers", "tous les blocs", "tout")]
    ax.plot(*zip(*from_top, strict=True), "-", color="#999999", linewidth=1)
    for name, (old, new) in points.items():
        inside = name in ("table seule", "premier bloc")
        ax.plot(old, new, "^" if inside else "o", color=RED if inside else BLUE, markersize=8)
        place = {"xytext": (-9, -4), "ha": "right"} if name in ("table seule", "3 derniers") else {"xytext": (8, 5)}
        ax.annotate(SHOWN_DEPTHS.get(name, name), (old, new), textcoords="offset points", fontsize=9, **place)
    ax.set(xlabel="perplexité sur A : l'oubli, vers la droite", ylabel="perplexité sur B")
    ax.set_title("Ronds : dégelé depuis le haut ; triangles : une seule partie", fontsize=10)
    french(ax)
    ax.margins(x=0.18, y=0.1)
    body = " ; ".join(f"{SHOWN_DEPTHS.get(n, n)}, B {number(y, 3)}, A {number(x, 3)}" for n, (x, y) in points.items())
    show(fig, alt=f"Nuage de points, perplexité sur B contre perplexité sur A, selon ce qui apprend : {body}.")
    spread = [run["trace"][-1][1] for run in found["voix b"]]
    note(
        source(found, "une graine")
        + f" Les {len(spread)} graines de « tout » vont de {number(min(spread), 3)} à {number(max(spread), 3)} sur B."
    )


def step_times() -> None:
    """Durée d'un pas selon ce qui apprend, pour Colibri et pour les formes de GPT-2 small (enregistré)."""
    if (found := measures("temps")) is None:
        return
    times = found["temps"]
    colibri, small = times["Colibri"], times["GPT-2 small"]
    table(
        [
            [
                SHOWN_DEPTHS.get(name, name),
                round(1000 * colibri[name], 1),
                number(round(1000 * small[name]), 4) if name in small else "–",
            ]
            for name in ("tout", "3 derniers", "dernier bloc", "ln_f", "table seule", "premier bloc")
        ],
        header=["ce qui apprend", "Colibri, un pas (ms)", "GPT-2 small, un pas (ms)"],
        caption=f"Passages avant et arrière, AdamW : {' × '.join(map(str, colibri['lot']))} jetons pour Colibri, "
        f"{' × '.join(map(str, small['lot']))} pour GPT-2 small (poids au hasard)",
    )
    note(source(found, "durées médianes"))


def trainable(model: nn.Module) -> int:
    """Nombre de paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
