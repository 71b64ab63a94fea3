"""Exercice `layer_inputs` du chapitre 3."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

_KINDS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def draw_observed(d: Draw, group: str) -> Inputs:
    n_layer, width = d.turn([(2, 8), (3, 12), (2, 12), (3, 8)])
    every = [f"transformer.h.{block}.{kind}" for block in range(n_layer) for kind in _KINDS]
    names = d.random.sample(every, d.integer(2, 3))
    case = {"config": {"n_layer": n_layer, "n_embd": width}, "seed": d.integer(0, 2**31)}
    case |= {"input_ids": d.integers(0, 22, d.integer(2, 3), d.integer(4, 7)), "names": names}
    if group == "bords":
        if d.index % 2:
            case["names"] = every
        return case | {"training": d.index % 2 == 0}
    return case | {"unknown": f"transformer.h.{n_layer}.mlp.c_fc"} if group == "nom inconnu" else case


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "Ce qui entre dans une couche ne se lit pas dans le modèle, mais pendant qu'il calcule : qui peut prévenir ?",
        "register_forward_pre_hook(f) appelle f(module, entrées) avant chaque passage, et rend un objet dont remove() "
        "ôte le crochet. Chaque crochet doit savoir sous quel nom ranger ce qu'il voit.",
        "Où mettre remove() pour qu'il soit appelé même quand un nom n'existe pas, après que d'autres crochets ont été "
        "posés ?",
        "Une liste de crochets, un try où on les pose et où l'on appelle le modèle sous torch.no_grad(), un finally "
        "qui les ôte tous.",
    ],
    groups={"courant": 0.7, "bords": 0.2, "nom inconnu": 0.1},
    draw=draw_observed,
    probe="gpt2_observe",
    cases=4,
    visible=2,
    examples=[
        {
            "config": {"n_layer": 1},
            "seed": 4,
            "input_ids": torch.tensor([[3, 1, 4], [1, 5, 9]]),
            "names": ["transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"],
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4, why="activations d'un petit GPT-2 en float32"),
)


misconceptions = """\
outputs
    - def hook(module, inputs):
    -     seen[name] = inputs[0].flatten(0, -2)
    + def hook(module, inputs, output):
    +     seen[name] = output.flatten(0, -2)
    & register_forward_pre_hook → register_forward_hook
    Vous gardez ce qui sort de la couche : son nombre de colonnes est celui des sorties.

hooks_left
    - for hook in hooks:
    -     hook.remove()
    + pass
    Vos crochets restent sur le modèle : ils parleront encore à chaque appel, pour tous les suivants.

left_on_error
    - try:
    + if True:
    - finally:
    + if True:
    Un nom inconnu arrête tout avant la ligne qui ôte les crochets : ceux que vous aviez déjà posés restent.

last_sequence   inputs[0].flatten(0, -2) → inputs[0][-1]
    Il manque des jetons : vous n'avez gardé qu'une suite du lot.

not_flattened   inputs[0].flatten(0, -2) → inputs[0]
    On attend un jeton par ligne, toutes suites du lot à la file.

positions_first   inputs[0].flatten(0, -2) → inputs[0].transpose(0, 1).flatten(0, -2)
    Vos jetons sont rangés position par position, et non suite par suite.

first_token_only   inputs[0].flatten(0, -2) → inputs[0][:, 0]
    Un seul jeton par suite : les autres entrent aussi dans la couche.

graph_kept   torch.no_grad() → torch.enable_grad()
    Ce que vous rendez traîne tout le graphe du calcul : personne ne demandera de gradient ici.

left_in_eval   model(input_ids) → model.eval()(input_ids)
    Vous changez le mode du modèle, et ne le rendez pas comme vous l'avez reçu.

every_layer   for name in names: → for name in [n for n, m in model.named_modules() if hasattr(m, "nf")]:
    Vous rendez aussi des couches que l'on ne vous demandait pas.

one_name_for_all   seen[name] = → seen[names[-1]] =
    Tous vos crochets rangent sous le même nom : au moment où l'un d'eux s'exécute, que vaut la variable qu'il lit ?

unknown_ignored   for name in names: → for name in [n for n in names if n in dict(model.named_modules())]:
    Un nom que le modèle ne connaît pas passe sans un mot.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def inputs_by_stack(model, input_ids, names):
    found, modules = {}, dict(model.named_modules())
    with ExitStack() as stack, torch.inference_mode():
        for name in names:
            layer = modules[name]
            handle = layer.register_forward_pre_hook(
                lambda _, x, name=name: found.update({name: x[0].reshape(-1, x[0].shape[-1])})
            )
            stack.callback(handle.remove)
        model(input_ids=input_ids)
    return found


def inputs_names_first(model, input_ids, names):
    """Les modules sont cherchés avant le premier crochet : une erreur n'en laisse aucun."""
    layers = {name: model.get_submodule(name) for name in names}
    label = {layer: name for name, layer in layers.items()}
    found = {}

    def keep(layer, x):
        found[label[layer]] = x[0].detach().clone().view(-1, x[0].size(-1))

    handles = [layer.register_forward_pre_hook(keep) for layer in label]
    try:
        with torch.no_grad():
            model(input_ids)
    finally:
        [handle.remove() for handle in handles]
    return found


def inputs_by_forward_hook(model, input_ids, names):
    """Un crochet de sortie voit aussi les entrées ; la tête n'est pas calculée, une suite à la fois."""
    rows, handles = {}, []
    try:
        for name in names:
            rows[name] = []
            handles.append(
                model.get_submodule(name).register_forward_hook(
                    lambda _layer, x, _y, into=rows[name]: into.extend(x[0].detach().flatten(0, 1))
                )
            )
        with torch.no_grad():
            for line in input_ids:
                model.transformer(line[None])
    finally:
        while handles:
            handles.pop().remove()
    return {name: torch.stack(x) for name, x in rows.items()}


class Ear:
    """Un objet appelable, qui écoute une couche."""

    def __call__(self, layer, x):
        self.heard = torch.flatten(x[0], end_dim=1)


@torch.no_grad()
def inputs_by_objects(model, input_ids, names):
    ears = {name: Ear() for name in names}
    handles = []
    try:
        for name, ear in ears.items():
            handles += [model.get_submodule(name).register_forward_pre_hook(ear)]
        model(input_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: ear.heard for name, ear in ears.items()}


styles = [inputs_by_stack, inputs_names_first, inputs_by_forward_hook, inputs_by_objects]
