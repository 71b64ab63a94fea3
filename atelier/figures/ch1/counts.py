"""Chapitre 1, troisième partie : compter les paramètres, dire où ils sont, et ce qui change de GPT-2 à GPT-3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atelier.display import note, recorded, show, table
from atelier.figures.common.sizes import GPT3, shape_only
from atelier.figures.common.style import BLUE, GREEN, ORANGE, PURPLE, SKY, stacked_shares
from atelier.models import GPT2_SIZES
from atelier.text import NBSP, number, percent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

ANNOUNCED = {"small": 117, "medium": 345, "large": 762, "xl": 1542}
"""Millions de paramètres de la diapositive : Radford et al., 2019, tableau 2."""

GPT1_VOCABULARY = 40478
"""Entrées du vocabulaire de GPT-1 (Radford et al., 2018) tel que le publie `openai-gpt`."""

PARTS = {
    "table des jetons (et tête)": (BLUE, ""),
    "positions": (PURPLE, "xx"),
    "attention": (ORANGE, "//"),
    "MLP": (GREEN, ".."),
    "LayerNorm": (SKY, ""),
}


@recorded("ch1/count_models", needs=("count",))
def count_models(model: GPT2LMHeadModel, count: Any) -> None:
    """La formule de l'étudiant contre `num_parameters()`, pour Colibri et les quatre GPT-2."""
    c = model.config
    sizes = {"Colibri": (c.n_layer, c.n_embd, c.vocab_size, c.n_positions)}
    sizes |= {f"GPT-2 {name}": (layers, d, 50257, 1024) for name, (layers, d, _) in GPT2_SIZES.items()}
    rows = []
    for name, (layers, d, vocabulary, positions) in sizes.items():
        mine = count(layers, d, vocabulary, positions)
        theirs = (model if name == "Colibri" else shape_only(layers, d)).num_parameters()
        rows.append([name, layers, d, vocabulary, positions, mine, theirs, mine - theirs])
    table(
        rows,
        header=["modèle", "blocs", "d", "vocabulaire", "positions", "votre formule", "num_parameters()", "écart"],
        caption="Nombre de paramètres",
    )


@recorded("ch1/deck_counts", needs=("count",))
def deck_counts(count: Any) -> None:
    """Les tailles de la diapositive, celles des modèles publiés, et celles que redonne un autre vocabulaire."""
    rows = []
    for name, (layers, d, _) in GPT2_SIZES.items():
        published = count(layers, d)
        inferred = count(layers, d, GPT1_VOCABULARY)
        rows.append(
            [
                name,
                d,
                number(ANNOUNCED[name], unit="M"),
                published,
                number(published / 1e6, 4, unit="M"),
                number(inferred / 1e6, 6, unit="M"),
            ]
        )
    table(
        rows,
        header=[
            "GPT-2",
            "d",
            "diapositive",
            "modèle publié (votre formule)",
            "soit",
            f"avec {number(GPT1_VOCABULARY)} jetons",
        ],
        caption="Les mêmes modèles, comptés trois fois",
    )


def _part(name: str) -> str:
    if ".ln_" in name:
        return "LayerNorm"
    for key, part in ((".attn.", "attention"), (".mlp.", "MLP"), ("wte", "table des jetons (et tête)")):
        if key in name:
            return part
    return "positions"


def _parts(model: GPT2LMHeadModel) -> dict[str, int]:
    found = dict.fromkeys(PARTS, 0)
    for name, p in model.named_parameters():
        found[_part(name)] += p.numel()
    return found


def where_parameters(model: GPT2LMHeadModel) -> None:
    """Où sont les paramètres : une barre empilée par modèle, de Colibri à GPT-3."""
    models = {"Colibri": model}
    models |= {f"GPT-2 {name}": shape_only(layers, d) for name, (layers, d, _) in GPT2_SIZES.items()}
    models["GPT-3"] = shape_only(**GPT3)
    counts = {name: _parts(m) for name, m in models.items()}
    totals = {name: sum(parts.values()) for name, parts in counts.items()}
    labels = [f"{name}\n{_short(n)}" for name, n in totals.items()]
    fig, ax = stacked_shares(counts, PARTS, labels)
    ax.set_xlabel("part des paramètres (%)")
    ax.legend(ncols=5, fontsize=8.5, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    told = " ; ".join(
        f"{name} ({_short(totals[name])}){NBSP}: "
        + ", ".join(f"{part} {percent(n / totals[name], 3)}" for part, n in parts.items())
        for name, parts in counts.items()
    )
    show(fig, alt=f"Barres empilées, part des paramètres dans chaque composant. {told}.")


def _short(n: int) -> str:
    """« 124 M », « 175 Md »."""
    return number(n / 1e9, 3, unit="Md") if n >= 1e9 else number(n / 1e6, 3, unit="M")


@recorded("ch1/gpt2_to_gpt3", needs=("count",))
def gpt2_to_gpt3(count: Any) -> None:
    """De GPT-2 à GPT-3 : ce qui a changé, chiffres des deux articles et compte de l'étudiant."""
    layers, d, heads = GPT2_SIZES["xl"]
    two, three = count(layers, d), count(**GPT3)
    rows: list[list[Any]] = [
        ["blocs", number(layers), 96, number(2, before="×")],
        ["dimension d", number(d), number(12288), number(12288 / d, 2, before="×")],
        ["têtes par bloc", number(heads), 96, number(96 / heads, 2, before="×")],
        ["composantes par tête", number(d // heads), 128, number(2, before="×")],
        ["contexte (jetons)", number(1024), number(2048), number(2, before="×")],
        ["vocabulaire", number(50257), number(50257), "le même"],
        ["texte", "40 Go, 8 millions de documents", "300 milliards de jetons lus", ""],
        ["calcul d'apprentissage", "non publié", "3,14·10²³ FLOP (annexe D)", ""],
        ["paramètres, annoncés", "1 542 M", "175 Md", ""],
        ["paramètres, votre formule", number(two), number(three), number(three / two, 3, before="×")],
    ]
    table(
        rows,
        header=["", "GPT-2 (le plus grand)", "GPT-3", "rapport"],
        caption="GPT-2 : Radford et al., 2019, § 2.1 et tableau 2. GPT-3 : Brown et al., 2020, § 2 et tableau 2.1",
    )
    blocks = 12 * GPT3["n_layer"] * GPT3["d_model"] ** 2
    note(
        f"Les seules matrices des blocs font {percent(blocks / three, 4)} de GPT-3. Le texte de GPT-2 est "
        "donné en octets, celui de GPT-3 en jetons lus pendant l'apprentissage : les deux ne se divisent pas."
    )
