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
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atelier.hardware import processor
from atelier.text import number
from colibri.card import command_card
from colibri.evaluate import command_evaluate
from colibri.pretrain import initialise, views
from colibri.recipe import (
    ASSETS,
    END_OF_TEXT,
    PATTERN,
    Recipe,
    documents,
    encode_documents,
    read_json,
    train_tokenizer,
    write_json,
)
from colibri.run import Budget, Shared, read_end, read_journal, worker, write_journal
from grader import UserError
from grader.cli import FrenchParser


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
    per_token = number(n_bytes / (len(tokens) - len(docs)), decimals=3)
    print(f"{number(len(docs))} documents, {number(len(tokens))} jetons, {per_token} octets par jeton")
    return 0


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


def main(argv: list[str] | None = None) -> int:
    parser = FrenchParser("python -m grader colibri", __doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="commande", required=True)

    def command(name: str, said: str, run: Callable[[argparse.Namespace], int], work: bool = False) -> FrenchParser:
        sub = commands.add_parser(name, help=said, description=said)
        sub.set_defaults(run=run)
        if work:
            sub.add_argument("--work", "--travail", type=Path, required=True, metavar="DIR", help="dossier de travail")
        return sub

    sub = command("tokenizer", "Apprend le découpeur en jetons (BPE) sur un texte.", command_tokenizer, work=True)
    sub.add_argument(
        "--text", "--texte", type=Path, required=True, metavar="FICHIER", help="le grand texte d'apprentissage"
    )
    sub = command("train", "Entraîne Colibri, ou reprend au dernier point de contrôle.", command_train, work=True)
    sub.add_argument("--tokens", type=int, metavar="N", help="jetons à lire en tout")
    end = sub.add_mutually_exclusive_group()
    end.add_argument("--until", metavar="HH:MM", help="heure à laquelle s'arrêter")
    end.add_argument("--seconds", type=float, metavar="S", help="durée au bout de laquelle s'arrêter")
    for field in fields(Recipe):
        option = "--" + field.name.replace("_", "-")
        sub.add_argument(option, type=type(field.default), metavar="V", help=f"recette ; {field.default} par défaut")
    sub = command("export", "Écrit assets/colibri à partir du dernier point de contrôle.", command_export, work=True)
    sub.add_argument(
        "--average", "--moyenne", action="store_true", help="la moyenne glissante des poids, en cours de route"
    )
    sub.add_argument(
        "--provisional",
        "--provisoire",
        action="store_true",
        help="dit, dans la fiche, que l'entraînement n'est pas fini",
    )
    sub = command("evaluate", "Bits par octet et perplexité, à côté d'un trigramme et de xz.", command_evaluate)
    sub.add_argument(
        "--work", "--travail", type=Path, help="le dossier de travail, dont les jetons servent au trigramme"
    )
    command("card", "Écrit la fiche du modèle.", command_card)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
