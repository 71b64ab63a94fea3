"""Chapitre 6, troisième partie : étiqueter des mots, reconnaître des catégories, traduire."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.ch6 import tasks
from atelier.figures.ch6.voices import measures, source
from atelier.figures.common.style import BLUE, GREEN, ORANGE, RED, canvas, french
from atelier.hardware import beside
from atelier.models import load_model, load_tokenizer
from atelier.text import number, percent, spread
from atelier.training import train

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHOWN = 5
"""Phrase montrée : son rang dans la partie test."""


def _pieces(ids: list[int]) -> list[str]:
    tokenizer = load_tokenizer("colibri")
    return [tasks.decoded(tokenizer, [i], clean_up_tokenization_spaces=False).replace(" ", "␣") for i in ids]


def tagged_sentence() -> None:
    """Une phrase : ses jetons, le mot de chacun, son étiquette."""
    line = tasks.tagged("test")[SHOWN]
    ids, word_ids = tasks.words_to_tokens(line["mots"])
    rows = [
        [
            piece,
            "–" if w is None else w,
            "" if w is None else line["mots"][w],
            "" if w is None else line["etiquettes"][w],
        ]
        for piece, w in zip(_pieces(ids), word_ids, strict=True)
    ]
    table(
        [[str(cell) for cell in row] for row in rows],
        header=["jeton", "numéro du mot", "mot", "étiquette du mot"],
        caption=f"{len(line['mots'])} mots, {len(ids)} jetons : où poser chaque étiquette ? (␣ : une espace)",
    )


def _percents(values: Any) -> str:
    """Une moyenne, et l'étendue des graines s'il y en a plusieurs."""
    values = values if isinstance(values, list) else [values]
    return spread([100 * v for v in values], 3, unit="%")


@recorded("ch6/tagging", needs=("align",))
def tagging(align: Any, n: int, steps: int, n_test: int) -> None:
    """Étiqueter, ici, avec l'alignement de l'étudiant ; puis les comparaisons enregistrées."""
    known, test = tasks.tag_examples("train", align, n), tasks.tag_examples("test", align, n_test)
    reader = tasks.Reader(load_model("colibri"), len(tasks.UPOS))
    log = train(reader, known.batches(8, 0), steps, lr=1e-3, loss=tasks.label_loss, what="étiquetage")
    predicted = tasks.outputs(lambda ids, mask: reader(ids, mask).argmax(-1), test, len(test)).long()
    note(
        f"{len(known)} phrases, {steps} pas ({number(log.seconds, 2, unit='s')}) : "
        f"{percent(tasks.tag_accuracy(predicted, test), 3)} des mots de {len(test)} phrases de test."
    )
    line = tasks.tagged("test")[SHOWN]
    ids, word_ids = tasks.words_to_tokens(line["mots"])
    places = [i for i, label in enumerate(align(word_ids, list(range(len(line["mots"]))))) if label != tasks.IGNORED]
    guesses = [tasks.UPOS[int(predicted[SHOWN, i])] for i in places]
    table(
        [list(cells) for cells in zip(line["mots"], guesses, line["etiquettes"], strict=True)],
        header=["mot", "le modèle dit", "étiquette d'argent"],
        caption="La phrase de tout à l'heure",
    )
    if (found := measures("etiquetage")) is None:
        return
    measured = found["etiquetage"]
    labels = {
        "mot": "l'étiquette la plus fréquente du mot, sans modèle",
        "zéro": "modèle parti de zéro, premier jeton",
        "premier": "Colibri, premier jeton",
        "dernier": "Colibri, dernier jeton",
    }
    table(
        [[label, _percents(measured[key])] for key, label in labels.items()],
        header=["façon d'étiqueter", "mots d'accord avec l'étiquette d'argent"],
        caption="2 400 phrases d'apprentissage, 200 pas, 300 phrases de test",
    )
    note(source(found, "trois graines pour Colibri, une de zéro"))


def littre_categories() -> None:
    """Quelques mots de Littré, et la justesse de quatre façons de deviner leur catégorie (enregistré)."""
    lines = tasks.rows("categories_littre", "test")
    table(
        [[word, category, definition[:90]] for word, category, definition in lines[:5]],
        header=["mot", "catégorie selon Littré", "début de la définition"],
        caption="Étiquettes posées par Littré lui-même, 1863-1877",
    )
    if (found := measures("categories")) is None:
        return
    measured = found["categories"]
    ways = {
        "majorité": "catégorie la plus fréquente",
        "zéro": "de zéro",
        "colibri": "de Colibri",
        "tfidf": "TF-IDF des suites de lettres",
    }
    values = {key: measured[key] if isinstance(measured[key], list) else [measured[key]] for key in ways}
    fig, ax = canvas(7.5, 2.8)
    for i, (key, hatch, color) in enumerate(zip(ways, ("", "xx", "", "//"), (ORANGE, RED, BLUE, GREEN), strict=True)):
        mean = 100 * statistics.mean(values[key])
        ax.barh(i, mean, color=color, alpha=0.8, hatch=hatch, edgecolor="white")
        ax.plot([100 * v for v in values[key]], [i] * len(values[key]), "|", color="black", markersize=12)
        ax.annotate(number(mean, 3, unit="%"), (100 * max(values[key]), i), xytext=(6, -3), textcoords="offset points")
    ax.set_yticks(range(len(ways)), list(ways.values()))
    ax.set(xlim=(0, 105), xlabel="bonnes réponses sur 500 mots de test (%)")
    french(ax, y=False)
    told = " ; ".join(f"{label}, {_percents(values[key])}" for key, label in ways.items())
    show(fig, alt=f"Barres, catégorie grammaticale devinée : {told}.")
    note(source(found, "4 000 mots d'apprentissage, 250 pas ; trois graines pour Colibri, une de zéro"))


def translation_sample(tokenizer: Any) -> None:
    """Quelques couples, dans le format qui sera donné au modèle."""
    couples = tasks.pairs("train")
    rows = []
    for en, fr in couples[3:120:29]:
        inside = len(tokenizer(tasks.prompt(en))["input_ids"])
        whole = len(tokenizer(f"{tasks.prompt(en)} {fr}")["input_ids"])
        rows.append([f"{tasks.prompt(en)} {fr}", inside, whole - inside])
    table(
        rows,
        header=["le texte à continuer", "jetons d'amorce", "jetons de réponse"],
        caption=f"{number(len(couples))} couples de l'aide de LibreOffice, 40 jetons au plus",
    )


@torch.inference_mode()
def _answer_perplexity(model: GPT2LMHeadModel, labels: Any, couples: Sequence[tuple[str, str]]) -> float:
    """Perplexité des réponses seules, l'amorce étant donnée."""
    batch = beside(model, tasks.translation_examples(couples, labels))
    return math.exp(tasks.next_token_loss(model, batch).item())


