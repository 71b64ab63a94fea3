"""Déclarations du chapitre 7 : points, indices, tirage des cas, tolérances, idées fausses, quiz."""

from __future__ import annotations

import random

import torch

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap

# --- Adapter --------------------------------------------------------------------------------------------------------

_WATCHED = ["down.weight", "up.weight", "up.bias"]


def _adapter_case(d: Draw, width: int, bottleneck: int, x: torch.Tensor) -> Inputs:
    weights = {
        "down.weight": 0.5 * d.normal(bottleneck, width),
        "down.bias": 0.5 * d.normal(bottleneck),
        "up.weight": 0.5 * d.normal(width, bottleneck),
        "up.bias": 0.5 * d.normal(width),
    }
    return {
        "init": {"d_model": width, "bottleneck": bottleneck},
        "x": x,
        "weights": weights,
        "out_grad": 0.5 * d.normal(*x.shape),
        "watch": _WATCHED,
    }


def draw_adapter(d: Draw, group: str) -> Inputs:
    width, bottleneck = d.turn([(6, 3), (5, 2), (8, 3), (7, 4)])
    if group == "courant":
        return _adapter_case(d, width, bottleneck, d.normal(2, 3, width))
    wide, low = d.turn([(4, 7), (6, 1), (5, 3), (3, 6)])
    x = d.turn(
        [
            d.normal(wide),
            d.strided(d.normal(2, wide)),
            d.normal(1, 2, 2, wide),
            d.normal(3, 2, wide).transpose(0, 1),
        ]
    )
    return _adapter_case(d, wide, low, x)


_FORWARD = "return x + self.up(F.gelu(self.down(x)))"
_MADE = "self.down, self.up ="
_SILENT = "in self.up.parameters():"

Adapter = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Suivez un jeton dans le dessin : quelles formes a-t-il avant le goulot, dans le goulot, après ?",
        "La non-linéarité est là où le vecteur est étroit ; ce qui entre est ajouté à ce qui sort.",
        "Pour que le module ne change rien au départ, il suffit que la dernière application rende zéro. Combien de "
        "tenseurs cela concerne-t-il, et pourquoi pas la première aussi ?",
        "x + W_up · GELU(W_down · x + b_down) + b_up, avec W_up et b_up nuls au départ.",
    ],
    groups={"courant": 0.75, "formes": 0.25},
    draw=draw_adapter,
    probe="module",
    examples=[
        {
            "init": {"d_model": 2, "bottleneck": 1},
            "x": torch.tensor([[1.0, 2.0]]),
            "weights": {
                "down.weight": torch.tensor([[1.0, -1.0]]),
                "down.bias": torch.tensor([0.5]),
                "up.weight": torch.tensor([[2.0], [-2.0]]),
                "up.bias": torch.tensor([0.1, 0.2]),
            },
            "out_grad": torch.tensor([[1.0, 1.0]]),
            "watch": _WATCHED,
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=2e-2, why="les deux formes usuelles de la GELU"),
    misconceptions=[
        Misconception(
            "no_residual",
            swap((_FORWARD, "return self.up(F.gelu(self.down(x)))")),
            "Au départ, votre module efface tout ce qui le traverse.",
        ),
        Misconception(
            "no_activation",
            swap((_FORWARD, "return x + self.up(self.down(x))")),
            "Deux applications linéaires de suite n'en font qu'une : qu'y gagne-t-on ?",
        ),
        Misconception(
            "relu",
            swap((_FORWARD, "return x + self.up(F.relu(self.down(x)))")),
            "Votre non-linéarité coupe net les valeurs négatives : l'énoncé en demande une autre, celle de GPT-2.",
        ),
        Misconception(
            "up_random",
            swap((_SILENT, "in ():")),
            "Avant tout entraînement, le modèle a déjà changé.",
        ),
        Misconception(
            "bias_random",
            swap((_SILENT, "in [self.up.weight]:")),
            "La matrice de remontée part de zéro, mais la sortie de départ n'est pas encore l'entrée : que "
            "reste-t-il ?",
        ),
        Misconception(
            "weight_random",
            swap((_SILENT, "in [self.up.bias]:")),
            "Un biais nul ne suffit pas : que fait la matrice de remontée au premier passage ?",
        ),
        Misconception(
            "down_zero_too",
            swap((_SILENT, "in [*self.up.parameters(), self.down.weight]:")),
            "Faites un pas : quel gradient arrive jusqu'à chaque matrice ?",
        ),
        Misconception(
            "down_zero_instead",
            swap((_SILENT, "in self.down.parameters():")),
            "Vous avez mis à zéro la descente, et non la remontée : le biais de sortie est-il nul, lui aussi ?",
        ),
        Misconception(
            "gelu_after_up",
            swap((_FORWARD, "return x + F.gelu(self.up(self.down(x)))")),
            "La non-linéarité est à l'étage large ; où est le goulot ?",
        ),
        Misconception(
            "gelu_before_down",
            swap((_FORWARD, "return x + self.up(self.down(F.gelu(x)))")),
            "Vous déformez l'entrée avant de descendre : la non-linéarité se place entre les deux matrices.",
        ),
        Misconception(
            "gelu_on_sum",
            swap((_FORWARD, "return F.gelu(x + self.up(self.down(x)))")),
            "Votre non-linéarité s'applique aussi au chemin direct : le module ne rend plus ce qu'il reçoit.",
        ),
        Misconception(
            "residual_twice",
            swap((_FORWARD, "return 2 * x + self.up(F.gelu(self.down(x)))")),
            "Au départ, la sortie vaut deux fois l'entrée : combien de fois l'ajoutez-vous ?",
        ),
        Misconception(
            "no_bias",
            swap(
                ("nn.Linear(d_model, bottleneck)", "nn.Linear(d_model, bottleneck, bias=False)"),
                ("nn.Linear(bottleneck, d_model)", "nn.Linear(bottleneck, d_model, bias=False)"),
            ),
            "Comptez les paramètres : chaque projection de l'article a aussi un vecteur.",
        ),
        Misconception(
            "extra_norm",
            swap((_MADE, "self.norm = nn.LayerNorm(d_model)\n        " + _MADE)),
            "Votre module apprend autre chose que ses deux projections : l'énoncé n'en demande pas plus.",
        ),
    ],
)


