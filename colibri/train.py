"""Entraîne Colibri, le petit GPT-2 français du cours, et fabrique `assets/colibri`.

    python -m grader colibri tokenizer --work DIR --text a_train.txt
    python -m grader colibri train     --work DIR [--tokens N] [--until HH:MM | --seconds S]
    python -m grader colibri export    --work DIR
    python -m grader colibri evaluate  [--work DIR]
    python -m grader colibri card

L'architecture est exactement celle de GPT-2 : mêmes noms de paramètres, mêmes
formes, tête liée aux plongements ; `GPT2LMHeadModel.from_pretrained` charge le
résultat sans conversion. Seule la boucle d'entraînement est la nôtre : un
processus par cœur (un seul fil de calcul chacun, ce qui supporte mieux une
machine partagée que deux fils dans un même processus), paramètres et gradients
en mémoire partagée, calcul en bfloat16, état en float32.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import lzma
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from grader import UserError
from grader.cli import FrenchParser

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


# --------------------------------------------------------------------------
# Jetons


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


def describe_text(path: Path, n_documents: int, n_tokens: int) -> dict[str, Any]:
    """De quoi reconnaître le texte d'entraînement."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return {"sha256": digest, "octets": len(data), "documents": n_documents, "jetons": n_tokens}


def command_tokenizer(args: argparse.Namespace) -> int:
    """Apprend le découpage en jetons et encode le texte d'entraînement une fois pour toutes."""
    args.work.mkdir(parents=True, exist_ok=True)
    docs = documents(args.text)
    tokenizer = train_tokenizer(docs, Recipe.n_vocab)
    tokenizer.save(str(args.work / "tokenizer.json"))
    tokens, starts = encode_documents(tokenizer, docs)
    np.save(args.work / "tokens.npy", tokens)
    np.save(args.work / "starts.npy", starts)
    n_bytes = sum(len(doc.encode()) for doc in docs)
    print(f"{len(docs)} documents, {len(tokens)} jetons, {n_bytes / (len(tokens) - len(docs)):.3f} octets par jeton")
    return 0


class Batches:
    """Fenêtres d'apprentissage, dans un ordre qui ne dépend que de la graine.

    À chaque époque, les documents sont mélangés, mis bout à bout, coupés en
    fenêtres, et les fenêtres mélangées : le pas et la graine suffisent pour
    retrouver un lot, une reprise n'a donc aucun état aléatoire à garder.
    """

    def __init__(self, work: Path, recipe: Recipe) -> None:
        self.tokens = np.load(work / "tokens.npy")
        self.starts = np.load(work / "starts.npy")
        self.length = recipe.n_positions
        self.seed = recipe.seed
        self.per_epoch = (len(self.tokens) - 1) // self.length
        self.epoch = -1
        self.stream = self.tokens
        self.order = np.arange(self.per_epoch)

    def _begin(self, epoch: int) -> None:
        rng = np.random.default_rng((self.seed, epoch))
        shuffled = rng.permutation(len(self.starts) - 1)
        self.stream = np.concatenate([self.tokens[self.starts[i] : self.starts[i + 1]] for i in shuffled])
        self.order = rng.permutation(self.per_epoch)
        self.epoch = epoch

    def window(self, index: int) -> np.ndarray:
        """La fenêtre numéro `index` depuis le début de l'entraînement (longueur + 1 jetons)."""
        epoch, position = divmod(index, self.per_epoch)
        if epoch != self.epoch:
            self._begin(epoch)
        start = int(self.order[position]) * self.length
        return self.stream[start : start + self.length + 1]

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """`count` fenêtres à partir de `first` : entrées et cibles."""
        rows = np.stack([self.window(first + i) for i in range(count)]).astype(np.int64)
        data = torch.from_numpy(rows)
        return data[:, :-1].contiguous(), data[:, 1:].contiguous()


# --------------------------------------------------------------------------
# Modèle


