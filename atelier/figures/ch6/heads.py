"""Chapitre 6, deuxième partie : classer des textes, de zéro, de Colibri, ou avec une tête seule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import note, recorded, show, table
from atelier.figures.ch6 import tasks
from atelier.figures.ch6.memory import training_bytes
from atelier.figures.ch6.voices import measures, source, trainable
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.hardware import median_seconds
from atelier.models import load_model
from atelier.text import number, percent, plural
from atelier.training import train

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

WAYS = {
    "tfidf": "TF-IDF + régression logistique",
    "colibri": "de Colibri, fine-tuné en entier",
    "tete_dernier": "Colibri gelé, tête seule",
    "zéro": "de zéro",
}
WAYS_AGAIN = {
    "tfidf": WAYS["tfidf"],
    "colibri": WAYS["colibri"],
    "tete_moyenne": "Colibri gelé, tête sur la moyenne",
    "tete_dernier": "Colibri gelé, tête sur le dernier jeton",
}
"""Les mêmes, une fois connue la moyenne des jetons (section 6.4)."""
RATE = {"zéro": 3e-3, "colibri": 1e-3}
"""Taux choisis sur la partie validation, à 500 et 800 fiches."""


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Moyenne des vrais jetons : (B, T, d), (B, T) → (B, d)."""
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def subjects_sample(tokenizer: Any) -> None:
    """Un texte par sujet pour six sujets, coupé comme le modèle le lit, et le nombre de textes de chaque partie."""
    texts, examples = tasks.subjects("train")
    names, rows = tasks.subject_names(), []
    for label in range(0, len(names), 2):
        i = int((examples.labels == label).nonzero()[1])
        rows.append([names[label], texts[i].strip() + "…", int((examples.labels == label).sum())])
    table(
        rows,
        header=["sujet", f"les {tasks.LENGTH} premiers jetons", "textes"],
        caption="Six des douze sujets (guides de la DILA, service-public.fr)",
    )
    share = examples.labels.bincount().max().item() / len(examples)
    sizes = {part: len(tasks.rows("classification", part)) for part in ("train", "validation", "test")}
    note(
        f"{number(sizes['train'])} textes d'apprentissage, {sizes['validation']} de validation, "
        f"{sizes['test']} de test. Répondre toujours le sujet le plus fréquent "
        f"donne {percent(share, 2)} : voilà le plancher."
    )


@recorded("ch6/transfer", needs=("pool",))
def transfer(pool: Any, n: int, steps: int, n_test: int) -> None:
    """Les courbes enregistrées, justesse contre nombre de textes, et un point de plus, calculé ici."""
    names = tasks.subject_names()
    _, everything = tasks.subjects("train")
    _, test = tasks.subjects("test")
    some, test = everything.sample(n, seed=7), test.sample(n_test, seed=7)
    live = {}
    for start, rate in RATE.items():
        reader = tasks.Reader(tasks.starting_model(start, 7), len(names), pool)
        log = train(reader, some.batches(16, 7), steps, lr=rate, loss=tasks.label_loss, what=start)
        live[start] = tasks.accuracy(tasks.outputs(reader, test).argmax(1), test.labels)
        note(
            f"{WAYS[start]}, {n} textes, {steps} pas ({number(log.seconds, 2, unit='s')}) : "
            f"{percent(live[start], 3)} de bonnes réponses sur {n_test} textes de test."
        )
    if (found := measures("transfert 0")) is not None:
        _transfer_figure(found, live, n)