@recorded("ch6/translation", needs=("labels",))
def translation(labels: Any, n: int | None, steps: int, n_test: int) -> None:
    """Traduire, ici, avec les étiquettes de l'étudiant ; puis les comparaisons enregistrées."""
    known, test = tasks.pairs("train")[:n], tasks.pairs("test")[:n_test]
    model = load_model("colibri")
    batches = tasks.translation_examples(known, labels).batches(16, 0)
    log = train(model, batches, steps, lr=1e-3, loss=tasks.next_token_loss, what="traduction")
    said = tasks.translate(model, [en for en, _ in test])
    scores = tasks.translation_scores(said, [fr for _, fr in test])
    note(
        f"{number(len(known))} couples, {steps} pas ({number(log.seconds, 2)} s) : chrF {number(scores['chrf'], 3)} "
        f"sur {len(test)} phrases jamais vues, {percent(scores['exact'], 2)} identiques à la référence."
    )
    table(
        [[en, fr, " / ".join(made.splitlines())] for (en, fr), made in zip(test, said, strict=True)][:6],
        header=["anglais", "traduction du corpus", f"Colibri, après {steps} pas"],
        caption="Ce qu'il écrit à ce stade",
    )
    others = [(test[i - 1][0], fr) for i, (_, fr) in enumerate(test)]
    right, wrong = (_answer_perplexity(model, labels, couples) for couples in (test, others))
    note(
        f"Se sert-il de l'anglais ? Perplexité de la bonne traduction après la bonne amorce : {number(right, 3)} ; "
        f"après l'amorce d'une autre phrase : {number(wrong, 3)}."
    )
    if (found := measures("traduction")) is None:
        return
    measured = found["traduction"]
    ways = {
        "copie": "recopier l'anglais",
        "mémoire": "traduction de la phrase connue la plus proche",
        "avant": "Colibri, avant",
        "amorce aussi": "Colibri, perte sur l'amorce et la réponse",
        "réponse seule": "Colibri, perte sur la réponse seule",
    }
    table(
        [[label, round(measured[k]["chrf"], 1), round(100 * measured[k]["exact"], 1)] for k, label in ways.items()],
        header=["façon de traduire", "chrF (0 à 100)", "traductions exactes (%)"],
        caption=f"{number(measured['couples'][0])} couples d'apprentissage, {measured['couples'][1]} phrases de test",
    )
    table(
        measured["exemples"][6:],
        header=["anglais", "corpus", "Colibri"],
        caption="Le même, après plus de pas (autres phrases de test)",
    )
    recipe = found["recette"]["traduction"]
    note(
        source(
            found,
            f"une graine, {recipe['pas']} pas\u202f; perplexité sur A ensuite\u00a0: "
            f"{number(measured['perplexite_A'], decimals=1)}",
        )
    )