def parameter_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Noms et formes de GPT-2 dans `transformers` (les Conv1D sont entrée × sortie)."""
    d = recipe.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (recipe.n_vocab, d),
        "transformer.wpe.weight": (recipe.n_positions, d),
    }
    for layer in range(recipe.n_layer):
        prefix = f"transformer.h.{layer}."
        shapes |= {
            prefix + "ln_1.weight": (d,),
            prefix + "ln_1.bias": (d,),
            prefix + "attn.c_attn.weight": (d, 3 * d),
            prefix + "attn.c_attn.bias": (3 * d,),
            prefix + "attn.c_proj.weight": (d, d),
            prefix + "attn.c_proj.bias": (d,),
            prefix + "ln_2.weight": (d,),
            prefix + "ln_2.bias": (d,),
            prefix + "mlp.c_fc.weight": (d, 4 * d),
            prefix + "mlp.c_fc.bias": (4 * d,),
            prefix + "mlp.c_proj.weight": (4 * d, d),
            prefix + "mlp.c_proj.bias": (d,),
        }
    return shapes | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}


def views(flat: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """Découpe un vecteur plat en paramètres nommés (sans copie)."""
    out: dict[str, Tensor] = {}
    offset = 0
    for name, shape in parameter_shapes(recipe).items():
        size = math.prod(shape)
        out[name] = flat[offset : offset + size].view(shape)
        offset += size
    return out


def initialise(params: dict[str, Tensor], recipe: Recipe) -> None:
    """Initialisation de GPT-2, projections de sortie réduites avec la profondeur."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for name, tensor in params.items():
        if name.endswith("bias"):
            tensor.zero_()
        elif ".ln_" in name:
            tensor.fill_(1.0)
        else:
            std = 0.02 / math.sqrt(2 * recipe.n_layer) if "c_proj" in name else 0.02
            tensor.normal_(0.0, std, generator=generator)


def _linear(x: Tensor, params: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = params[name + ".weight"], params[name + ".bias"]
    return x.bfloat16() @ weight.bfloat16() + bias.bfloat16()


def _norm(x: Tensor, params: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[name + ".weight"], params[name + ".bias"], 1e-5)


def _attention(q: Tensor, k: Tensor, v: Tensor, n_blocks: int = 2) -> Tensor:
    """Attention causale par blocs de requêtes : les clés futures d'un bloc ne sont pas lues."""
    length, scale = q.shape[-2], 1.0 / math.sqrt(q.shape[-1])
    size = length // n_blocks
    mask = torch.full((size, size), float("-inf")).triu(1)
    parts = []
    for start in range(0, length, size):
        end = start + size
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)).float() * scale
        weights = (scores + F.pad(mask, (start, 0))).softmax(-1).to(v.dtype)
        parts.append(weights @ v[:, :, :end])
    return torch.cat(parts, 2)


