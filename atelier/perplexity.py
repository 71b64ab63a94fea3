"""Le protocole d'évaluation du cours, écrit une seule fois : même extrait, même contexte, même pas, pour tous.

Les documents d'un extrait sont mis bout à bout, séparés par <|endoftext|>. Une fenêtre de `context` jetons avance
de `stride` jetons ; seuls les jetons nouveaux comptent, chacun voit donc au moins `context − stride` jetons avant lui
(sauf au tout début). Pas de remplissage. Perplexité = exp(perte moyenne par jeton, en nats).
Bits par octet = perte totale / ln 2 / octets du texte évalué : comparable entre découpages en jetons différents.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atelier.hardware import beside, scale
from atelier.paths import asset
from atelier.text import number

if TYPE_CHECKING:
    from torch import Tensor

END = "<|endoftext|>"
PARTS = 16
"""Les parts d'un extrait dont `Evaluation.losses` donne la perte."""


@dataclass(frozen=True)
class Evaluation:
    """Ce que rend `evaluate_perplexity`. seconds : durée totale de l'évaluation.

    losses : perte moyenne, en nats par jeton, de `PARTS` parts égales de l'extrait, dans l'ordre ; de quoi comparer
    deux modèles part à part (`paired`). L'exponentielle de leur moyenne est la perplexité.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int
    seconds: float
    losses: tuple[float, ...] = ()

    def __str__(self) -> str:
        perplexity, bits = number(self.perplexity, decimals=2), number(self.bits_per_byte, decimals=3)
        return f"perplexité {perplexity} ({bits} bits par octet, {number(self.tokens)} jetons)"


def extract(name: str = "a_validation") -> str:
    """Un extrait livré avec le cours : a, b (fantasy) ou bprime (vers), suivi de _train, _validation ou _test.

    Lève `ValueError` si l'extrait n'existe pas.
    """
    path = asset("corpora", f"{name}.txt")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in asset("corpora").glob("*.txt")))
        raise ValueError(f"pas d'extrait « {name} » ; il y a {known}.")
    return path.read_text(encoding="utf-8")


def encode_documents(text: str, tokenizer: Any, max_tokens: int | None = None) -> Tensor:
    """Texte (documents séparés par une ligne vide) → identifiants (n,) int64, <|endoftext|> devant chaque document."""
    ids: list[int] = []
    end = tokenizer.convert_tokens_to_ids(END)
    for document in text.strip().split("\n\n"):
        ids.append(end)
        ids.extend(tokenizer(document, verbose=False)["input_ids"])
        if max_tokens is not None and len(ids) > max_tokens:
            break
    return torch.tensor(ids if max_tokens is None else ids[: max_tokens + 1])


@torch.inference_mode()
def evaluate_perplexity(
    model: torch.nn.Module,
    text: str = "a_validation",
    tokenizer: Any = None,
    max_tokens: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> Evaluation:
    """Perplexité d'un modèle de langue causal sur un extrait, selon le protocole du cours.

    model : modèle Hugging Face causal (logits (B, T, V)). text : nom d'un extrait livré, ou le texte lui-même.
    max_tokens : jetons évalués (par défaut selon l'échelle : 512, 8 192, tout l'extrait sur GPU).
    context : longueur de fenêtre (par défaut celle du modèle, au plus 1 024) ; stride : context // 2 par défaut.
    Lève `ValueError` si l'extrait compte moins de deux jetons ou si stride n'est pas dans [1, context].
    """
    from atelier.models import shared_tokenizer

    tokenizer = tokenizer or shared_tokenizer()
    if max_tokens is None:
        max_tokens = scale().pick(essai=512, cpu=8192, gpu=None)
    known = " " not in text and len(text) < 40
    ids = encode_documents(extract(text) if known else text, tokenizer, max_tokens)
    if context is None:
        config: Any = model.config
        context = min(config.n_positions, 1024)
    stride = max(1, context // 2) if stride is None else stride
    if len(ids) < 2 or not 1 <= stride <= context:
        raise ValueError(
            f"il faut au moins deux jetons (ici {len(ids)}) et un pas entre 1 et {context} (ici {stride})."
        )

    was_training = model.training
    model.eval()
    start, each = time.perf_counter(), []
    windows = _windows(len(ids) - 1, context, stride)
    for i in range(0, len(windows), batch_size):
        group = windows[i : i + batch_size]
        longest = max(stop - begin for begin, stop, _ in group)
        inputs = torch.zeros(len(group), longest, dtype=torch.long)
        targets = torch.full((len(group), longest), -100)
        for row, (begin, stop, new) in enumerate(group):
            n = stop - begin
            inputs[row, :n] = ids[begin:stop]
            targets[row, n - new : n] = ids[stop - new + 1 : stop + 1]
        kept = (targets != -100).flatten()
        inputs, targets = beside(model, (inputs, targets))
        logits = model(inputs).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        each.append(loss.cpu()[kept])
    if was_training:
        model.train()
    end = tokenizer.convert_tokens_to_ids(END)
    n_bytes = len(tokenizer.decode(ids[1:][ids[1:] != end], clean_up_tokenization_spaces=False).encode())
    losses = torch.cat(each).double()  # un jeton après l'autre, dans l'ordre du texte
    total, count, seconds = losses.sum().item(), len(losses), time.perf_counter() - start
    parts = tuple(part.mean().item() for part in losses.tensor_split(min(PARTS, count)))
    return Evaluation(math.exp(total / count), total / math.log(2) / n_bytes, count, seconds, parts)


def _windows(n: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Fenêtres sur n entrées : (début, fin, nombre de cibles nouvelles). Chaque cible compte une fois."""
    out, done, begin = [], 0, 0
    while done < n:
        stop = min(begin + context, n)
        out.append((begin, stop, stop - done))
        done, begin = stop, begin + stride
    return out
