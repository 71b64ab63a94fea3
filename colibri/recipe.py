"""La recette de Colibri, ses textes et son découpeur."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


ASSETS = ROOT / "assets" / "colibri"


CORPORA = ROOT / "assets" / "corpora"


END_OF_TEXT = "<|endoftext|>"


# Un mot français garde son élision (« l' », « qu' »), les chiffres vont un à un.
PATTERN = r" ?\p{L}+'?| ?\p{N}| ?[^\s\p{L}\p{N}]+\n?|\s+(?!\S)|\s+"


JOURNAL_FIELDS = ("pas", "jetons", "perte", "taux", "secondes", "flops_par_s")


@dataclass(frozen=True)
class Recipe:
    """Tout ce qui décide du résultat, hormis le texte."""

    n_vocab: int = 4096
    n_positions: int = 256
    n_embd: int = 192
    n_layer: int = 5
    n_head: int = 6
    seed: int = 0
    workers: int = 2
    micro_batch: int = 8
    accumulation: int = 2
    lr_muon: float = 6e-3
    lr_adam: float = 4e-3
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    warmup_steps: int = 100
    decay_share: float = 0.4
    average_rate: float = 0.005

    @property
    def n_params(self) -> int:
        """Nombre de paramètres, les plongements liés comptés une fois."""
        d = self.n_embd
        block = 12 * d * d + 13 * d
        return (self.n_vocab + self.n_positions) * d + self.n_layer * block + 2 * d

    @property
    def tokens_per_step(self) -> int:
        return self.workers * self.accumulation * self.micro_batch * self.n_positions


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def documents(path: Path) -> list[str]:
    """Les documents d'un texte : un paragraphe par ligne, une ligne vide entre deux."""
    text = path.read_text(encoding="utf-8")
    return [doc for doc in (part.strip("\n") for part in text.split("\n\n")) if doc]


def train_tokenizer(docs: list[str], n_vocab: int) -> Any:
    """Entraîne un BPE sur octets ; `<|endoftext|>` est l'entrée 0."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(docs, trainer)
    return tokenizer


def encode_documents(tokenizer: Any, docs: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tous les jetons bout à bout (uint16) et le début de chaque document.

    Chaque document commence par `<|endoftext|>` (numéro 0).
    """
    pieces: list[np.ndarray] = []
    for start in range(0, len(docs), 4096):
        for encoding in tokenizer.encode_batch(docs[start : start + 4096]):
            pieces.append(np.array([0, *encoding.ids], dtype=np.uint16))
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    return np.concatenate(pieces), starts