def loss_function(params: dict[str, Tensor], inputs: Tensor, targets: Tensor, n_layer: int, n_head: int) -> Tensor:
    """Entropie croisée moyenne (en nats) de GPT-2, produits de matrices en bfloat16."""
    batch, length = inputs.shape
    wte = params["transformer.wte.weight"]
    d = wte.shape[1]
    x = wte[inputs] + params["transformer.wpe.weight"][:length]
    for layer in range(n_layer):
        prefix = f"transformer.h.{layer}."
        qkv = _linear(_norm(x, params, prefix + "ln_1"), params, prefix + "attn.c_attn")
        q, k, v = qkv.view(batch, length, 3, n_head, d // n_head).permute(2, 0, 3, 1, 4)
        mixed = _attention(q, k, v).transpose(1, 2).reshape(batch, length, d)
        x = x + _linear(mixed, params, prefix + "attn.c_proj")
        hidden = _linear(_norm(x, params, prefix + "ln_2"), params, prefix + "mlp.c_fc")
        hidden = F.gelu(hidden, approximate="tanh")
        x = x + _linear(hidden, params, prefix + "mlp.c_proj")
    x = _norm(x, params, "transformer.ln_f").view(-1, d)
    logits = (x.bfloat16() @ wte.bfloat16().T).float()
    picked = logits.gather(1, targets.view(-1, 1)).squeeze(1)
    return (logits.logsumexp(-1) - picked).mean()


# --------------------------------------------------------------------------
# Optimiseur


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Itération de Newton-Schulz quintique de Muon, sur un lot de matrices larges."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Optimizer:
    """Muon pour les matrices des blocs, AdamW pour le reste, partagés entre les processus.

    Le processus `rank` met à jour une matrice sur `workers` ; le premier s'occupe
    aussi de ce qui suit AdamW (plongements, biais, normalisations).
    """

    def __init__(self, params: Tensor, gradient: Tensor, state: Tensor, recipe: Recipe, rank: int) -> None:
        self.recipe = recipe
        self.params = views(params, recipe)
        self.gradients = views(gradient, recipe)
        self.moments = [views(row, recipe) for row in state]
        names = parameter_shapes(recipe)
        blocks = [n for n, shape in names.items() if len(shape) == 2 and ".h." in n]
        self.groups: list[list[tuple[str, int, bool]]] = [[], []]
        for name in blocks:
            rows, columns = names[name]
            if name.endswith("c_attn.weight"):
                self.groups[0] += [(name, part, False) for part in range(3)]
            elif rows == columns:
                self.groups[0].append((name, 0, False))
            else:
                self.groups[1].append((name, 0, rows > columns))
        self.groups = [group[rank :: recipe.workers] for group in self.groups]
        self.adam_names = [n for n in names if n not in blocks] if rank == 0 else []

    def _matrix(self, tensors: dict[str, Tensor], key: tuple[str, int, bool]) -> Tensor:
        name, part, tall = key
        tensor = tensors[name]
        if name.endswith("c_attn.weight"):
            d = tensor.shape[0]
            return tensor[:, part * d : (part + 1) * d]
        return tensor.T if tall else tensor

    def step(self, step: int, scale: float) -> None:
        """Une mise à jour ; `scale` est le facteur du plan d'apprentissage."""
        r = self.recipe
        lr = r.lr_muon * scale
        for group in self.groups:
            updates = []
            for key in group:
                gradient = self._matrix(self.gradients, key)
                moment = self._matrix(self.moments[0], key)
                moment.lerp_(gradient, 1 - r.momentum)
                updates.append(gradient.lerp(moment, r.momentum))
            result = orthogonalise(torch.stack(updates))
            # Facteur de Moonlight : même amplitude moyenne qu'un pas d'AdamW.
            factor = 0.2 * math.sqrt(max(result.shape[-2:]))
            for key, update in zip(group, result, strict=True):
                weight = self._matrix(self.params, key)
                weight.mul_(1 - lr * r.weight_decay).sub_(update, alpha=lr * factor)
        lr = r.lr_adam * scale
        for name in self.adam_names:
            gradient, weight = self.gradients[name], self.params[name]
            first, second = self.moments[0][name], self.moments[1][name]
            first.lerp_(gradient, 1 - r.beta1)
            second.mul_(r.beta2).addcmul_(gradient, gradient, value=1 - r.beta2)
            denominator = (second / (1 - r.beta2**step)).sqrt_().add_(1e-8)
            weight.addcdiv_(first, denominator, value=-lr / (1 - r.beta1**step))


def schedule(step: int, progress: float, recipe: Recipe) -> float:
    """Montée linéaire, plateau, puis descente linéaire jusqu'à 0 en fin de parcours."""
    warmup = min(1.0, step / recipe.warmup_steps)
    decay = min(1.0, (1.0 - progress) / recipe.decay_share)
    return max(0.0, min(warmup, decay))


# --------------------------------------------------------------------------
# Boucle


@dataclass(frozen=True)
class Budget:
    """Fin de l'entraînement : un nombre de jetons, et une heure si l'on veut."""

    tokens: int
    end: float | None

    def progress(self, tokens: int, start: float) -> float:
        """Part du parcours déjà faite, par les jetons ou par l'horloge (la plus grande)."""
        share = tokens / self.tokens
        if self.end is not None:
            share = max(share, (time.time() - start) / max(self.end - start, 1e-9))
        return min(1.0, share)


@dataclass
class Shared:
    """Ce que les processus ont en commun."""

    params: Tensor
    gradients: Tensor
    state: Tensor
    average: Tensor
    control: Tensor
    barrier: Any


def save_atomically(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(data, temporary)
    os.replace(temporary, path)


def worker(rank: int, recipe: Recipe, budget: Budget, shared: Shared, work: Path, resume: dict[str, Any]) -> None:
    """Un processus d'entraînement : sa part des lots, sa part des mises à jour."""
    torch.set_num_threads(1)
    batches = Batches(work, recipe)
    params = {n: p.requires_grad_() for n, p in views(shared.params.detach(), recipe).items()}
    leaves = list(params.values())
    compiled = torch.compile(loss_function)
    own = views(shared.gradients[rank], recipe)
    total = shared.gradients[-1]
    with torch.no_grad():
        optimizer = Optimizer(shared.params, total, shared.state, recipe, rank)
    step, tokens = int(resume["step"]), int(resume["tokens"])
    elapsed, start = float(resume["seconds"]), float(resume["start"])
    share = slice(*(round(shared.params.numel() * i / recipe.workers) for i in (rank, rank + 1)))
    windows = recipe.tokens_per_step // recipe.n_positions
    journal = Journal(work / "journal.csv", recipe, step) if rank == 0 else None
    clock = saved = time.time()
    while True:
        step += 1
        if rank == 0:
            progress = budget.progress(tokens, start)
            shared.control[0] = schedule(step, progress, recipe)
            shared.control[1] = float(progress >= 1.0)
        shared.barrier.wait()
        scale, finished = float(shared.control[0]), bool(shared.control[1])
        if finished:
            break
        loss_sum = 0.0
        for micro in range(recipe.accumulation):
            rank_offset = (micro * recipe.workers + rank) * recipe.micro_batch
            first = (step - 1) * windows + rank_offset
            inputs, targets = batches.batch(first, recipe.micro_batch)
            loss = compiled(params, inputs, targets, recipe.n_layer, recipe.n_head)
            gradients = torch.autograd.grad(loss, leaves)
            loss_sum += loss.item()
            for target, gradient in zip(own.values(), gradients, strict=True):
                if micro == 0:
                    target.copy_(gradient)
                else:
                    target.add_(gradient)
        shared.control[2 + rank] = loss_sum / recipe.accumulation
        shared.barrier.wait()
        torch.mean(shared.gradients[:-1, share], dim=0, out=total[share])
        total[share] /= recipe.accumulation
        shared.barrier.wait()
        with torch.no_grad():
            optimizer.step(step, scale)
        tokens += recipe.tokens_per_step
        shared.barrier.wait()
        if journal is None:
            continue
        shared.average.lerp_(shared.params, max(recipe.average_rate, 1 / step))
        now = time.time()
        elapsed, clock = elapsed + now - clock, now
        loss_mean = float(shared.control[2:].mean())
        journal.add(step, tokens, loss_mean, recipe.lr_adam * scale, elapsed)
        if now - saved > 120:
            save_checkpoint(work, shared, recipe, step, tokens, elapsed, start)
            journal.flush()
            saved = now
    if journal is not None:
        save_checkpoint(work, shared, recipe, step - 1, tokens, elapsed, start)
        journal.flush()
        print(f"Terminé : {step - 1} pas, {tokens} jetons, {elapsed:.0f} s de calcul.")


def save_checkpoint(
    work: Path, shared: Shared, recipe: Recipe, step: int, tokens: int, seconds: float, start: float
) -> None:
    """Écrit tout ce qu'il faut pour reprendre à l'identique."""
    save_atomically(
        work / "checkpoint.pt",
        {
            "recipe": asdict(recipe),
            "params": shared.params,
            "state": shared.state,
            "average": shared.average,
            "step": step,
            "tokens": tokens,
            "seconds": seconds,
            "start": start,
        },
    )


class Journal:
    """Le journal d'entraînement, une ligne toutes les dix mises à jour."""

    def __init__(self, path: Path, recipe: Recipe, step: int) -> None:
        self.path, self.recipe = path, recipe
        rows = read_journal(path) if path.exists() else []
        self.rows = [row for row in rows if int(row["pas"]) <= step]
        self.losses: list[float] = []
        last = self.rows[-1] if self.rows else None
        self.mark = (int(last["jetons"]), float(last["secondes"])) if last else (0, 0.0)

    def add(self, step: int, tokens: int, loss: float, lr: float, seconds: float) -> None:
        self.losses.append(loss)
        if step % 10:
            return
        done, since = tokens - self.mark[0], seconds - self.mark[1]
        row = {
            "pas": str(step),
            "jetons": str(tokens),
            "perte": f"{sum(self.losses) / len(self.losses):.4f}",
            "taux": f"{lr:.6f}",
            "secondes": f"{seconds:.1f}",
            "flops_par_s": f"{6 * self.recipe.n_params * done / since:.3e}",
        }
        self.rows.append(row)
        self.losses, self.mark = [], (tokens, seconds)
        if step % 50 == 0:
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)

    def flush(self) -> None:
        write_journal(self.path, self.rows)


def read_journal(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write_journal(path: Path, rows: list[dict[str, str]]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, JOURNAL_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def read_end(args: argparse.Namespace) -> float | None:
    """L'heure de fin demandée, en secondes depuis l'époque."""
    if args.until:
        hour, minute = (int(part) for part in args.until.split(":"))
        now = datetime.datetime.now()
        end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if end <= now:
            end += datetime.timedelta(days=1)
        return end.timestamp()
    return time.time() + args.seconds if args.seconds else None


def command_train(args: argparse.Namespace) -> int:
    """Entraîne, ou reprend l'entraînement commencé dans le dossier de travail."""
    overrides = {f.name: v for f in fields(Recipe) if (v := getattr(args, f.name)) is not None}
    recipe = Recipe(**overrides)
    checkpoint = args.work / "checkpoint.pt"
    n = recipe.n_params
    shared = Shared(
        params=torch.zeros(n).share_memory_(),
        gradients=torch.zeros(recipe.workers + 1, n).share_memory_(),
        state=torch.zeros(2, n).share_memory_(),
        average=torch.zeros(n).share_memory_(),
        control=torch.zeros(2 + recipe.workers, dtype=torch.float64).share_memory_(),
        barrier=torch.multiprocessing.get_context("spawn").Barrier(recipe.workers),
    )
    resume: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "start": time.time()}
    if checkpoint.exists():
        resume = torch.load(checkpoint, weights_only=True)
        if resume["recipe"] != asdict(recipe):
            raise UserError("Le point de reprise vient d'une autre recette : prenez un autre dossier de travail.")
        shared.params.copy_(resume.pop("params"))
        shared.state.copy_(resume.pop("state"))
        shared.average.copy_(resume.pop("average"))
        print(f"Reprise au pas {resume['step']}.")
    else:
        initialise(views(shared.params, recipe), recipe)
    budget = Budget(tokens=args.tokens or int(1e15 / (6 * n)), end=read_end(args))
    print(f"{n} paramètres, {recipe.tokens_per_step} jetons par pas, au plus {budget.tokens} jetons.")
    torch.multiprocessing.start_processes(
        worker,
        args=(recipe, budget, shared, args.work, resume),
        nprocs=recipe.workers,
        start_method="spawn",
    )
    return 0


# --------------------------------------------------------------------------
# Export


def processor() -> str:
    """Le nom du processeur, si le système le dit."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def export_tokenizer(work: Path, n_positions: int) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(work / "tokenizer.json"),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(ASSETS)


def export_model(flat: Tensor, recipe: Recipe) -> None:
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=recipe.n_vocab,
        n_positions=recipe.n_positions,
        n_embd=recipe.n_embd,
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    missing, unexpected = model.load_state_dict(views(flat, recipe), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"noms de paramètres inattendus : {missing}, {unexpected}")
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, do_sample=True, temperature=0.8, top_k=40
    )
    model.save_pretrained(ASSETS)


def command_export(args: argparse.Namespace) -> int:
    """Écrit le dernier point de reprise au format de `transformers`, avec son journal et sa recette."""
    checkpoint = torch.load(args.work / "checkpoint.pt", weights_only=True)
    recipe = Recipe(**checkpoint["recipe"])
    ASSETS.mkdir(parents=True, exist_ok=True)
    export_model(checkpoint["average" if args.average else "params"], recipe)
    export_tokenizer(args.work, recipe.n_positions)
    rows = read_journal(args.work / "journal.csv")
    write_journal(ASSETS / "journal.csv", rows)
    text = read_json(args.work / "texte.json")
    write_json(
        ASSETS / "recette.json",
        {
            "provisoire": args.provisional,
            "moyenne_des_poids": args.average,
            "architecture": "GPT-2 (GPT2LMHeadModel), tête liée aux plongements, sans dropout",
            "parametres": recipe.n_params,
            "reglages": checkpoint["recipe"],
            "optimiseur": "Muon (matrices des blocs), AdamW (plongements, biais, normalisations)",
            "plan": "montée linéaire, plateau, descente linéaire jusqu'à 0",
            "precision": "produits de matrices en bfloat16, paramètres et optimiseur en float32",
            "decoupage": {"motif": PATTERN, "entrees": recipe.n_vocab},
            "texte": text,
            "pas": checkpoint["step"],
            "jetons": checkpoint["tokens"],
            "epoques": round(checkpoint["tokens"] / text["jetons"], 3),
            "flops_6nd": 6 * recipe.n_params * checkpoint["tokens"],
            "secondes": round(checkpoint["seconds"], 1),
            "machine": {"processeur": processor(), "coeurs": os.cpu_count()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "date": datetime.date.today().isoformat(),
        },
    )
    print(f"{ASSETS} : {checkpoint['step']} pas, {checkpoint['tokens']} jetons.")
    return 0


# --------------------------------------------------------------------------
# Évaluation

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


# --------------------------------------------------------------------------
# Fiche

PROMPTS = (
    "Pour demander une carte d'identité,",
    "Le salarié qui démissionne doit",
    "En cas de litige avec votre propriétaire,",
    "Colibri : petit oiseau",
    "Terme de marine.",
    "La présente convention s'applique",
    "Pour installer ce paquet,",
    "Cette commande affiche",
    "L'aide au logement est versée",
    "Dans la boîte de dialogue,",
)
POWER_WATTS = 30


@torch.inference_mode()
def samples(model: Any, tokenizer: Any) -> Iterator[tuple[str, str]]:
    """Dix continuations non choisies : amorce numéro i, graine i."""
    for seed, prompt in enumerate(PROMPTS):
        torch.manual_seed(seed)
        ids = torch.tensor([[0, *tokenizer(prompt)["input_ids"]]])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=True, temperature=0.8, top_k=40
        )
        yield prompt, tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def number(value: float, digits: int = 0) -> str:
    """Un nombre à la française : virgule décimale, milliers séparés."""
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace(".", ",")


def typography(text: str) -> str:
    """Espaces insécables devant les signes doubles et dans les guillemets."""
    for mark in (":", ";", "?", "!", "»", "%"):
        text = text.replace(" " + mark, "\u00a0" + mark)
    return text.replace("« ", "«\u00a0")


def loss_curve(rows: list[dict[str, str]], points: int = 9) -> str:
    """Quelques lignes du journal, également réparties, en tableau Markdown."""
    lines = ["| jetons | perte (nats par jeton) | taux d'apprentissage (AdamW) |", "|---:|---:|---:|"]
    chosen = [round(i * (len(rows) - 1) / (points - 1)) for i in range(points)]
    for row in (rows[i] for i in chosen):
        rate = number(float(row["taux"]) * 1000, 2)
        lines.append(f"| {number(int(row['jetons']))} | {number(float(row['perte']), 3)} | {rate} × 10⁻³ |")
    return "\n".join(lines)


def results_table(extracts: dict[str, Any]) -> str:
    lines = [
        "| extrait | octets | perplexité | **bits par octet** | trigramme, bits par octet | `xz -9`, bits par octet |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, row in extracts.items():
        ours, trigram = row["colibri"], row.get("trigramme")
        other = number(trigram["bits_par_octet"], 3) if trigram else "non mesuré"
        lines.append(
            f"| {label} | {number(ours['octets'])} | {number(ours['perplexite'], 1)} "
            f"| **{number(ours['bits_par_octet'], 3)}** | {other} | {number(row['xz_9_bits_par_octet'], 3)} |"
        )
    return "\n".join(lines)


def command_card(_: argparse.Namespace) -> int:
    """Écrit la fiche du modèle à partir de la recette, du journal et de l'évaluation."""
    recipe, evaluation = read_json(ASSETS / "recette.json"), read_json(ASSETS / "evaluation.json")
    settings, text = recipe["reglages"], recipe["texte"]
    rows = read_journal(ASSETS / "journal.csv")
    hours = recipe["secondes"] / 3600
    protocol = evaluation["protocole"].replace(END_OF_TEXT, f"`{END_OF_TEXT}`")
    for expression, value in (("n_positions/2", 2), ("n_positions", 1)):
        protocol = protocol.replace(expression, str(settings["n_positions"] // value))
    model, tokenizer = load_assets()
    blocks = []
    for seed, (prompt, continuation) in enumerate(samples(model, tokenizer)):
        quoted = "\n".join(f"> {line}  " for line in f"**{prompt}**{continuation}".split("\n"))
        blocks.append(f"Graine {seed}\n\n{quoted}")
    values = {
        "status": "**Poids provisoires : l'entraînement continue.**\n\n" if recipe["provisoire"] else "",
        "params": number(recipe["parametres"]),
        "layers": settings["n_layer"],
        "width": settings["n_embd"],
        "heads": settings["n_head"],
        "positions": settings["n_positions"],
        "vocab": number(settings["n_vocab"]),
        "size": number((ASSETS / "model.safetensors").stat().st_size / 1e6, 1),
        "megabytes": number(text["octets"] / 1e6, 1),
        "documents": number(text["documents"]),
        "corpus_tokens": number(text["jetons"]),
        "sha": text["sha256"],
        "bytes_per_token": number(text["octets"] / text["jetons"], 2),
        "tokens": number(recipe["jetons"]),
        "epochs": number(recipe["epoques"], 2),
        "steps": number(recipe["pas"]),
        "batch": number(recipe["jetons"] / recipe["pas"]),
        "flops": number(recipe["flops_6nd"] / 1e15, 3),
        "minutes": number(recipe["secondes"] / 60),
        "rate": number(recipe["jetons"] / recipe["secondes"]),
        "gflops": number(recipe["flops_6nd"] / recipe["secondes"] / 1e9),
        "processor": recipe["machine"]["processeur"],
        "lr_muon": number(settings["lr_muon"] * 1000, 1),
        "lr_adam": number(settings["lr_adam"] * 1000, 1),
        "decay": number(100 * settings["decay_share"]),
        "weight_decay": number(settings["weight_decay"], 1),
        "warmup": settings["warmup_steps"],
        "watts": POWER_WATTS,
        "energy": number(POWER_WATTS * hours),
        "protocol": protocol,
        "results": results_table(evaluation["extraits"]),
        "curve": loss_curve(rows),
    }
    card = typography(CARD.format(**values)) + "\n\n".join(blocks) + "\n"
    (ASSETS / "fiche.md").write_text(card, encoding="utf-8")
    print(ASSETS / "fiche.md")
    return 0


CARD = """\
<!-- Écrit par `python -m grader colibri card` : ne pas modifier à la main. -->
# Colibri

{status}Colibri est le petit modèle de langue français du cours. C'est un GPT-2 exact, en plus petit : {params} \
paramètres, {layers} blocs, dimension {width}, {heads} têtes, contexte de {positions} jetons, BPE sur octets de \
{vocab} entrées (appris par nous), tête de sortie liée aux plongements. Poids en float32, {size} Mo.

Il est assez petit pour que chaque chapitre le quantifie, l'élague, le distille et l'ajuste sur deux cœurs de \
processeur en quelques secondes ou minutes. Il ne sert qu'à cela.

```python
from transformers import AutoTokenizer, GPT2LMHeadModel
modele = GPT2LMHeadModel.from_pretrained("assets/colibri")
jetons = AutoTokenizer.from_pretrained("assets/colibri")
```

## Ce qu'il a lu
{megabytes} Mo de prose française tirée de paquets libres : fiches pratiques de service-public.fr, droit du \
travail, conventions collectives, codes, définitions du Littré, manuels et aides de logiciels ({documents} \
documents, {corpus_tokens} jetons, {bytes_per_token} octets par jeton). Composition, nettoyage, attributions et \
licences de chaque source : [assets/corpora](../corpora/README.md). Empreinte SHA-256 du texte : `{sha}`.

Les documents de validation et de test, la fantasy (B) et le vers classique (B′) n'en font pas partie ; aucune \
suite de treize mots n'est commune aux textes d'évaluation et au texte d'entraînement. B′ vient pourtant du même \
dictionnaire que les définitions de A, dont quelques citations non balisées restent dans A.

## Licences
Le code est sous licence MIT. Les poids sont distribués sous la même licence, pour ce qui dépend de nous : ils ont \
été appris sur des textes qui gardent chacun leur licence (MIT, Apache-2.0, GPL, GFDL, CC BY-SA, MPL, domaine \
public). Le statut juridique de poids appris sur de tels textes n'est pas tranché partout ; si vous redistribuez \
Colibri, gardez cette fiche et les attributions.

## Recette
- Architecture et noms de paramètres de GPT-2 (`gelu_new`, normalisation avant chaque sous-bloc), sans dropout.
- Muon sur les matrices des blocs (taux {lr_muon} × 10⁻³, amplitude ajustée à celle d'AdamW, décroissance des \
poids {weight_decay}), AdamW sur le reste (taux {lr_adam} × 10⁻³, β = 0,9 et 0,95).
- {steps} pas de {batch} jetons : {tokens} jetons, soit {epochs} passages sur le texte, documents mélangés à \
chaque fois.
- Montée de {warmup} pas, plateau, puis descente linéaire jusqu'à 0 sur les derniers {decay} % du parcours.
- Produits de matrices en bfloat16, paramètres et optimiseur en float32.
- Deux processus d'un fil chacun sur deux cœurs partagés avec d'autres travaux ({processor}) : {minutes} minutes, \
{rate} jetons par seconde en moyenne, soit {gflops} GFLOP/s.

C ≈ 6·N·D = 6 × {params} × {tokens} = **{flops} × 10¹⁵ opérations**. Le journal complet est dans `journal.csv` \
(une ligne tous les dix pas), les réglages dans `recette.json`.

{curve}

Énergie : le processeur est partagé et sa puissance n'a pas été mesurée. Avec {watts} W supposés pour deux cœurs \
de serveur et leur mémoire, l'entraînement retenu a demandé environ {energy} Wh (essais non compris).

```
python -m grader corpus --help
python -m grader colibri tokenizer --work DOSSIER --text a_train.txt
python -m grader colibri train --work DOSSIER
python -m grader colibri export --work DOSSIER
```

## Mesures
{results}

Ces chiffres viennent de `python -m grader colibri evaluate --work DOSSIER`, qui écrit `evaluation.json`. La \
perplexité dépend du découpage en jetons ; les bits par octet permettent de comparer des modèles différents. Le \
trigramme (jetons, Kneser-Ney interpolé) a appris sur tout le texte d'entraînement ; `xz -9` n'a rien appris \
d'avance.

**Protocole.** {protocol}

## Limites
- **Il ne sait rien.** Il imite la forme d'une phrase administrative, d'une définition ou d'un manuel ; montants, \
délais, articles de loi et noms qu'il écrit sont inventés. Rien de ce qu'il produit n'est un conseil.
- Il ne suit pas de consigne, ne répond pas à une question, ne calcule pas, ne traduit pas, ne dialogue pas.
- Il perd le fil au bout d'une ou deux phrases et ne voit que {positions} jetons, environ mille octets.
- Son français est administratif, juridique, technique, et celui d'un dictionnaire du XIXᵉ siècle, préjugés de \
l'époque compris. Ni presse, ni roman, ni conversation ; très peu de code et d'autres langues.
- Il a relu son texte {epochs} fois : des formules fréquentes (articles de convention, modèles de lettre) \
reviennent mot pour mot.

## Dix échantillons, non choisis
Amorces fixées d'avance (en gras), graines 0 à 9, température 0,8, `top_k = 40`, 80 jetons au plus. La fin est \
coupée là où le compte s'arrête.

"""


def main(argv: list[str] | None = None) -> int:
    parser = FrenchParser("python -m grader colibri", __doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="commande", required=True)
    sub = commands.add_parser(
        "tokenizer",
        help="Apprend le découpeur en jetons (BPE) sur un texte.",
        description="Apprend le découpeur en jetons (BPE) sur un texte.",
    )
    sub.add_argument("--work", "--travail", type=Path, required=True, metavar="DIR", help="dossier de travail")
    sub.add_argument(
        "--text", "--texte", type=Path, required=True, metavar="FICHIER", help="le grand texte d'apprentissage"
    )
    sub.set_defaults(run=command_tokenizer)
    sub = commands.add_parser(
        "train",
        help="Entraîne Colibri, ou reprend au dernier point de contrôle.",
        description="Entraîne Colibri, ou reprend au dernier point de contrôle.",
    )
    sub.add_argument("--work", "--travail", type=Path, required=True, metavar="DIR", help="dossier de travail")
    sub.add_argument("--tokens", type=int, metavar="N", help="jetons à lire en tout")
    end = sub.add_mutually_exclusive_group()
    end.add_argument("--until", metavar="HH:MM", help="heure à laquelle s'arrêter")
    end.add_argument("--seconds", type=float, metavar="S", help="durée au bout de laquelle s'arrêter")
    for field in fields(Recipe):
        option = "--" + field.name.replace("_", "-")
        sub.add_argument(option, type=type(field.default), metavar="V", help=f"recette ; {field.default} par défaut")
    sub.set_defaults(run=command_train)
    sub = commands.add_parser(
        "export",
        help="Écrit assets/colibri à partir du dernier point de contrôle.",
        description="Écrit assets/colibri à partir du dernier point de contrôle.",
    )
    sub.add_argument("--work", "--travail", type=Path, required=True, metavar="DIR", help="dossier de travail")
    sub.add_argument(
        "--average", "--moyenne", action="store_true", help="la moyenne glissante des poids, en cours de route"
    )
    sub.add_argument(
        "--provisional",
        "--provisoire",
        action="store_true",
        help="dit, dans la fiche, que l'entraînement n'est pas fini",
    )
    sub.set_defaults(run=command_export)
    sub = commands.add_parser(
        "evaluate",
        help="Bits par octet et perplexité, à côté d'un trigramme et de xz.",
        description="Bits par octet et perplexité, à côté d'un trigramme et de xz.",
    )
    sub.add_argument(
        "--work", "--travail", type=Path, help="le dossier de travail, dont les jetons servent au trigramme"
    )
    sub.set_defaults(run=command_evaluate)
    sub = commands.add_parser("card", help="Écrit la fiche du modèle.", description="Écrit la fiche du modèle.")
    sub.set_defaults(run=command_card)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
