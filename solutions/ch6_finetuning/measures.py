"""Longues mesures du chapitre 6 : `python cours.py mesures ch6_finetuning`, écrites dans assets/results.

Sans argument, toutes celles qui manquent ; `python solutions/ch6_finetuning/measures.py voix temps` n'en fait que
certaines, `--redo` les refait. Chaque expérience est enregistrée dès qu'elle est finie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from atelier.figures.ch6 import tasks
from atelier.figures.ch6.voices import DEPTHS
from atelier.hardware import median_seconds
from atelier.models import gpt2_shape, load_model
from atelier.perplexity import evaluate_perplexity
from atelier.text import number
from atelier.training import corpus_tokens, lm_loss, train, windows
from grader.authoring.recording import run_measures

CHAPTER = "ch6_finetuning"
SIZES = {50: 40, 200: 80, 800: 160, 3200: 240}
"""Fiches d'entraînement → pas."""
SEEDS = (0, 1, 2)
RATE = {"colibri": 1e-3, "zéro": 3e-3}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
STEPS, MARKS = 100, (0, 5, 15, 30, 60, 100)
BATCH, WINDOW = 8, 96
TOKENS = 4096
"""Jetons évalués pour une perplexité."""

RECIPE = {
    "transfert": {
        "fiches et pas": {str(n): steps for n, steps in SIZES.items()},
        "lot": 16,
        "jetons par fiche": tasks.LENGTH,
        "taux": RATE,
        "graines": list(SEEDS),
        "tête seule": "composantes centrées et réduites, 100 pas de descente, taux 0,1",
        "noté sur": "la partie test (427 fiches)",
    },
    "voix": {"pas": STEPS, "lot": [BATCH, WINDOW], "taux": RATE["colibri"], "graines": list(SEEDS), "jetons": TOKENS},
    "étiquetage": {"pas": 200, "lot": 8, "taux": RATE, "graines": list(SEEDS)},
    "catégories": {"pas": 250, "lot": 16, "taux": RATE, "graines": list(SEEDS)},
    "traduction": {"pas": 400, "lot": 16, "taux": RATE, "couples": "aide de LibreOffice, 40 jetons au plus à deux"},
    "optimiseur": "AdamW (0,9 ; 0,95), montée de 10 pas puis cosinus, gradient borné à 1",
}


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """Dernier vrai jeton, quand le remplissage est à droite."""
    return hidden[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]


def mean_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """Moyenne des vrais jetons."""
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def freeze_for(model: nn.Module, patterns: list[str]) -> int:
    """Ne laisse apprendre que les paramètres dont le nom contient un de ces motifs ; rend leur nombre."""
    for name, p in model.named_parameters():
        p.requires_grad_(any(pattern in name for pattern in patterns))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def perplexity_on(model: nn.Module, text: str) -> float:
    return round(evaluate_perplexity(model, text, max_tokens=TOKENS).perplexity, 3)


# --- Classer ----------------------------------------------------------------------------------------------------------


