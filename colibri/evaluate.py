"""Ce que vaut Colibri : bits par octet et perplexité, à côté d'un trigramme et de xz."""

from __future__ import annotations

import argparse
import lzma
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colibri.recipe import ASSETS, CORPORA, documents, write_json

EXTRACTS = {
    "A validation": "a_validation.txt",
    "A test": "a_test.txt",
    "B validation": "b_validation.txt",
    "B′ validation": "bprime_validation.txt",
}


PROTOCOL = (
    "Documents mis bout à bout, chacun précédé de <|endoftext|>. Fenêtres de n_positions jetons avancées de "
    "n_positions/2 : dans toutes sauf la première, la première moitié ne sert que de contexte. Perplexité : "
    "exponentielle de la moyenne des nats par jeton prédit. Bits par octet : somme des bits de tous les jetons prédits "
    "(les <|endoftext|> compris) divisée par les octets UTF-8 des documents (sauts de ligne entre paragraphes "
    "compris ; la ligne vide entre deux documents, que remplace <|endoftext|>, n'est pas comptée)."
)


@dataclass(frozen=True)
class Stream:
    """Un extrait prêt à évaluer : ses jetons, ses octets."""

    ids: np.ndarray
    n_bytes: int

    def figures(self, nats: float) -> dict[str, float | int]:
        predicted = len(self.ids) - 1
        return {
            "octets": self.n_bytes,
            "jetons": predicted,
            "nats": round(nats, 2),
            "perplexite": round(math.exp(nats / predicted), 3),
            "bits_par_octet": round(nats / math.log(2) / self.n_bytes, 4),
        }


def read_stream(tokenizer: Any, docs: list[str]) -> Stream:
    pieces: list[np.ndarray] = []
    for start in range(0, len(docs), 4096):
        encoded = tokenizer(docs[start : start + 4096], return_attention_mask=False, verbose=False)
        pieces += [np.array([0, *ids], dtype=np.int64) for ids in encoded["input_ids"]]
    return Stream(np.concatenate(pieces), sum(len(doc.encode()) for doc in docs))