def _runs(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Les graines enregistrées de l'expérience de transfert."""
    return [run for name, run in found.items() if name.startswith("transfert ")]


def _seeds(runs: Sequence[Any]) -> str:
    return plural(len(runs), "graine")


def _transfer_figure(found: dict[str, Any], live: dict[str, float], n: int) -> None:
    runs = _runs(found)
    _curves(runs, WAYS, live, n)
    error = 100 * (0.5 * 0.5 / 427) ** 0.5
    note(
        source(found, f"{_seeds(runs)}, un tiret chacune ; étoiles : calculé ici")
        + f" Avec 427 textes de test, un écart de moins de {number(2 * error, 2)} points peut n'être que du hasard. "
        "Toutes les façons lisent les mêmes jetons ; les deux réseaux font autant de pas."
    )


def mean_against_words() -> None:
    """Les courbes de `transfer`, avec la tête qui lit la moyenne des jetons (enregistré)."""
    if (found := measures("transfert 0")) is not None:
        runs = _runs(found)
        _curves(runs, WAYS_AGAIN, {}, 0)
        note(source(found, f"{_seeds(runs)}, un tiret chacune"))


def _curves(runs: Sequence[dict[str, Any]], ways: dict[str, str], live: dict[str, float], n: int) -> None:
    """Justesse contre nombre de textes, une courbe par façon, puis le tableau ; live : points calculés ici, à n."""
    sizes = [int(size) for size in runs[0]]
    fig, ax = canvas(8.0, 4.4)
    means = {}
    for style, (way, label) in zip(SERIES, ways.items(), strict=False):
        values = [[100 * run[str(size)][way] for run in runs] for size in sizes]
        means[way] = [statistics.mean(v) for v in values]
        ax.plot(sizes, means[way], label=label, **style)
        for size, v in zip(sizes, values, strict=True):
            ax.plot([size] * len(v), v, "_", color=style["color"], markersize=10)
        if way in live:
            ax.plot(n, 100 * live[way], "*", color=style["color"], markeredgecolor=BLACK, markersize=15)
    ax.set(xscale="log", xlabel="textes étiquetés (échelle logarithmique)", ylabel="bonnes réponses (%)", ylim=(0, 85))
    ax.set_xticks(sizes, [number(s) for s in sizes])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="upper left")
    body = " ; ".join(f"{ways[way]} : {', '.join(number(v, 2) for v in line)} %" for way, line in means.items())
    show(fig, alt=f"Justesse contre nombre de textes ({', '.join(map(number, sizes))}). {body}.")
    table(
        [[label, *(round(v, 1) for v in means[way])] for way, label in ways.items()],
        header=["façon d'apprendre", *(number(s, unit="textes") for s in sizes)],
        caption=f"Bonnes réponses sur les 427 textes de test (%), moyenne de {_seeds(runs)}",
    )


