"""Chapitre 6 : les données des tâches, Colibri avec une tête posée dessus, et de quoi les entraîner et les noter."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from atelier.hardware import beside, device, scale
from atelier.models import load_model, load_tokenizer, shared_tokenizer, with_causal_loss
from atelier.paths import asset
from atelier.perplexity import END

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

IGNORED = -100
LENGTH = 32
"""Jetons gardés du début d'une fiche : le titre et, le plus souvent, la première phrase."""


@dataclass(frozen=True)
class Examples:
    """Des exemples mis en tenseurs : ids et mask (n, T) ; labels (n,) par texte, ou (n, T) par jeton."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> Examples:
        """Ceux-là seulement, coupés à la longueur du plus long d'entre eux (le remplissage est à droite)."""
        longest = int(self.mask[index].sum(1).max())
        labels = self.labels[index] if self.labels.ndim == 1 else self.labels[index, :longest]
        return Examples(self.ids[index, :longest], self.mask[index, :longest], labels)

    def sample(self, n: int, seed: int) -> Examples:
        """n exemples tirés sans remise ; à graine égale, un plus grand n contient le plus petit."""
        return self.take(order(len(self), seed)[:n])

    def batches(self, size: int, seed: int) -> Iterator[Examples]:
        """Lots sans fin, remélangés à chaque passage, sur `device()`."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            shuffled = torch.randperm(len(self), generator=generator)
            for start in range(0, max(1, len(self) - size + 1), size):
                yield self.take(shuffled[start : start + size]).to(device())

    def to(self, where: torch.device) -> Examples:
        return Examples(self.ids.to(where), self.mask.to(where), self.labels.to(where))


def order(n: int, seed: int) -> Tensor:
    """Une permutation de n, toujours la même pour une graine."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def padded(sequences: Sequence[Sequence[int]], side: str = "right", filler: int = 0) -> tuple[Tensor, Tensor]:
    """Suites de jetons → ids et mask (n, T), complétées par `filler` à droite ou à gauche (« left »)."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), filler)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        where = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
        ids[i, where] = torch.tensor(sequence, dtype=torch.long)
        mask[i, where] = 1
    return ids, mask


def rows(name: str, part: str) -> list[list[str]]:
    """Lignes d'un fichier .tsv de assets/corpora qui sont dans cette partie, sans la colonne « partie »."""
    lines = asset("corpora", f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [cells[1:] for cells in (line.split("\t") for line in lines) if cells[0] == part]


def _encode(texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    tokenizer = load_tokenizer("colibri")
    return padded([tokenizer(t, verbose=False)["input_ids"][:length] for t in texts])


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Any, **options: Any) -> str:
    """Le texte d'une suite de jetons ; d'un lot de suites, `decode` rendrait une liste."""
    text = tokenizer.decode(ids, **options)
    assert isinstance(text, str)
    return text


# --- Classer un texte -------------------------------------------------------------------------------------------------


@cache
def subject_names() -> tuple[str, ...]:
    """Les douze sujets, par ordre alphabétique."""
    return tuple(sorted({subject for subject, _ in rows("classification", "train")}))


def subjects(part: str, length: int = LENGTH) -> tuple[list[str], Examples]:
    """Textes des fiches, coupés à `length` jetons, et les mêmes en tenseurs ; étiquette : rang du sujet."""
    n = scale().pick(essai=60, cpu=None, gpu=None)
    lines, names = rows("classification", part)[:n], subject_names()
    ids, mask = _encode([text for _, text in lines], length)
    tokenizer = load_tokenizer("colibri")
    texts = [
        decoded(tokenizer, row[m.bool()], clean_up_tokenization_spaces=False) for row, m in zip(ids, mask, strict=True)
    ]
    return texts, Examples(ids, mask, torch.tensor([names.index(subject) for subject, _ in lines]))


def sampled(part: tuple[list[str], Examples], n: int, seed: int) -> tuple[list[str], Examples]:
    """n textes d'une partie, tirés par la graine, et leurs exemples, dans le même ordre."""
    texts, examples = part
    index = order(len(examples), seed)[:n]
    return [texts[i] for i in index], examples.take(index)


@cache
def category_names() -> tuple[str, ...]:
    """Les catégories grammaticales de Littré."""
    return tuple(sorted({category for _, category, _ in rows("categories_littre", "train")}))


def categories(part: str, length: int = 32) -> tuple[list[str], Examples]:
    """« mot. définition » → catégorie donnée par Littré."""
    lines, names = rows("categories_littre", part), category_names()
    texts = [f"{word}. {definition}" for word, _, definition in lines]
    ids, mask = _encode(texts, length)
    return texts, Examples(ids, mask, torch.tensor([names.index(category) for _, category, _ in lines]))


def some_categories(part: str, n: int) -> tuple[list[str], Examples]:
    """Les n premiers mots d'une partie ; quelques-uns à l'échelle d'essai."""
    texts, examples = categories(part)
    n = min(scale().pick(essai=24, cpu=n, gpu=n), len(examples))
    return texts[:n], examples.take(torch.arange(n))


def tfidf_predictions(
    train: Sequence[str], labels: Tensor, test: Sequence[str], characters: bool = False, strength: float = 30
) -> Tensor:
    """L'apprentissage « traditionnel » : TF-IDF des mots et paires, ou des suites de lettres, puis régression.

    strength : l'inverse de la régularisation (C de scikit-learn).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grain = {"analyzer": "char_wb", "ngram_range": (2, 5)} if characters else {"ngram_range": (1, 2)}
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **grain), LogisticRegression(C=strength, max_iter=500))
    return torch.from_numpy(model.fit(train, labels.numpy()).predict(test))


# --- Colibri et une tête ----------------------------------------------------------------------------------------------


def fresh_model(seed: int) -> GPT2LMHeadModel:
    """Un modèle de la taille de Colibri qui n'a rien lu : poids tirés au hasard, comme à la naissance de GPT-2."""
    from transformers import GPT2LMHeadModel

    kept = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = with_causal_loss(GPT2LMHeadModel(load_model("colibri").config))
        return model.to(device()).eval()  # type: ignore[arg-type]
    finally:
        torch.set_rng_state(kept)


@torch.inference_mode()
def outputs(compute: Callable[[Tensor, Tensor], Tensor], examples: Examples, size: int = 64) -> Tensor:
    """compute(ids, mask) sur tous les exemples, par lots, ramené sur CPU : (n, …)."""
    parts = []
    for start in range(0, len(examples), size):
        batch = examples.take(torch.arange(start, min(start + size, len(examples)))).to(device())
        parts.append(compute(batch.ids, batch.mask).float().cpu())
    return torch.cat(parts)


# --- Étiqueter chaque mot ---------------------------------------------------------------------------------------------


UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
"""Les dix-sept étiquettes universelles (Universal Dependencies), dans l'ordre de leurs rangs."""


def tagged(part: str) -> list[dict[str, Any]]:
    """Phrases étiquetées : « mots », « etiquettes » (d'argent : posées par un modèle)."""
    lines = asset("corpora", "etiquetage.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["partie"] == part]


def words_to_tokens(words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """Mots d'une phrase → jetons, et rang du mot d'où vient chacun (None pour le jeton de début)."""
    tokenizer = shared_tokenizer()
    ids = [cast(int, tokenizer.convert_tokens_to_ids(END))]
    word_ids: list[int | None] = [None]
    for i, word in enumerate(words):
        glued = i > 0 and (words[i - 1].endswith(("'", "(")) or word in (",", ".", ")", "...") or word.startswith("-"))
        pieces = tokenizer(word if glued or i == 0 else f" {word}", verbose=False)["input_ids"]
        ids += pieces
        word_ids += [i] * len(pieces)
    return ids, word_ids


@cache
def _cut_sentences(part: str, n: int | None) -> list[tuple[list[int], list[int | None], list[int]]]:
    """Jetons, mot de chaque jeton, rang de l'étiquette de chaque mot, phrase par phrase."""
    found = []
    for line in tagged(part)[:n]:
        tokens, word_ids = words_to_tokens(line["mots"])
        found.append((tokens, word_ids, [UPOS.index(tag) for tag in line["etiquettes"]]))
    return found


def tag_examples(
    part: str, align: Callable[[list[int | None], list[int]], list[int]], n: int | None = None
) -> Examples:
    """Phrases étiquetées mises en tenseurs ; `align` pose les étiquettes sur les jetons."""
    sequences, labels = [], []
    for tokens, word_ids, tags in _cut_sentences(part, n):
        sequences.append(list(tokens))
        labels.append(align(list(word_ids), list(tags)))
    ids, mask = padded(sequences)
    return Examples(ids, mask, padded(labels, filler=IGNORED)[0])


def most_frequent_tag(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> Tensor:
    """Sans modèle ni contexte : l'étiquette la plus fréquente de chaque mot, celle des noms pour un mot inconnu.

    Rend (1, mots du test) : 1 si elle est juste, 0 sinon.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for line in train:
        for word, tag in zip(line["mots"], line["etiquettes"], strict=True):
            seen[word.lower()][tag] += 1
    right = [
        (seen[word.lower()].most_common(1)[0][0] if word.lower() in seen else "NOUN") == tag
        for line in test
        for word, tag in zip(line["mots"], line["etiquettes"], strict=True)
    ]
    return torch.tensor(right, dtype=torch.uint8)[None]


# --- Traduire ---------------------------------------------------------------------------------------------------------


@cache
def pairs(part: str, source: str = "libreoffice", longest: int = 40) -> list[tuple[str, str]]:
    """Couples (anglais, français) d'une source, dont les deux textes réunis font au plus `longest` jetons."""
    tokenizer, n = load_tokenizer("colibri"), scale().pick(essai=60, cpu=None, gpu=None)
    kept = [(en, fr) for en, fr, where in rows("paires", part) if where == source][:n]
    return [(en, fr) for en, fr in kept if len(tokenizer(en + fr, verbose=False)["input_ids"]) <= longest]


def prompt(english: str) -> str:
    """L'amorce : ce qui est donné au modèle, et qu'il n'a pas à apprendre à écrire (format de GPT-2, 2019, § 3.7)."""
    return f"{english} ="


def translation_sequences(couples: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[int]]:
    """Jetons de l'amorce suivie de la traduction et de la fin de texte ; longueur de chaque amorce."""
    tokenizer = load_tokenizer("colibri")
    end = tokenizer.convert_tokens_to_ids(END)
    prompts = [tokenizer(prompt(en), verbose=False)["input_ids"] for en, _ in couples]
    answers = [tokenizer(f" {fr}", verbose=False)["input_ids"] for _, fr in couples]
    return [[end, *p, *a, end] for p, a in zip(prompts, answers, strict=True)], [1 + len(p) for p in prompts]


def translation_examples(
    couples: Sequence[tuple[str, str]], labels: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Examples:
    """Couples mis en tenseurs ; `labels(ids, mask, longueurs des amorces)` dit quels jetons sont à apprendre."""
    sequences, lengths = translation_sequences(couples)
    ids, mask = padded(sequences)
    return Examples(ids, mask, labels(ids, mask, torch.tensor(lengths)))


@torch.inference_mode()
def translate(model: GPT2LMHeadModel, english: Sequence[str], n_new: int = 32, size: int = 64) -> list[str]:
    """Traduction gloutonne de chaque texte : l'amorce, puis le plus probable jusqu'à la fin de texte."""
    tokenizer = load_tokenizer("colibri")
    end = tokenizer.convert_tokens_to_ids(END)
    found = []
    for start in range(0, len(english), size):
        group = [[end, *tokenizer(prompt(en), verbose=False)["input_ids"]] for en in english[start : start + size]]
        ids, mask = beside(model, padded(group, side="left"))
        made = model.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=n_new, pad_token_id=end, eos_token_id=end
        )
        found += [decoded(tokenizer, row, skip_special_tokens=True).strip() for row in made[:, ids.shape[1] :]]
    return found


def translation_scores(found: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """chrF (sacrebleu, de 0 à 100) et part de traductions identiques à celle du corpus."""
    from sacrebleu import corpus_chrf

    exact = sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)
    return {"chrf": corpus_chrf(list(found), [list(expected)]).score, "exact": exact}


def translation_memory(train: Sequence[tuple[str, str]], english: Sequence[str]) -> list[str]:
    """Référence sans apprentissage : la traduction de la phrase apprise la plus proche (suites de lettres)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    known = vectorizer.fit_transform([en for en, _ in train])
    nearest = (vectorizer.transform(english) @ known.T).argmax(axis=1)
    return [train[int(i)][1] for i in nearest.A1] if hasattr(nearest, "A1") else [train[int(i)][1] for i in nearest]