# --- adapter_num_params ---------------------------------------------------------------------------------------------


def draw_num_params(d: Draw, group: str) -> Inputs:
    inputs = {"d_model": 16 * d.integer(3, 60), "bottleneck": d.integer(5, 130), "n_layer": d.integer(4, 40)}
    if group == "refus":
        bad = d.turn(
            [{"bottleneck": 0}, {"d_model": -d.integer(0, 3)}, {"n_layer": -1}, {"per_layer": -d.integer(1, 3)}]
        )
        return inputs | bad
    if group == "bords":
        return inputs | d.turn([{"n_layer": 0}, {"bottleneck": 1}, {"per_layer": 0}, {"d_model": 1}])
    return inputs if d.index % 2 == 0 else inputs | {"per_layer": d.choice([1, 3, 4])}


_DOWN = "down = d_model * bottleneck + bottleneck"
_UP = "up = bottleneck * d_model + d_model"
_COUNT = "return n_layer * per_layer * (down + up)"
_SIZES = "if min(d_model, bottleneck) < 1 or min(n_layer, per_layer) < 0:"

adapter_num_params = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Écrivez la forme des quatre tenseurs d'un adaptateur.",
        "Deux matrices de d × m nombres ; un biais à la taille de chaque sortie.",
        "(2·m·d + d + m) par adaptateur, autant de fois qu'il y a d'adaptateurs.",
    ],
    groups={"courant": 0.65, "bords": 0.2, "refus": 0.15},
    draw=draw_num_params,
    examples=[
        {"d_model": 4, "bottleneck": 2, "n_layer": 1, "per_layer": 1},
        {"d_model": 192, "bottleneck": 16, "n_layer": 5},
    ],
    misconceptions=[
        Misconception(
            "no_bias",
            swap((_DOWN, "down = d_model * bottleneck"), (_UP, "up = bottleneck * d_model")),
            "Chaque projection a un vecteur, en plus de sa matrice.",
        ),
        Misconception(
            "one_projection",
            swap((_COUNT, "return n_layer * per_layer * down")),
            "On descend, puis on remonte : combien de matrices ?",
        ),
        Misconception(
            "per_layer_ignored",
            swap((_COUNT, "return n_layer * 2 * (down + up)")),
            "Changez le nombre d'adaptateurs par couche : rien ne bouge.",
        ),
        Misconception(
            "one_per_layer",
            swap((_COUNT, "return n_layer * (down + up)")),
            "Vous comptez un seul adaptateur par bloc : combien d'endroits d'un bloc en reçoivent un ?",
        ),
        Misconception(
            "layers_ignored",
            swap((_COUNT, "return per_layer * (down + up)")),
            "Chaque bloc a les siens : votre compte ne grandit pas avec le modèle.",
        ),
        Misconception(
            "narrow_biases",
            swap((_UP, "up = bottleneck * d_model + bottleneck")),
            "Un biais a la taille de ce qui sort de sa couche : que rend la remontée ?",
        ),
        Misconception(
            "wide_biases",
            swap((_DOWN, "down = d_model * bottleneck + d_model")),
            "Un biais a la taille de ce qui sort de sa couche : que rend la descente ?",
        ),
        Misconception(
            "with_norm",
            swap((_UP, _UP + " + 2 * d_model")),
            "Vous ajoutez un LayerNorm par adaptateur : les nôtres n'en ont pas.",
        ),
        Misconception(
            "no_check",
            swap((_SIZES, "if False:")),
            "Un goulot de largeur nulle n'est pas un adaptateur : l'énoncé demande de refuser ces tailles.",
        ),
        Misconception(
            "zero_refused",
            swap((_SIZES, "if min(d_model, bottleneck, n_layer, per_layer) < 1:")),
            "Aucun adaptateur, c'est aucun paramètre : 0 est une réponse.",
        ),
    ],
)