@torch.inference_mode()
def model_nats(model: Any, ids: np.ndarray, batch_size: int = 16) -> float:
    """Somme des −ln p du modèle sur l'extrait, selon PROTOCOL."""
    n = model.config.n_positions
    data = torch.from_numpy(ids)
    first = data[: n + 1]
    total = _window_nats(model, first[None], 0)
    starts = range(n // 2, len(data) - 1 - n // 2, n // 2)
    full = [data[s : s + n + 1] for s in starts if s + n + 1 <= len(data)]
    rest = [data[s:] for s in starts if s + n + 1 > len(data)]
    for i in range(0, len(full), batch_size):
        total += _window_nats(model, torch.stack(full[i : i + batch_size]), n // 2)
    for window in rest:
        total += _window_nats(model, window[None], n // 2)
    return total


def _window_nats(model: Any, windows: Tensor, skip: int) -> float:
    logits = model(windows[:, :-1]).logits[:, skip:].float()
    targets = windows[:, 1 + skip :]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()


class Trigram:
    """Trigramme de jetons, interpolation de Kneser-Ney (une remise par ordre)."""

    def __init__(self, tokens: np.ndarray, n_vocab: int) -> None:
        t = tokens.astype(np.uint64)
        self.v = np.uint64(n_vocab)
        pairs = t[:-1] * self.v + t[1:]
        self.trigrams, counts = np.unique(pairs[:-1] * self.v + t[2:], return_counts=True)
        self.tri = Order(self.trigrams // self.v, counts)
        self.counts3 = counts
        # Ordres inférieurs : en combien de contextes différents une suite a été vue.
        self.bigrams, continuations = np.unique(self.trigrams % (self.v * self.v), return_counts=True)
        self.bi = Order(self.bigrams // self.v, continuations)
        self.counts2 = continuations
        unigrams = np.bincount((self.bigrams % self.v).astype(np.int64), minlength=n_vocab)
        self.p1 = (unigrams + 0.5) / (unigrams.sum() + 0.5 * n_vocab)

    def nats(self, ids: np.ndarray) -> float:
        """Somme des −ln p des jetons 1, 2, … de la suite (le premier avec un contexte d'un jeton)."""
        t = ids.astype(np.uint64)
        a = np.concatenate([[np.uint64(0)], t[:-2]])
        b, c = t[:-1], t[1:]
        p2 = self.bi.interpolate(b, lookup(self.bigrams, self.counts2, b * self.v + c), self.p1[c.astype(np.int64)])
        seen = lookup(self.trigrams, self.counts3, (a * self.v + b) * self.v + c)
        p3 = self.tri.interpolate(a * self.v + b, seen, p2)
        return float(-np.log(p3).sum())


class Order:
    """Les contextes d'un ordre : effectif total, nombre de suites différentes, remise."""

    def __init__(self, contexts: np.ndarray, counts: np.ndarray) -> None:
        self.contexts, first, self.distinct = np.unique(contexts, return_index=True, return_counts=True)
        self.totals = np.add.reduceat(counts, first)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        self.discount = once / (once + 2 * twice)

    def interpolate(self, contexts: np.ndarray, seen: np.ndarray, lower: np.ndarray) -> np.ndarray:
        total = lookup(self.contexts, self.totals, contexts)
        distinct = lookup(self.contexts, self.distinct, contexts)
        safe = np.maximum(total, 1)
        high = np.maximum(seen - self.discount, 0) / safe
        return np.where(total > 0, high + self.discount * distinct / safe * lower, lower)


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """La valeur de chaque clé voulue, 0 si elle est absente (clés triées)."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)


def xz_bits_per_byte(docs: list[str]) -> float:
    """`xz -9` sur le même texte (les documents séparés par une ligne vide)."""
    data = "\n\n".join(docs).encode()
    return round(8 * len(lzma.compress(data, preset=9)) / sum(len(doc.encode()) for doc in docs), 4)


def first_bytes(docs: list[str], limit: int) -> list[str]:
    """Les premiers documents, jusqu'à la limite en octets."""
    chosen, size = [], 0
    for doc in docs:
        size += len(doc.encode())
        if size > limit:
            break
        chosen.append(doc)
    return chosen


def load_assets() -> tuple[Any, Any]:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    # Un seul fil : sur un si petit modèle, et une machine partagée, deux se gênent.
    torch.set_num_threads(1)
    return GPT2LMHeadModel.from_pretrained(ASSETS).eval(), AutoTokenizer.from_pretrained(ASSETS)


def command_evaluate(args: argparse.Namespace) -> int:
    """Perplexité et bits par octet de Colibri, d'un trigramme et de xz sur les mêmes textes."""
    model, tokenizer = load_assets()
    trigram = None
    if args.work:
        trigram = Trigram(np.load(args.work / "tokens.npy"), model.config.vocab_size)
    result: dict[str, Any] = {"protocole": PROTOCOL, "extraits": {}}
    for label, name in EXTRACTS.items():
        docs = documents(CORPORA / name)
        stream = read_stream(tokenizer, docs)
        row: dict[str, Any] = {"fichier": f"assets/corpora/{name}", "documents": len(docs)}
        row["colibri"] = stream.figures(model_nats(model, stream.ids))
        if trigram:
            row["trigramme"] = stream.figures(trigram.nats(stream.ids))
        row["xz_9_bits_par_octet"] = xz_bits_per_byte(docs)
        result["extraits"][label] = row
        print(f"{label} : {row['colibri']}", flush=True)
    short = read_stream(tokenizer, first_bytes(documents(CORPORA / EXTRACTS["A validation"]), 20_000))
    result["debut_de_a_validation"] = short.figures(model_nats(model, short.ids))
    if trigram:
        result["trigramme"] = "jetons, Kneser-Ney interpolé, appris sur tout le texte d'entraînement de Colibri"
    write_json(ASSETS / "evaluation.json", result)
    return 0
