"""Exercice `insert_adapters` du chapitre 7."""

from __future__ import annotations

from torch import nn

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .Adapter import Adapter


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


exercise = Exercise(
    points=4,
    minutes=30,
    stars=2,
    hints=[
        "Dans un bloc, quels sont les deux endroits où une sous-couche rend son résultat, juste avant l'addition ?",
        "Remplacer un module par la suite de lui-même et d'un adaptateur suffit : le bloc n'en saura rien.",
        "Dans quel ordre faut-il geler la base et brancher les adaptateurs pour que seuls ceux-ci apprennent ?",
        "Pour chaque bloc de model.transformer.h, mettez deux adaptateurs neufs : l'un après attn.c_proj, l'autre "
        "après mlp, chacun dans une nn.Sequential.",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_insert,
    probe="gpt2_transform",
    cases=3,
    visible=2,
    tolerance=Tolerance(rtol=2e-3, atol=2e-3, why="deux ou trois blocs en float32, gradients compris"),
)


misconceptions = """\
base_not_frozen   model.requires_grad_(False) → model.requires_grad_(True)
    Vos adaptateurs sont là, mais tout le reste apprend aussi.

only_blocks_frozen   model.requires_grad_(False) → model.transformer.h.requires_grad_(False)
    Les blocs sont gelés ; regardez ce qui, hors des blocs, apprend encore.

freezes_too_late   return model → return model.requires_grad_(False)
    Plus rien n'apprend, pas même les adaptateurs : dans quel ordre avez-vous gelé et branché ?

norms_trained
    - return model
    + for name, p in model.named_parameters():
    +     if '.ln_' in name:
    +         p.requires_grad_(True)
    + return model
    Comme dans l'article, vos LayerNorm apprennent aussi ; l'énoncé, lui, gèle tout le reste.

shared_adapter
    - for block in model.transformer.h:
    + shared = Adapter(hidden, bottleneck)
    + for block in model.transformer.h:
    - after_attention, after_mlp = (Adapter(hidden, bottleneck).to(model.device) for _ in range(2))
    + after_attention = after_mlp = shared
    Toutes les couches se partagent le même module : comptez les paramètres.

shared_in_block   after_attention, after_mlp = (Adapter(hidden, bottleneck).to(model.device) for _ in range(2))
    → after_attention = after_mlp = Adapter(hidden, bottleneck)
    Dans chaque bloc, l'attention et le MLP se partagent un seul adaptateur : il en faut deux.

mlp_only   block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention) → pass
    Deux par bloc : et après l'attention ?

attention_only   block.mlp = nn.Sequential(block.mlp, after_mlp) → pass
    Deux par bloc : et après le MLP ?

after_residual
    - block.mlp = nn.Sequential(block.mlp, after_mlp)
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_mlp])
    + block.register_forward_hook(lambda _m, _x, out, adapter=after_mlp: adapter(out))
    Votre adaptateur transforme la somme ; il devait toucher seulement ce que la sous-couche ajoute.

both_after_residual
    - block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    - block.mlp = nn.Sequential(block.mlp, after_mlp)
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_attention])
    + block.ln_2.register_forward_hook(lambda _m, _x, out, adapter=after_attention: adapter(out))
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_mlp])
    + block.register_forward_hook(lambda _m, _x, out, adapter=after_mlp: adapter(out))
    Vos deux adaptateurs lisent le flux résiduel, après la somme : chacun devait rester dans sa branche.

block_output_only
    - block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    - block.mlp = nn.Sequential(block.mlp, after_mlp)
    + pass
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_mlp])
    + block.register_forward_hook(lambda _m, _x, out, adapter=after_mlp: adapter(out))
    Un seul adaptateur par bloc, et sur la somme : il en faut un dans chaque branche, avant l'addition.

before_sublayer   block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    → block.ln_1 = nn.Sequential(block.ln_1, after_attention)
    & block.mlp = nn.Sequential(block.mlp, after_mlp) → block.ln_2 = nn.Sequential(block.ln_2, after_mlp)
    Vos adaptateurs préparent ce qui entre dans chaque branche ; ils devaient corriger ce qui en sort.

before_projection   block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    → block.attn.c_proj = nn.Sequential(after_attention, block.attn.c_proj)
    Dans l'attention, votre adaptateur passe avant la projection de sortie ; il devait passer après.

not_registered   block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    → block.attn.c_proj.register_forward_hook(lambda _m, _x, out, adapter=after_attention: adapter(out))
    & block.mlp = nn.Sequential(block.mlp, after_mlp)
    → block.mlp.register_forward_hook(lambda _m, _x, out, adapter=after_mlp: adapter(out))
    L'optimiseur ne verra jamais vos modules : model.parameters() les trouve-t-il ?

late_binding
    - block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
    - block.mlp = nn.Sequential(block.mlp, after_mlp)
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_attention])
    + block.attn.c_proj.register_forward_hook(lambda _m, _x, out: model.added[-1](out))
    + model.added = nn.ModuleList([*getattr(model, 'added', []), after_mlp])
    + block.mlp.register_forward_hook(lambda _m, _x, out: model.added[-1](out))
    Tous vos crochets appellent le dernier module créé.

misses_a_block   in model.transformer.h: → in list(model.transformer.h)[:-1] or model.transformer.h:
    Un bloc n'a rien reçu : votre boucle va-t-elle jusqu'au dernier ?

not_the_model
    - model.requires_grad_(False)
    + import copy
    + model = copy.deepcopy(model).requires_grad_(False)
    Ce que vous rendez n'est pas le modèle reçu : l'avez-vous copié, ou oublié de le rendre ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def insert_hooks(model, bottleneck):
    """Des crochets ; les modules sont enregistrés dans le modèle."""
    for p in model.parameters():
        p.requires_grad = False
    model.adapters = nn.ModuleList()

    def hook(layer):
        adapter = Adapter(model.config.n_embd, bottleneck)
        model.adapters.append(adapter)
        layer.register_forward_hook(lambda _m, _x, out: adapter(out))

    for block in model.transformer.h:
        hook(block.mlp)
        hook(block.attn.c_proj)
    return model


class Wrapped(nn.Module):
    def __init__(self, inner, d_model, bottleneck):
        super().__init__()
        self.inner = inner
        self.adapter = Adapter(d_model, bottleneck)

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        if isinstance(out, tuple):
            return (self.adapter(out[0]), *out[1:])
        return self.adapter(out)


def insert_wrapped(model, bottleneck):
    """Toute l'attention et tout le MLP, chacun dans une enveloppe."""
    model.requires_grad_(False)
    d = model.config.hidden_size
    for i in range(len(model.transformer.h)):
        model.transformer.h[i].attn = Wrapped(model.transformer.h[i].attn, d, bottleneck)
        model.transformer.h[i].mlp = Wrapped(model.transformer.h[i].mlp, d, bottleneck)
    return model


def insert_projections(model, bottleneck):
    """Les deux c_proj de chaque bloc, et le gel à la fin, par le nom."""
    d = model.transformer.wte.weight.shape[1]
    new = set()
    for block in model.transformer.h:
        for parent in (block.attn, block.mlp):
            adapter = Adapter(d, bottleneck)
            new.update(id(p) for p in adapter.parameters())
            parent.c_proj = nn.Sequential(parent.c_proj, adapter)
    for p in model.parameters():
        p.requires_grad_(id(p) in new)
    return model


def insert_named(model, bottleneck):
    """Parcours des modules par leur nom, et remplacement de la méthode forward."""
    model.requires_grad_(False)
    targets = [m for name, m in list(model.named_modules()) if name.endswith(("attn.c_proj", "mlp.c_proj"))]
    for layer in targets:
        adapter = Adapter(model.config.n_embd, bottleneck)
        layer.adapter = adapter
        plain = layer.forward
        layer.forward = lambda x, plain=plain, adapter=adapter: adapter(plain(x))
    return model


styles = [insert_hooks, insert_wrapped, insert_projections, insert_named]