# --- insert_adapters ------------------------------------------------------------------------------------------------


def draw_insert(d: Draw, group: str) -> Inputs:
    n_layer, bottleneck = d.turn([(2, 3), (3, 2), (2, 5), (3, 4)])
    config = {"n_layer": n_layer}
    if group == "bords":
        n_layer, bottleneck, width, heads = d.turn([(1, 1, 8, 2), (2, 11, 6, 3), (3, 1, 8, 4), (1, 4, 12, 1)])
        config = {"n_layer": n_layer, "n_embd": width, "n_head": heads}
    return {
        "config": config,
        "seed": d.integer(0, 2**31),
        "args": {"bottleneck": bottleneck},
        "input_ids": d.integers(0, 22, d.integer(1, 2), d.integer(5, 8)),
        "stand_ins": {"Adapter": "Bottleneck"},
    }


_FREEZE = "model.requires_grad_(False)"
_PAIR = "after_attention, after_mlp = (Adapter(hidden, bottleneck).to(model.device) for _ in range(2))"
_ATTENTION = "block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)"
_MLP = "block.mlp = nn.Sequential(block.mlp, after_mlp)"
_HOOK = "register_forward_hook(lambda _m, _x, out, adapter={0}: adapter(out))"
_KEEP = "model.added = nn.ModuleList([*getattr(model, 'added', []), {0}])"