@recorded("ch6/same_as_autograd", needs=("fit",))
def same_as_autograd(fit: Any, steps: Sequence[int]) -> None:
    """La tête de l'étudiant contre nn.Linear, l'autograd et torch.optim.SGD, sur les mêmes vecteurs."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 16, generator=generator)
    labels = torch.randint(0, 5, (200,), generator=generator)
    rows = []
    for n in steps:
        weight, bias = fit(features, labels, 5, 0.5, n)
        head = nn.Linear(16, 5)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
        for _ in range(n):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(features), labels)
            loss.backward()
            optimizer.step()
        gap = max((weight - head.weight).abs().max().item(), (bias - head.bias).abs().max().item())
        rows.append([n, round(loss.item(), 4), head.weight.abs().max().item(), gap])
    table(
        rows,
        header=["pas", "perte au dernier pas", "plus grand poids", "plus grand écart, votre tête contre la sienne"],
        caption="200 vecteurs au hasard, 5 classes",
    )


@recorded("ch6/head_alone", needs=("pool", "fit"))
def head_alone(model: GPT2LMHeadModel, pool: Any, fit: Any, sizes: Sequence[int], n_test: int) -> None:
    """Le corps gelé lit une fois ; la tête apprend ensuite, sur le dernier jeton ou sur la moyenne des jetons."""
    names = tasks.subject_names()
    _, everything = tasks.subjects("train")
    _, test = tasks.subjects("test")
    known, test = everything.sample(max(sizes), seed=0), test.sample(n_test, seed=0)
    reader = tasks.Reader(model, len(names))

    def both(ids: Tensor, mask: Tensor) -> Tensor:
        hidden = reader.features(ids, mask)
        return torch.stack([pool(hidden, mask), mean_of_tokens(hidden, mask)], dim=1)

    start = time.perf_counter()
    train_features, test_features = tasks.outputs(both, known), tasks.outputs(both, test)
    reading = time.perf_counter() - start
    mean, deviation = train_features.mean(0), train_features.std(0)
    train_features, test_features = ((f - mean) / deviation for f in (train_features, test_features))
    rows, start = [], time.perf_counter()
    for n in sizes:
        line = []
        for kind in range(2):
            weight, bias = fit(train_features[:n, kind], known.labels[:n], len(names))
            predicted = (test_features[:, kind] @ weight.T + bias).argmax(1)
            line.append(round(100 * tasks.accuracy(predicted, test.labels), 1))
        rows.append([n, *line])
    learning = (time.perf_counter() - start) / len(rows) / 2
    table(
        rows,
        header=["textes étiquetés", "dernier jeton (%)", "moyenne des jetons (%)"],
        caption=f"Tête seule : bonnes réponses sur {n_test} textes de test (une graine)",
    )
    note(
        f"Lire les {number(max(sizes) + n_test)} textes, une fois : {number(reading, 2, unit='s')}. "
        f"Apprendre une tête, cent pas : {number(learning, 2, unit='s')} en moyenne."
    )


@recorded("ch6/head_or_whole", needs=("pool", "freeze"))
def head_or_whole(model: GPT2LMHeadModel, pool: Any, freeze: Any) -> None:
    """Tête seule, tête et dernier bloc, tout : comptes, octets, temps mesurés ici ; qualité et oubli enregistrés."""
    found = measures("transfert 0")
    names = tasks.subject_names()
    _, everything = tasks.subjects("train")
    batch = next(everything.batches(16, 0))
    ways = {
        "tête seule": ["head"],
        "tête et dernier bloc": ["head", f"body.h.{model.config.n_layer - 1}.", "body.ln_f"],
        "tout": ["head", "body"],
    }
    rows: list[list[Any]] = []
    for way, patterns in ways.items():
        reader = tasks.Reader(load_model("colibri"), len(names), pool)
        freeze(reader, patterns)
        seen = training_bytes(reader, partial(tasks.label_loss, reader, batch))
        optimizer = torch.optim.AdamW([p for p in reader.parameters() if p.requires_grad], lr=1e-4)

        def step(reader: nn.Module = reader, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            tasks.label_loss(reader, batch).backward()
            optimizer.step()

        extra = seen["gradients"] + seen["Adam"]
        rows.append([way, trainable(reader), extra, seen["activations"], round(1000 * median_seconds(step, 5, 1), 1)])
    if found:
        last = max(int(s) for s in found["transfert 0"])
        runs = [run[str(last)] for run in _runs(found)]
        middle = found.get("tete", {}).get("dernier_bloc", {})
        quality = {
            "tête seule": statistics.mean(run["tete_dernier"] for run in runs),
            "tête et dernier bloc": middle.get("justesse"),
            "tout": statistics.mean(run["colibri"] for run in runs),
        }
        forgotten = {
            "tête seule": found["voix b"][0]["trace"][0][2] if "voix b" in found else None,
            "tête et dernier bloc": middle.get("perplexite_A"),
            "tout": statistics.mean(run["perplexite_A"] for run in runs),
        }
        for row in rows:
            right, perplexity = quality[row[0]], forgotten[row[0]]
            row.append("–" if right is None else round(100 * right, 1))
            row.append("–" if perplexity is None else round(perplexity, 1))
    header = ["ce qui apprend", "paramètres", "gradients et Adam (octets)", "activations (octets)", "un pas (ms)"]
    table(
        rows,
        header=header + (["bonnes réponses (%)", "perplexité sur A après"] if found else []),
        caption="Classer, lot de 16 textes : comptes, octets et temps mesurés ici",
    )
    if found:
        note(
            source(found, f"deux dernières colonnes : {number(last)} textes, {_seeds(runs)} (une au milieu)")
            + " Le pas de la tête seule relit ici chaque texte : avec les vecteurs gardés, il ne coûte presque rien."
        )


def rate_sensitivity() -> None:
    """Justesse selon le taux d'apprentissage, pour tout le modèle et pour la tête seule ; oubli (enregistré)."""
    if (found := measures("tete")) is None:
        return
    whole, head = found["tete"]["tout"], found["tete"]["tete"]
    fig, axes = canvas(9.0, 3.6, columns=2)
    lines = {
        "tout le modèle (AdamW)": ([float(r) for r in whole], [100 * v["justesse"] for v in whole.values()]),
        "tête seule (descente simple)": ([float(r) for r in head], [100 * v for v in head.values()]),
    }
    for style, (label, (rates, values)) in zip(SERIES, lines.items(), strict=False):
        axes[0].plot(rates, values, label=label, **style)
    axes[0].set(ylabel="bonnes réponses (%)", ylim=(0, None), title="qualité")
    axes[0].legend(frameon=False, loc="lower right", fontsize=9)
    forgotten = [v["perplexite_A"] for v in whole.values()]
    axes[1].plot(lines["tout le modèle (AdamW)"][0], forgotten, **SERIES[0])
    axes[1].set(yscale="log", ylabel="perplexité sur A", title="oubli, quand tout apprend")
    for ax in axes:
        ax.set(xscale="log", xlabel="taux d'apprentissage")
        french(ax)
    told = " ; ".join(
        f"{label} : " + ", ".join(f"{number(r, 2)} donne {number(v, 3, unit='%')}" for r, v in zip(*line, strict=True))
        for label, line in lines.items()
    )
    show(fig, alt=f"À gauche, justesse selon le taux. {told}. À droite, perplexité sur A après ajustement de tout : "
         f"{', '.join(number(v, 3) for v in forgotten)}.")  # fmt: skip
    note(source(found, "une graine, 800 textes, 100 pas, notés sur la validation"))