def linear_head(features: Tensor, labels: Tensor, n_classes: int, lr: float = 0.1, steps: int = 100) -> nn.Linear:
    """Tête seule, par autograd : partie de zéro, descente de gradient sur tous les exemples à la fois."""
    head = nn.Linear(features.shape[1], n_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return head


def frozen_features(pool: tasks.Pool, *parts: tasks.Examples) -> list[Tensor]:
    """Ce que Colibri gelé dit de chaque texte, centré et réduit d'après la première partie."""
    reader = tasks.Reader(load_model("colibri"), 1, pool)
    found = [tasks.outputs(reader.features, part) for part in parts]
    mean, deviation = found[0].mean(0), found[0].std(0)
    return [(f - mean) / deviation for f in found]


def whole_model(
    start: str, train_on: tasks.Examples, n_classes: int, steps: int, seed: int, lr: float | None = None
) -> tuple[tasks.Reader, nn.Module]:
    """Tout le modèle et sa tête, ajustés ensemble ; rend aussi le modèle de langue dont le corps a bougé."""
    model = tasks.starting_model(start, seed)
    reader = tasks.Reader(model, n_classes, last_token)
    rate = RATE[start] if lr is None else lr
    train(reader, train_on.batches(16, seed), steps, lr=rate, loss=tasks.label_loss, what=f"{start}, {len(train_on)}")
    return reader, model


def transfer(seed: int) -> dict[str, Any]:
    """La même tâche, de zéro, de Colibri, de sa tête seule et par TF-IDF, à quatre tailles de données."""
    names = tasks.subject_names()
    texts, everything = tasks.subjects("train")
    test_texts, test = tasks.subjects("test")
    features = {
        "tete_dernier": frozen_features(last_token, everything, test),
        "tete_moyenne": frozen_features(mean_token, everything, test),
    }
    found = {}
    for n, steps in SIZES.items():
        index = tasks.order(len(everything), seed)[:n]
        some = everything.take(index)
        line = {"tfidf": tasks.tfidf_predictions([texts[i] for i in index], some.labels, test_texts)}
        for name, (train_features, test_features) in features.items():
            head = linear_head(train_features[index], some.labels, len(names))
            line[name] = head(test_features).argmax(1)
        for start in RATE:
            reader, model = whole_model(start, some, len(names), steps, seed)
            line[start] = tasks.outputs(reader, test).argmax(1)
            if start == "colibri":
                forgotten = perplexity_on(model, "a_validation")
        scores = {name: round(tasks.accuracy(predicted, test.labels), 4) for name, predicted in line.items()}
        found[str(n)] = scores | {"perplexite_A": forgotten}
        print(n, found[str(n)], flush=True)
    return found


def head_or_whole() -> dict[str, Any]:
    """Sensibilité au taux (800 fiches, notées sur la validation), et dernier bloc seul (3 200 fiches, sur le test)."""
    names = tasks.subject_names()
    _, everything = tasks.subjects("train")
    _, validation = tasks.subjects("validation")
    _, test = tasks.subjects("test")
    some = everything.sample(800, 0)
    index = tasks.order(len(everything), 0)[:800]
    whole = {}
    for lr in RATES:
        reader, model = whole_model("colibri", some, len(names), 100, 0, lr)
        score = tasks.accuracy(tasks.outputs(reader, validation).argmax(1), validation.labels)
        whole[str(lr)] = {"justesse": round(score, 4), "perplexite_A": perplexity_on(model, "a_validation")}
        print(lr, whole[str(lr)], flush=True)
    train_features, validation_features = frozen_features(last_token, everything, validation)
    head = {}
    for lr in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        fitted = linear_head(train_features[index], some.labels, len(names), lr)
        head[str(lr)] = round(tasks.accuracy(fitted(validation_features).argmax(1), validation.labels), 4)
    model = load_model("colibri")
    reader = tasks.Reader(model, len(names), last_token)
    freeze_for(reader, ["body.h.4.", "body.ln_f", "head"])
    train(reader, everything.batches(16, 0), SIZES[3200], lr=1e-3, loss=tasks.label_loss)
    last_block = {
        "justesse": round(tasks.accuracy(tasks.outputs(reader, test).argmax(1), test.labels), 4),
        "perplexite_A": perplexity_on(model, "a_validation"),
    }
    return {"tout": whole, "tete": head, "dernier_bloc": last_block}


# --- Changer de voix --------------------------------------------------------------------------------------------------


def mixed(voice: str, seed: int, share: int) -> Iterator[Tensor]:
    """Fenêtres de la voix, dont `share` sur BATCH sont remplacées par des fenêtres de A (répétition)."""
    old = windows(corpus_tokens("a_train"), share, WINDOW, seed + 1000) if share else None
    for batch in windows(corpus_tokens(f"{voice}_train"), BATCH, WINDOW, seed):
        yield batch if old is None else torch.cat([batch[share:], next(old)])


def tuned_voice(
    voice: str,
    seed: int,
    lr: float = RATE["colibri"],
    start: str = "colibri",
    patterns: list[str] | None = None,
    share: int = 0,
    marks: tuple[int, ...] = (STEPS,),
) -> dict[str, Any]:
    """Ajuste un modèle sur une voix ; perplexités sur cette voix et sur A, aux pas demandés."""
    model = tasks.starting_model(start, seed)
    trainable = freeze_for(model, patterns) if patterns else model.num_parameters()
    trace = []

    def look(step: int) -> None:
        if step in marks:
            trace.append([step, perplexity_on(model, f"{voice}_validation"), perplexity_on(model, "a_validation")])
            model.train()

    look(0)
    log = train(model, mixed(voice, seed, share), STEPS, lr=lr, after_step=lambda i: look(i + 1), what=voice)
    print(
        voice, seed, lr, start, patterns, share, trace[-1], number(log.step_seconds, decimals=3, unit="s"), flush=True
    )
    return {"entraines": trainable, "trace": trace}


def voices(voice: str) -> list[dict[str, Any]]:
    """Trois graines, avec la courbe de l'oubli."""
    return [tuned_voice(voice, seed, marks=MARKS if seed == 0 else (STEPS,)) for seed in SEEDS]


def rates() -> dict[str, Any]:
    """Le taux d'apprentissage, sur la fantasy."""
    return {str(lr): tuned_voice("b", 0, lr)["trace"][-1] for lr in RATES if lr != RATE["colibri"]}


def remedies() -> dict[str, Any]:
    """De zéro ; avec 2 ou 4 fenêtres de A sur 8 dans chaque lot."""
    return {
        "zéro": tuned_voice("b", 0, RATE["zéro"], start="zéro")["trace"][-1],
        **{f"répétition {share} sur {BATCH}": tuned_voice("b", 0, share=share)["trace"][-1] for share in (2, 4)},
    }


def depths() -> dict[str, Any]:
    """Ce que l'on dégèle, de la dernière normalisation à tout le modèle."""
    return {name: tuned_voice("b", 0, patterns=patterns) for name, patterns in DEPTHS.items()}


# --- Étiqueter, traduire ----------------------------------------------------------------------------------------------


def align(word_ids: list[int | None], labels: list[int], last: bool = False) -> list[int]:
    """Étiquette sur le premier (ou le dernier) jeton de chaque mot."""
    neighbours = word_ids[1:] + [None] if last else [None] + word_ids[:-1]
    pairs = zip(word_ids, neighbours, strict=True)
    return [tasks.IGNORED if w is None or w == other else labels[w] for w, other in pairs]


def tagging() -> dict[str, Any]:
    """Étiquettes d'argent : premier jeton, dernier jeton, de zéro ; et l'étiquette la plus fréquente de chaque mot."""
    found: dict[str, Any] = {"mot": round(tasks.most_frequent_tag(tasks.tagged("train"), tasks.tagged("test")), 4)}
    for name, start, last in (("premier", "colibri", False), ("dernier", "colibri", True), ("zéro", "zéro", False)):
        train_on, test = (tasks.tag_examples(p, lambda w, y, last=last: align(w, y, last)) for p in ("train", "test"))
        found[name] = []
        for seed in SEEDS if start == "colibri" else SEEDS[:1]:
            model = tasks.starting_model(start, seed)
            reader = tasks.Reader(model, len(tasks.UPOS))
            train(reader, train_on.batches(8, seed), 200, lr=RATE[start], loss=tasks.label_loss)
            predicted = tasks.outputs(lambda ids, mask, r=reader: r(ids, mask).argmax(-1), test, len(test))
            found[name].append(round(tasks.tag_accuracy(predicted.long(), test), 4))
            print(name, seed, found[name][-1], flush=True)
    return found


def littre() -> dict[str, Any]:
    """Les catégories de Littré, posées par un humain : Colibri, de zéro, et TF-IDF sur les lettres."""
    texts, train_on = tasks.categories("train")
    test_texts, test = tasks.categories("test")
    found: dict[str, Any] = {"majorité": round((test.labels == train_on.labels.mode().values).float().mean().item(), 4)}
    predicted = tasks.tfidf_predictions(texts, train_on.labels, test_texts, characters=True)
    found["tfidf"] = round(tasks.accuracy(predicted, test.labels), 4)
    for start in RATE:
        found[start] = []
        for seed in SEEDS if start == "colibri" else SEEDS[:1]:
            reader, _ = whole_model(start, train_on, len(tasks.category_names()), 250, seed)
            found[start].append(round(tasks.accuracy(tasks.outputs(reader, test).argmax(1), test.labels), 4))
            print(start, seed, found[start][-1], flush=True)
    return found


def prompt_masked(ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    positions = torch.arange(ids.shape[1])
    return ids.masked_fill((positions < lengths[:, None]) | (mask == 0), tasks.IGNORED)


def prompt_learned(ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    return ids.masked_fill(mask == 0, tasks.IGNORED)


def translation() -> dict[str, Any]:
    """Traduire : perte sur la réponse seule ou sur tout ; trois références sans apprentissage profond."""
    known, test = tasks.pairs("train"), tasks.pairs("test")
    english, french = [en for en, _ in test], [fr for _, fr in test]
    found: dict[str, Any] = {
        "couples": [len(known), len(test)],
        "copie": tasks.translation_scores(english, french),
        "mémoire": tasks.translation_scores(tasks.translation_memory(known, english), french),
        "avant": tasks.translation_scores(tasks.translate(load_model("colibri"), english), french),
    }
    for name, labels in (("réponse seule", prompt_masked), ("amorce aussi", prompt_learned)):
        model = load_model("colibri")
        examples = tasks.translation_examples(known, labels)
        train(model, examples.batches(16, 0), 400, lr=RATE["colibri"], loss=tasks.next_token_loss)
        said = tasks.translate(model, english)
        found[name] = tasks.translation_scores(said, french)
        if name == "réponse seule":
            found["exemples"] = [[en, fr, said[i]] for i, (en, fr) in enumerate(test[:12])]
            found["perplexite_A"] = perplexity_on(model, "a_validation")
        print(name, found[name], flush=True)
    return found


# --- Temps ------------------------------------------------------------------------------------------------------------


def times() -> dict[str, Any]:
    """Durée médiane d'un pas (AdamW compris), selon ce que l'on entraîne : Colibri et les formes de GPT-2 small."""
    shapes = {
        "Colibri": (lambda: load_model("colibri"), (BATCH, WINDOW), 15),
        "GPT-2 small": (lambda: gpt2_shape("small"), (1, 64), 3),
    }
    found: dict[str, Any] = {}
    for shape, (make, size, repeats) in shapes.items():
        found[shape] = {"lot": list(size)}
        for name, patterns in DEPTHS.items():
            model = make()
            layers = model.config.n_layer
            own = [p.replace("h.4.", f"h.{layers - 1}.") for p in patterns] if name != "tout" else patterns
            if shape != "Colibri" and name not in ("ln_f", "dernier bloc", "tout"):
                continue
            freeze_for(model, own)
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
            ids = torch.randint(0, model.config.vocab_size, size, device=model.device)

            def step(model: nn.Module = model, optimizer: Any = optimizer, ids: Tensor = ids) -> None:
                optimizer.zero_grad(set_to_none=True)
                lm_loss(model, ids).backward()
                optimizer.step()

            found[shape][name] = median_seconds(step, repeats, 1)
            print(shape, name, found[shape][name], flush=True)
    return found


EXPERIMENTS: dict[str, Callable[[], Any]] = {
    "voix b": lambda: voices("b"),
    "transfert 0": lambda: transfer(0),
    "etiquetage": tagging,
    "traduction": translation,
    "profondeur": depths,
    "tete": head_or_whole,
    "voix bprime": lambda: voices("bprime"),
    "taux": rates,
    "remedes": remedies,
    "categories": littre,
    "transfert 1": lambda: transfer(1),
    "transfert 2": lambda: transfer(2),
    "temps": times,
}


if __name__ == "__main__":
    run_measures(CHAPTER, RECIPE, EXPERIMENTS)