insert_adapters = Exercise(
    points=4,
    minutes=30,
    stars=3,
    hints=[
        "Dans un bloc, quels sont les deux endroits où une sous-couche rend son résultat, juste avant l'addition ?",
        "Remplacer un module par la suite de lui-même et d'un adaptateur suffit : le bloc n'en saura rien.",
        "Dans quel ordre faut-il geler la base et brancher les adaptateurs pour que seuls ceux-ci apprennent ?",
        "Pour chaque bloc de model.transformer.h, mettez deux adaptateurs neufs : l'un après attn.c_proj, l'autre "
        "après mlp, chacun dans une nn.Sequential.",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_insert,
    probe="gpt2_transform",
    cases=3,
    visible=2,
    tolerance=Tolerance(rtol=2e-3, atol=2e-3, why="deux ou trois blocs en float32, gradients compris"),
    misconceptions=[
        Misconception(
            "base_not_frozen",
            swap((_FREEZE, "model.requires_grad_(True)")),
            "Vos adaptateurs sont là, mais tout le reste apprend aussi.",
        ),
        Misconception(
            "only_blocks_frozen",
            swap((_FREEZE, "model.transformer.h.requires_grad_(False)")),
            "Les blocs sont gelés ; regardez ce qui, hors des blocs, apprend encore.",
        ),
        Misconception(
            "freezes_too_late",
            swap(("    return model", "    return model.requires_grad_(False)")),
            "Plus rien n'apprend, pas même les adaptateurs : dans quel ordre avez-vous gelé et branché ?",
        ),
        Misconception(
            "norms_trained",
            swap(
                (
                    "    return model",
                    "    for name, p in model.named_parameters():\n"
                    "        if '.ln_' in name:\n"
                    "            p.requires_grad_(True)\n"
                    "    return model",
                )
            ),
            "Comme dans l'article, vos LayerNorm apprennent aussi ; l'énoncé, lui, gèle tout le reste.",
        ),
        Misconception(
            "shared_adapter",
            swap(
                ("    for block in", "    shared = Adapter(hidden, bottleneck)\n    for block in"),
                (_PAIR, "after_attention = after_mlp = shared"),
            ),
            "Toutes les couches se partagent le même module : comptez les paramètres.",
        ),
        Misconception(
            "shared_in_block",
            swap((_PAIR, "after_attention = after_mlp = Adapter(hidden, bottleneck)")),
            "Dans chaque bloc, l'attention et le MLP se partagent un seul adaptateur : il en faut deux.",
        ),
        Misconception(
            "mlp_only",
            swap((_ATTENTION, "pass")),
            "Deux par bloc : et après l'attention ?",
        ),
        Misconception(
            "attention_only",
            swap((_MLP, "pass")),
            "Deux par bloc : et après le MLP ?",
        ),
        Misconception(
            "after_residual",
            swap(
                (_MLP, _KEEP.format("after_mlp") + "\n        block." + _HOOK.format("after_mlp")),
            ),
            "Votre adaptateur transforme la somme ; il devait toucher seulement ce que la sous-couche ajoute.",
        ),
        Misconception(
            "both_after_residual",
            swap(
                (
                    _ATTENTION,
                    _KEEP.format("after_attention") + "\n        block.ln_2." + _HOOK.format("after_attention"),
                ),
                (_MLP, _KEEP.format("after_mlp") + "\n        block." + _HOOK.format("after_mlp")),
            ),
            "Vos deux adaptateurs lisent le flux résiduel, après la somme : chacun devait rester dans sa branche.",
        ),
        Misconception(
            "block_output_only",
            swap(
                (_ATTENTION, "pass"), (_MLP, _KEEP.format("after_mlp") + "\n        block." + _HOOK.format("after_mlp"))
            ),
            "Un seul adaptateur par bloc, et sur la somme : il en faut un dans chaque branche, avant l'addition.",
        ),
        Misconception(
            "before_sublayer",
            swap(
                (_ATTENTION, "block.ln_1 = nn.Sequential(block.ln_1, after_attention)"),
                (_MLP, "block.ln_2 = nn.Sequential(block.ln_2, after_mlp)"),
            ),
            "Vos adaptateurs préparent ce qui entre dans chaque branche ; ils devaient corriger ce qui en sort.",
        ),
        Misconception(
            "before_projection",
            swap((_ATTENTION, "block.attn.c_proj = nn.Sequential(after_attention, block.attn.c_proj)")),
            "Dans l'attention, votre adaptateur passe avant la projection de sortie ; il devait passer après.",
        ),
        Misconception(
            "not_registered",
            swap(
                (_ATTENTION, "block.attn.c_proj." + _HOOK.format("after_attention")),
                (_MLP, "block.mlp." + _HOOK.format("after_mlp")),
            ),
            "L'optimiseur ne verra jamais vos modules : model.parameters() les trouve-t-il ?",
        ),
        Misconception(
            "late_binding",
            swap(
                (
                    _ATTENTION,
                    _KEEP.format("after_attention")
                    + "\n        block.attn.c_proj.register_forward_hook(lambda _m, _x, out: model.added[-1](out))",
                ),
                (
                    _MLP,
                    _KEEP.format("after_mlp")
                    + "\n        block.mlp.register_forward_hook(lambda _m, _x, out: model.added[-1](out))",
                ),
            ),
            "Tous vos crochets appellent le dernier module créé.",
        ),
        Misconception(
            "misses_a_block",
            swap(("in model.transformer.h:", "in list(model.transformer.h)[:-1] or model.transformer.h:")),
            "Un bloc n'a rien reçu : votre boucle va-t-elle jusqu'au dernier ?",
        ),
        Misconception(
            "not_the_model",
            swap((_FREEZE, "import copy\n    model = copy.deepcopy(model).requires_grad_(False)")),
            "Ce que vous rendez n'est pas le modèle reçu : l'avez-vous copié, ou oublié de le rendre ?",
        ),
    ],
)


# --- adapter_overhead -----------------------------------------------------------------------------------------------


def draw_overhead(d: Draw, group: str) -> Inputs:
    inputs = {"d_model": 16 * d.integer(3, 60), "bottleneck": d.integer(5, 130), "n_ctx": d.integer(33, 2048)}
    if group == "refus":
        bad = d.turn([{"bottleneck": 0}, {"n_ctx": 0}, {"per_layer": -d.integer(1, 3)}, {"d_model": -1}])
        return inputs | bad
    if group == "bords":
        return inputs | d.turn([{"n_ctx": 1}, {"per_layer": 0}, {"bottleneck": 1}, {"n_ctx": 8192, "bottleneck": 1}])
    return inputs if d.index % 2 == 0 else inputs | {"per_layer": d.choice([1, 3, 4])}


_LINEAR = "linear = 2 * 12 * d_model**2"
_SCORES = "attention = 2 * 2 * n_ctx * d_model"
_ADAPTERS = "adapters = per_layer * 2 * 2 * d_model * bottleneck"
_RATIO = "return adapters / (linear + attention)"
_LIMITS = "if min(d_model, bottleneck, n_ctx) < 1 or per_layer < 0:"

adapter_overhead = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Comptez par jeton : combien de produits de matrices un adaptateur fait-il, et de quelles tailles ?",
        "Les couches linéaires d'un bloc ont en tout 12·d² poids ; chacun sert à une multiplication et une addition.",
        "L'attention ajoute, par jeton, deux produits de n_ctx × d multiplications et additions.",
        "4·m·d par adaptateur, contre 24·d² + 4·n_ctx·d pour le bloc.",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_overhead,
    probe="call_float",
    examples=[
        {"d_model": 4, "bottleneck": 2, "n_ctx": 8, "per_layer": 1},
        {"d_model": 768, "bottleneck": 64, "n_ctx": 1024},
    ],
    tolerance=Tolerance(rtol=1e-6, why="un quotient, float32 admis"),
    misconceptions=[
        Misconception(
            "no_attention",
            swap((_RATIO, "return adapters / linear")),
            "Votre rapport ne dépend pas du contexte : l'attention ne fait-elle aucun produit ?",
        ),
        Misconception(
            "params_ratio",
            swap(
                (
                    _RATIO,
                    "return per_layer * (2 * d_model * bottleneck + d_model + bottleneck)"
                    " / (12 * d_model**2 + 13 * d_model)",
                )
            ),
            "Vous comparez des paramètres, pas des opérations.",
        ),
        Misconception(
            "half",
            swap((_ADAPTERS, "adapters = per_layer * 2 * d_model * bottleneck")),
            "Votre numérateur est deux fois trop petit : une projection oubliée, ou une addition non comptée "
            "d'un côté ?",
        ),
        Misconception(
            "macs_in_block",
            swap((_RATIO, "return 2 * adapters / (linear + attention)")),
            "Numérateur et dénominateur ne comptent pas de la même façon : l'un en opérations, l'autre en "
            "multiplications.",
        ),
        Misconception(
            "one_attention_product",
            swap((_SCORES, "attention = 2 * n_ctx * d_model")),
            "L'attention fait deux produits, et l'énoncé la veut dense : lequel manque, ou quelle moitié "
            "avez-vous ôtée ?",
        ),
        Misconception(
            "attention_in_macs",
            swap((_LINEAR, "linear = 2 * 2 * 12 * d_model**2")),
            "Les couches linéaires pèsent deux fois trop dans votre bloc : comptez-vous partout de la même façon ?",
        ),
        Misconception(
            "denominator_total",
            swap((_RATIO, "return adapters / (linear + attention + adapters)")),
            "Le surcoût se mesure par rapport au bloc seul, sans les adaptateurs.",
        ),
        Misconception(
            "total_over_block",
            swap((_RATIO, "return 1 + adapters / (linear + attention)")),
            "Vous rendez le coût total rapporté au bloc : on demande seulement ce qui s'ajoute.",
        ),
        Misconception(
            "percent",
            swap((_RATIO, "return 100 * adapters / (linear + attention)")),
            "Votre réponse est en pour cent : l'énoncé veut un rapport sans unité.",
        ),
        Misconception(
            "per_layer_ignored",
            swap((_ADAPTERS, "adapters = 2 * 2 * 2 * d_model * bottleneck")),
            "Changez le nombre d'adaptateurs par bloc : votre surcoût reste le même.",
        ),
        Misconception(
            "no_mlp",
            swap((_LINEAR, "linear = 2 * 4 * d_model**2")),
            "Un bloc n'est pas fait que d'attention : où est le MLP ?",
        ),
        Misconception(
            "no_check",
            swap((_LIMITS, "if False:")),
            "L'énoncé annonce des tailles interdites : votre fonction répond quand même.",
        ),
        Misconception(
            "zero_refused",
            swap((_LIMITS, "if min(d_model, bottleneck, n_ctx, per_layer) < 1:")),
            "Sans adaptateur, le surcoût est nul : c'est une réponse, pas une erreur.",
        ),
    ],
)


