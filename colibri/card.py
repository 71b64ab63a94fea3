"""La fiche de Colibri, écrite à partir de la recette, du journal et de l'évaluation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from atelier.text import number, typeset
from colibri.evaluate import load_assets
from colibri.recipe import ASSETS, END_OF_TEXT, read_json
from colibri.run import read_journal

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


def loss_curve(rows: list[dict[str, str]], points: int = 9) -> str:
    """Quelques lignes du journal, également réparties, en tableau Markdown."""
    lines = ["| jetons | perte (nats par jeton) | taux d'apprentissage (AdamW) |", "|---:|---:|---:|"]
    chosen = [round(i * (len(rows) - 1) / (points - 1)) for i in range(points)]
    for row in (rows[i] for i in chosen):
        rate = number(float(row["taux"]) * 1000, decimals=2)
        lines.append(f"| {number(int(row['jetons']))} | {number(float(row['perte']), decimals=3)} | {rate} × 10⁻³ |")
    return "\n".join(lines)


def results_table(extracts: dict[str, Any]) -> str:
    lines = [
        "| extrait | octets | perplexité | **bits par octet** | trigramme, bits par octet | `xz -9`, bits par octet |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, row in extracts.items():
        ours, trigram = row["colibri"], row.get("trigramme")
        other = number(trigram["bits_par_octet"], decimals=3) if trigram else "non mesuré"
        packed = number(row["xz_9_bits_par_octet"], decimals=3)
        lines.append(
            f"| {label} | {number(ours['octets'])} | {number(ours['perplexite'], decimals=1)} "
            f"| **{number(ours['bits_par_octet'], decimals=3)}** | {other} | {packed} |"
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
        "size": number((ASSETS / "model.safetensors").stat().st_size / 1e6, decimals=1),
        "megabytes": number(text["octets"] / 1e6, decimals=1),
        "documents": number(text["documents"]),
        "corpus_tokens": number(text["jetons"]),
        "sha": text["sha256"],
        "bytes_per_token": number(text["octets"] / text["jetons"], decimals=2),
        "tokens": number(recipe["jetons"]),
        "epochs": number(recipe["epoques"], decimals=2),
        "steps": number(recipe["pas"]),
        "batch": number(recipe["jetons"] / recipe["pas"], decimals=0),
        "flops": number(recipe["flops_6nd"] / 1e15, decimals=3),
        "minutes": number(recipe["secondes"] / 60, decimals=0),
        "rate": number(recipe["jetons"] / recipe["secondes"], decimals=0),
        "gflops": number(recipe["flops_6nd"] / recipe["secondes"] / 1e9, decimals=0),
        "processor": recipe["machine"]["processeur"],
        "lr_muon": number(settings["lr_muon"] * 1000, decimals=1),
        "lr_adam": number(settings["lr_adam"] * 1000, decimals=1),
        "decay": number(100 * settings["decay_share"], decimals=0),
        "weight_decay": number(settings["weight_decay"], decimals=1),
        "warmup": settings["warmup_steps"],
        "watts": POWER_WATTS,
        "energy": number(POWER_WATTS * hours, decimals=0),
        "protocol": protocol,
        "results": results_table(evaluation["extraits"]),
        "curve": loss_curve(rows),
    }
    card = typeset(CARD.format(**values)) + "\n\n".join(blocks) + "\n"
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
