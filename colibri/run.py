"""Une séance d'entraînement : processus, points de contrôle, journal."""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.text import number
from colibri.pretrain import Batches, Optimizer, loss_function, schedule, views
from colibri.recipe import JOURNAL_FIELDS, Recipe


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
        spent = number(elapsed, decimals=0, unit="s")
        print(f"Terminé : {number(step - 1)} pas, {number(tokens)} jetons, {spent} de calcul.")


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