# --- optimizer_state_bytes ------------------------------------------------------------------------------------------


def draw_optimizer(d: Draw, group: str) -> Inputs:
    config = {"n_layer": d.integer(1, 3), "n_embd": d.choice([8, 12, 16]), "vocab_size": d.integer(17, 60)}
    seed = d.integer(0, 2**31)
    while (random.Random(seed).random() < 0.5) != (d.index % 2 == 0):  # la table des jetons apprend un cas sur deux
        seed = d.integer(0, 2**31)
    case = {"config": config, "seed": seed}
    if group == "courant" and d.index % 2 == 0:
        return case | {"args": {}}
    return case | {"args": {"bytes_per_value": d.turn([2, 1, 8, 2])}}


_STATE = "return moments * bytes_per_value * sum(p.numel() for p in model.parameters() if p.requires_grad)"

optimizer_state_bytes = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Relisez l'algorithme d'Adam : que garde-t-il, d'un pas au suivant, pour chaque poids qu'il déplace ?",
        "Un poids gelé n'a pas de gradient : qu'y a-t-il à moyenner ?",
        "Deux nombres par paramètre dont requires_grad est vrai, de bytes_per_value octets chacun.",
    ],
    groups={"courant": 0.7, "octets": 0.3},
    draw=draw_optimizer,
    probe="gpt2_call",
    examples=[{"config": {"n_layer": 1}, "seed": 4, "args": {}}],
    misconceptions=[
        Misconception(
            "all_parameters",
            swap((" if p.requires_grad)", ")")),
            "Adam ne retient rien pour un poids gelé.",
        ),
        Misconception(
            "frozen_only",
            swap((" if p.requires_grad)", " if not p.requires_grad)")),
            "Vous comptez justement les poids qui ne bougent pas.",
        ),
        Misconception(
            "one_moment",
            swap(("moments = 2", "moments = 1")),
            "Adam garde la moyenne du gradient, et quoi d'autre ?",
        ),
        Misconception(
            "with_gradient",
            swap(("moments = 2", "moments = 3")),
            "Le gradient n'appartient pas à l'optimiseur : combien de nombres lui reste-t-il en propre ?",
        ),
        Misconception(
            "with_master_copy",
            swap(("moments = 2", "moments = 4")),
            "Vous comptez aussi le gradient et une copie du poids : l'énoncé ne demande que les moments.",
        ),
        Misconception(
            "tied_twice",
            swap(
                (
                    _STATE,
                    "everything = model.state_dict(keep_vars=True).values()\n"
                    "    return moments * bytes_per_value * sum(p.numel() for p in everything if p.requires_grad)",
                )
            ),
            "Deux noms, un seul tenseur : la tête est liée à la table des jetons.",
        ),
        Misconception(
            "bytes_ignored",
            swap(("moments * bytes_per_value *", "moments * 4 *")),
            "Changez le nombre d'octets par valeur : votre réponse ne bouge pas.",
        ),
        Misconception(
            "values_not_bytes",
            swap(("moments * bytes_per_value *", "moments *")),
            "Vous comptez des nombres : combien d'octets chacun occupe-t-il ?",
        ),
        Misconception(
            "tensors_not_values",
            swap(("sum(p.numel() for", "sum(1 for")),
            "Vous comptez les tenseurs : combien de nombres chacun contient-il ?",
        ),
    ],
)


# --- peft_training_flops --------------------------------------------------------------------------------------------


def draw_flops(d: Draw, group: str) -> Inputs:
    inputs = {
        "n_frozen": d.integer(1_000_000, 400_000_000),
        "n_trainable": d.integer(10_000, 900_000),
        "n_tokens": d.integer(100_000, 90_000_000),
    }
    if group == "refus":
        return inputs | {d.turn(list(inputs)): -d.integer(1, 9)}
    if group == "bords":
        return inputs | d.turn(
            [
                {"n_trainable": 0},
                {"n_frozen": 0},
                {"n_tokens": 0},
                {"n_frozen": 175_255_800_001, "n_tokens": 10**12 + 7},
            ]
        )
    return inputs


_FLOPS = "return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)"
_NEGATIVE = "if min(n_frozen, n_trainable, n_tokens) < 0:"

peft_training_flops = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Pour une couche Y = XW, écrivez les trois produits d'un pas d'apprentissage : lequel n'a lieu que "
        "si W apprend ?",
        "Le premier adaptateur est en bas du modèle : par quelles couches son gradient passe-t-il pour y descendre ?",
        "Chaque produit coûte 2 FLOP par paramètre et par jeton : deux produits pour un poids gelé, trois sinon.",
        "4·N_gelés·D + 6·N_entraînés·D.",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_flops,
    visible=3,
    examples=[{"n_frozen": 100, "n_trainable": 10, "n_tokens": 3}],
    misconceptions=[
        Misconception(
            "6_everywhere",
            swap((_FLOPS, "return 6 * n_tokens * (n_frozen + n_trainable)")),
            "Faut-il le gradient d'un poids qui ne bougera pas ?",
        ),
        Misconception(
            "2_on_frozen",
            swap(("crossed * n_frozen", "forward * n_frozen")),
            "Pour atteindre le premier adaptateur, par où passe le gradient ?",
        ),
        Misconception(
            "frozen_ignored",
            swap(("crossed * n_frozen + ", "")),
            "Un poids gelé travaille encore.",
        ),
        Misconception(
            "4_everywhere",
            swap(("(crossed + for_weights) * n_trainable", "crossed * n_trainable")),
            "Un poids qui apprend demande un produit de plus qu'un poids gelé : lequel ?",
        ),
        Misconception(
            "swapped",
            swap((_FLOPS, "return n_tokens * (crossed * n_trainable + (crossed + for_weights) * n_frozen)")),
            "Vous avez donné aux poids gelés ce que coûtent les autres.",
        ),
        Misconception(
            "in_macs",
            swap(
                (
                    "forward, through_activations, for_weights = 2, 2, 2",
                    "forward, through_activations, for_weights = 1, 1, 1",
                )
            ),
            "Une multiplication et une addition font deux opérations.",
        ),
        Misconception(
            "inference_only",
            swap((_FLOPS, "return 2 * n_tokens * (n_frozen + n_trainable)")),
            "Vous ne comptez que l'aller : un apprentissage revient aussi sur ses pas.",
        ),
        Misconception(
            "tokens_ignored",
            swap((_FLOPS, _FLOPS.replace("n_tokens * (", "("))),
            "Votre coût ne dépend pas du texte lu : tout se paie à chaque jeton.",
        ),
        Misconception(
            "total_includes_trainable",
            swap(
                (
                    _FLOPS,
                    "return n_tokens * (crossed * (n_frozen - n_trainable) + (crossed + for_weights) * n_trainable)",
                )
            ),
            "Vous avez ôté les paramètres entraînés des gelés : les deux nombres reçus sont déjà séparés.",
        ),
        Misconception(
            "no_check",
            swap((_NEGATIVE, "if False:")),
            "Un nombre négatif de paramètres ou de jetons ne veut rien dire : l'énoncé demande de le refuser.",
        ),
        Misconception(
            "zero_refused",
            swap((_NEGATIVE, "if min(n_frozen, n_trainable, n_tokens) < 1:")),
            "Rien d'entraîné, ou rien de lu, est permis : il reste un nombre d'opérations à rendre.",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

both_zero = Quiz(
    "On met à zéro les deux matrices d'un adaptateur, et tous ses biais. Au départ, le modèle n'a pas changé. Et après "
    "cent pas d'apprentissage ?",
    (
        Choice(
            "Il apprend comme avec une seule matrice nulle, un peu plus lentement",
            "Regardez le gradient : celui de la remontée est proportionnel à ce qui sort de la descente, c'est-à-dire "
            "à zéro.",
        ),
        Choice(
            "Seul le biais de la remontée a bougé : l'adaptateur ajoute le même vecteur à tous les jetons",
            "Chaque matrice attend que l'autre cesse d'être nulle. Il ne reste qu'une constante à apprendre.",
            correct=True,
        ),
        Choice(
            "Rien n'a bougé du tout",
            "Presque : le biais de la remontée s'ajoute directement à la sortie, et reçoit donc un gradient.",
        ),
        Choice(
            "L'apprentissage diverge, faute de hasard au départ",
            "L'absence de hasard gêne quand des neurones identiques doivent se distinguer ; elle ne fait pas diverger.",
        ),
    ),
)

why_residual = Quiz(
    "Pourquoi l'adaptateur ajoute-t-il sa correction à ce qu'il reçoit, au lieu de le remplacer ?",
    (
        Choice(
            "Pour que le goulot n'ait pas à laisser passer toute l'information du modèle",
            "À travers seize nombres, on ne peut pas reconstruire cent quatre-vingt-douze composantes, mais on "
            "peut dire de quoi les corriger. Et une correction nulle rend le modèle intact.",
            correct=True,
        ),
        Choice(
            "Pour avoir moins de paramètres",
            "Le chemin direct n'en a aucun, mais le supprimer n'en ajouterait pas non plus.",
        ),
        Choice(
            "Parce que le bloc de GPT-2 a déjà une connexion résiduelle, et qu'il en faut deux",
            "Celle du bloc ne suffirait pas : sans la sienne, l'adaptateur effacerait la sortie de la sous-couche.",
        ),
        Choice(
            "Pour que le gradient ne traverse pas l'adaptateur",
            "Au contraire, il le traverse par les deux chemins ; c'est le goulot seul qui l'aurait affaibli.",
        ),
    ),
)

forgetting = Quiz(
    "Après l'apprentissage sur les vers, on retire les adaptateurs. Que vaut la perplexité sur A ?",
    (
        Choice(
            "Un peu plus qu'avant : le modèle a oublié un peu de prose",
            "C'est ce qui arrive quand on entraîne tous les poids. Ici, lesquels ont bougé ?",
        ),
        Choice(
            "Exactement ce qu'elle valait, au dernier bit",
            "Aucun octet de la base n'a été écrit. L'oubli n'existe que tant que les adaptateurs sont branchés.",
            correct=True,
        ),
        Choice(
            "Un peu moins : les vers sont aussi du français",
            "Ce serait possible si la base avait appris quelque chose ; elle n'a pas changé.",
        ),
        Choice(
            "On ne peut pas les retirer sans réentraîner",
            "Ils sont à part : il suffit de remettre leur remontée à zéro, ou de charger le modèle d'origine.",
        ),
    ),
)

which_product = Quiz(
    "Pour une couche Y = XW, un pas d'apprentissage fait trois produits de matrices : XW, G·Wᵀ et Xᵀ·G, où G est le "
    "gradient de Y. Si W est gelé et qu'un adaptateur se trouve plus bas, lequel disparaît ?",
    (
        Choice(
            "XW : le résultat ne dépend plus de l'apprentissage",
            "Il faut toujours calculer ce que dit le modèle pour savoir de combien il se trompe.",
        ),
        Choice(
            "G·Wᵀ : la couche est gelée, le gradient s'y arrête",
            "S'il s'y arrêtait, l'adaptateur placé plus bas n'apprendrait jamais rien.",
        ),
        Choice(
            "Xᵀ·G : c'est le gradient de W, dont personne ne se servira",
            "Un produit sur trois. D'où 4 opérations par poids gelé et par jeton au lieu de 6.",
            correct=True,
        ),
        Choice(
            "Les deux derniers : il n'y a plus de retour dans une couche gelée",
            "C'est vrai seulement sous le premier adaptateur, quand plus rien ne s'entraîne plus bas.",
        ),
    ),
)

limit_of_speed = Quiz(
    "Si l'on ne comptait que les opérations, de combien un pas d'adaptateurs pourrait-il être plus rapide qu'un pas "
    "complet, quand le premier adaptateur est dans le premier bloc ?",
    (
        Choice(
            "Cinquante fois : on n'entraîne que 2 % des paramètres",
            "Les 98 % gelés font toujours l'aller, et laissent passer le gradient.",
        ),
        Choice(
            "Une fois et demie au plus : 6 contre 4",
            "À un cheveu près, puisque les adaptateurs s'ajoutent ; et l'attention, qui n'a pas de poids, ne "
            "gagne rien.",
            correct=True,
        ),
        Choice(
            "Trois fois : il ne reste que l'aller",
            "Ce serait le cas si rien n'avait à redescendre : par exemple en n'entraînant que la tête.",
        ),
        Choice(
            "Pas du tout : les adaptateurs ajoutent des opérations",
            "Ils en ajoutent très peu, et le gradient des poids gelés en retire beaucoup plus.",
        ),
    ),
)

serving = Quiz(
    "L'adaptateur n'ajoute que quelques pour cent d'opérations. Pourquoi peut-il ralentir bien davantage la "
    "génération, "
    "jeton par jeton ?",
    (
        Choice(
            "Parce que la GELU est une fonction coûteuse",
            "Sur seize nombres, elle ne coûte à peu près rien.",
        ),
        Choice(
            "Parce qu'il faut recharger les poids de la voix en mémoire à chaque nouveau jeton",
            "Les poids restent en mémoire ; ils sont si petits qu'ils tiennent dans un cache.",
        ),
        Choice(
            "Parce que chaque petite opération attend la précédente et a un coût fixe",
            "Pour un seul jeton, le temps est fait d'appels plutôt que de calculs, et l'adaptateur allonge la "
            "file sans pouvoir se faire en parallèle du reste.",
            correct=True,
        ),
        Choice(
            "Parce que le cache K/V devient inutilisable",
            "Il sert comme avant : l'adaptateur ne change ni sa taille ni son emploi.",
        ),
    ),
)
