"""Les sondes qui bâtissent un module ou un petit GPT-2, et les outils qu'elles partagent.

`probes` les range avec les autres, dit leurs entrées, et les fait tourner ; elles ne contiennent aucune réponse.
"""

from __future__ import annotations

import copy
import functools
import random
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from atelier.judging.data import NotData, name_of

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

M = TypeVar("M", bound=nn.Module)


def gradients(loss: torch.Tensor, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not loss.requires_grad or not wanted:
        return {name: torch.zeros_like(t) for name, t in wanted.items()}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wanted.items(), found, strict=True)}


# --- Modules ---------------------------------------------------------------------------------------------------------

_LAYERS: dict[str, type[nn.Module]] = {"Linear": nn.Linear, "Embedding": nn.Embedding, "LayerNorm": nn.LayerNorm}


def _layer(name: str) -> type[nn.Module]:
    if name == "Conv1D":
        from transformers.pytorch_utils import Conv1D  # rien d'autre ici ne demande transformers

        return Conv1D
    return _LAYERS[name]


def _build(spec: Any) -> Any:
    """{"module": "Linear", "args": [4, 3], "weights": {…}} → le module ; toute autre valeur reste elle-même."""
    if not (isinstance(spec, dict) and "module" in spec):
        return spec
    layer = _layer(spec["module"])(*spec.get("args", ()))
    if "weights" in spec:
        layer.load_state_dict(spec["weights"])
    return layer


def _placed(model: M, inputs: dict[str, Any]) -> M:
    """Le module, là où l'entrée `device` le demande."""
    return model.to(inputs["device"]) if "device" in inputs else model


def _construct(fn: Callable[..., Any], inputs: dict[str, Any]) -> tuple[nn.Module, dict[str, nn.Module]]:
    given = {name: _build(spec) for name, spec in inputs["init"].items()}
    given = {name: _placed(v, inputs) if isinstance(v, nn.Module) else v for name, v in given.items()}
    made = fn(*given.values())
    if not isinstance(made, nn.Module):
        raise NotData(f"{name_of(made)} ; on attend un nn.Module")
    return _placed(made, inputs), {name: v for name, v in given.items() if isinstance(v, nn.Module)}


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _load(module: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    """Pose ces poids ; ne touche à rien et rend False s'il manque un nom ou si une forme diffère."""
    own = dict(module.named_parameters())
    if any(name not in own or own[name].shape != w.shape for name, w in weights.items()):
        return False
    with torch.no_grad():
        for name, w in weights.items():
            own[name].copy_(w)
    return True


def _states(modules: dict[str, nn.Module]) -> dict[str, dict[str, torch.Tensor]]:
    return {name: dict(m.state_dict()) for name, m in modules.items()}


def module(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Construit `fn(*init)`, puis mesure : départ, paramètres, et sortie et gradients avec des poids donnés.

    init : arguments du constructeur ; {"module": "Linear", "args": …, "weights": …} y construit une couche.
    x : entrée. weights : nom → poids posés après la construction. out_grad : pondération de la sortie dans la
    perte, somme(sortie · out_grad). watch : noms des paramètres dont on regarde s'ils partent de zéro.
    """
    made, given = _construct(fn, inputs)
    parameters, own = _trainable(made), dict(made.named_parameters())
    result: dict[str, Any] = {
        "paramètres entraînés": {name: list(p.shape) for name, p in sorted(parameters.items())},
        "partent de zéro": {n: not bool(own[n].detach().any()) for n in inputs.get("watch", ()) if n in own},
        "sortie au départ": made(inputs["x"]),
    }
    if not _load(made, inputs["weights"]):
        return result
    x = inputs["x"].requires_grad_(True)
    output = made(x)
    result["sortie avec les poids donnés"] = output
    if isinstance(output, torch.Tensor) and output.shape == inputs["out_grad"].shape:
        loss = (output * inputs["out_grad"]).sum()
        result["gradients"] = gradients(loss, {"x": x, **dict(sorted(parameters.items()))})
    x.requires_grad_(False)
    result["modules reçus"] = _states(given)
    return result


def packed_module(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Comme `module`, puis ce que le module garde de sa base : ses octets par poids, et un état qu'un autre relit.

    other : une autre base, de même forme ; le module qu'elle donne reçoit l'état du premier.
    """
    result = module(fn, inputs)
    made, _ = _construct(fn, inputs)
    if not _load(made, inputs["weights"]):
        return result
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in [*made.parameters(), *made.buffers()]
    }
    bias = inputs["init"]["base"]["weights"].get("bias", torch.empty(0))
    apart = sum(w.numel() * w.element_size() for w in (*inputs["weights"].values(), bias))
    n_weights = inputs["init"]["base"]["weights"]["weight"].numel()
    result["octets gardés par poids de la base"] = round(2 * (sum(storages.values()) - apart) / n_weights) / 2
    again, _ = _construct(fn, {**inputs, "init": inputs["init"] | {"base": inputs["other"]}})
    try:
        again.load_state_dict(made.state_dict())
        result["sortie de l'état relu"] = again(inputs["x"])
    except RuntimeError:
        result["sortie de l'état relu"] = "load_state_dict refuse cet état"
    return result


def train_steps(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Construit `fn(*init)`, pose `weights`, fait `steps` pas de descente (SGD, pas `lr`) vers `target`.

    La perte est l'erreur quadratique moyenne. Rend les pertes, les paramètres entraînés et les modules reçus.
    """
    made, given = _construct(fn, inputs)
    result: dict[str, Any] = {
        "paramètres entraînés": {name: list(p.shape) for name, p in sorted(_trainable(made).items())}
    }
    if not _load(made, inputs["weights"]):
        return result
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad] or [torch.zeros(1)], inputs["lr"])
    losses = []
    for _ in range(inputs["steps"]):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(made(inputs["x"]), inputs["target"])
        losses.append(float(loss.detach()))
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
    result["pertes"] = losses
    result["poids après"] = dict(sorted(_trainable(made).items()))
    result["modules reçus"] = _states(given)
    return result


# --- Petits GPT-2 ----------------------------------------------------------------------------------------------------


def tiny_gpt2(config: dict[str, int], seed: int, std: float = 0.4) -> GPT2LMHeadModel:
    """Petit GPT-2 sans dropout, aux poids tirés de `seed` seul, assez grands pour que chaque couche compte."""
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16} | config
    settings = (torch.get_default_dtype(), torch.empty(0).device, torch.get_rng_state().numpy().tobytes())
    mold, after = _mold(tuple(sizes.items()), settings)
    model: GPT2LMHeadModel = _twin(mold, {})
    torch.set_rng_state(after)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            scale_of_norm = ".ln_" in name and name.endswith("weight")
            p.copy_(1 + 0.2 * noise if scale_of_norm else std * noise)
    return model


@functools.lru_cache(maxsize=8)
def _mold(sizes: tuple[tuple[str, Any], ...], settings: tuple[Any, ...]) -> tuple[GPT2LMHeadModel, torch.Tensor]:
    """Un GPT-2 de cette taille, et l'état où le bâtir laisse le hasard : bâti une fois, copié ensuite.

    settings : ce dont dépend aussi ce que bâtit transformers (type, appareil et hasard de torch).
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    fixed: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "attn_implementation": "eager"}
    model = GPT2LMHeadModel(GPT2Config(**dict(sizes), **fixed, bos_token_id=None, eos_token_id=None)).eval()
    model.loss_type = "ForCausalLM"  # comme `load_model`
    return model, torch.get_rng_state()


def _twin(module: nn.Module, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`, cinq fois plus vite sur un module : ce qu'il tient est presque toujours vide, ou immuable."""
    if id(module) in memo:
        return memo[id(module)]
    made = memo[id(module)] = module.__class__.__new__(module.__class__)
    held: dict[str, Any] = {}
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in _IMMUTABLE:
            held[name] = value
        elif kind in _CONTAINERS and not value:
            held[name] = kind()
        elif name == "_modules":
            held[name] = {key: _twin(inner, memo) for key, inner in value.items()}
        else:
            held[name] = copy.deepcopy(value, memo)
    made.__dict__ = held
    return made


_IMMUTABLE = {bool, int, float, str, type(None)}
_CONTAINERS = {dict, set, OrderedDict}


def _model_of(inputs: dict[str, Any]) -> GPT2LMHeadModel:
    return _placed(tiny_gpt2(inputs["config"], inputs["seed"]), inputs)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def _changed(model: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    now = model.state_dict()
    return sorted(name for name, t in before.items() if name not in now or not torch.equal(now[name], t))


def _shape_name(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "()"


def gpt2_transform(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, *args)` transforme un petit GPT-2 sur place et le rend.

    Mesure le modèle transformé au départ, puis après avoir posé dans ses paramètres entraînés des poids qui ne
    dépendent que de leur forme : noms et mécanisme restent libres.
    """
    model: nn.Module = _model_of(inputs)
    ids = inputs["input_ids"]
    returned = fn(model, *inputs.get("args", {}).values())
    result: dict[str, Any] = {"rend le modèle reçu": returned is model}
    model = _placed(returned if isinstance(returned, nn.Module) else model, inputs)
    parameters = [p for p in model.parameters() if p.requires_grad]
    result["formes entraînées"] = sorted(list(p.shape) for p in parameters)
    result["nombre de paramètres"] = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        result["logits au départ"] = model(ids).logits
        for p in parameters:
            seed = zlib.crc32(f"{inputs['seed']}/{_shape_name(p.shape)}".encode())
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
    logits = model(ids).logits
    result["logits avec les poids donnés"] = logits
    weighting = torch.randn(logits.shape, generator=torch.Generator().manual_seed(inputs["seed"])).to(logits.device)
    found = gradients((logits * weighting).sum(), {str(i): p for i, p in enumerate(parameters)})
    result["tenseurs qui reçoivent un gradient"] = sum(bool(g.any()) for g in found.values())
    by_shape: dict[str, torch.Tensor] = {}
    for g in found.values():
        key = _shape_name(g.shape)
        by_shape[key] = by_shape.get(key, torch.zeros_like(g)) + g
    result["gradients sommés par forme"] = dict(sorted(by_shape.items()))
    return result


def gpt2_new_model(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, *args)` rend un nouveau GPT-2. Mesure ses logits, avec et sans cache, et ce qu'il partage."""
    model = _model_of(inputs)
    before, config, ids = _state(model), model.config.to_dict(), inputs["input_ids"]
    made = fn(model, *inputs.get("args", {}).values())
    if not isinstance(made, type(model)):
        raise NotData(f"{name_of(made)} ; on attend un {type(model).__name__}")
    made = _placed(made, inputs)
    result: dict[str, Any] = {
        "n_layer annoncé": made.config.n_layer,
        "nombre de paramètres": sum(p.numel() for p in made.parameters()),
    }
    made.eval()
    own = {p.untyped_storage().data_ptr() for p in made.parameters()}
    result["tenseurs partagés avec le modèle reçu"] = sorted(
        name for name, p in model.named_parameters() if p.untyped_storage().data_ptr() in own
    )
    fields = sorted(f"config.{k}" for k, v in model.config.to_dict().items() if config.get(k) != v)
    result["modifié dans le modèle reçu"] = _changed(model, before) + fields
    with torch.no_grad():
        result["logits"] = made(ids, use_cache=False).logits
        result["logits avec cache"] = _cached_logits(made, ids)
    return result


def _cached_logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor | str:
    """Logits quand la seconde moitié est lue avec le cache de la première ; le texte de l'erreur si cela échoue."""
    half = ids.shape[1] // 2
    try:
        first = model(ids[:, :half], use_cache=True)
        name = next(k for k in ("cache", "past_key_values") if k in first)  # renommé par transformers 5.24
        second = model(ids[:, half:], **{name: first[name]}, use_cache=True)
    except Exception as error:
        return f"{type(error).__name__} : {error}"[:200]
    return torch.cat([first.logits, second.logits], dim=1)


def gpt2_train(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, input_ids, optimizer, *args)`, un pas toutes les deux suites du lot : ce que chacun rend, poids après.

    La descente est un SGD à élan : un gradient que l'on n'efface pas s'y voit.
    """
    model, modes = _model_of(inputs).eval(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    hook = model.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    try:
        steps = [fn(model, ids, optimizer, *inputs["args"].values()) for ids in inputs["input_ids"].split(2)]
    finally:
        hook.remove()
    return {
        "perte et norme de chaque pas": steps,
        "lu en mode apprentissage": all(modes),
        "poids après": {name: p.detach() for name, p in model.named_parameters()},
    }


def gpt2_distill(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(student, teacher, input_ids, optimizer, *args)`, un pas toutes les deux suites du lot : pertes, poids après.

    student, teacher : tailles de deux petits GPT-2 sans dropout, tirés de `seed`. La descente est un SGD à élan : un
    gradient que l'on n'efface pas s'y voit.
    """
    student = _placed(tiny_gpt2(inputs["student"], inputs["seed"]), inputs)
    teacher = _placed(tiny_gpt2(inputs["teacher"], inputs["seed"] + 1), inputs)
    modes: dict[str, list[bool]] = {"élève": [], "enseignant": []}
    hooks = [
        student.eval().register_forward_pre_hook(lambda m, _: modes["élève"].append(m.training)),
        teacher.train().register_forward_pre_hook(lambda m, _: modes["enseignant"].append(m.training)),
    ]
    before, optimizer = _state(teacher), torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.5)
    losses = []
    try:
        for ids in inputs["input_ids"].split(2):
            losses.append(fn(student, teacher, ids, optimizer, *inputs["args"].values()))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        "pertes": losses,
        "modifié dans l'enseignant": _changed(teacher, before),
        "gradient laissé à l'enseignant": [n for n, p in teacher.named_parameters() if p.grad is not None],
        "élève lu en mode apprentissage": all(modes["élève"]),
        "enseignant lu en mode évaluation": not any(modes["enseignant"]),
        "un poids sur onze de l'élève, après": torch.cat([p.detach().flatten() for p in student.parameters()])[::11],
    }


def _with_some_frozen(model: nn.Module, seed: int) -> nn.Module:
    """Gèle environ la moitié des paramètres, choisis par `seed`."""
    chosen = random.Random(seed)
    for p in model.parameters():
        p.requires_grad_(chosen.random() < 0.5)
    return model


def gpt2_call(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Ce que rend `fn(model, *args)` sur un petit GPT-2 à moitié gelé, et ce que l'appel y a changé."""
    model = _with_some_frozen(_model_of(inputs), inputs["seed"])
    before, flags = _state(model), [p.requires_grad for p in model.parameters()]
    value = fn(model, *inputs.get("args", {}).values())
    unfrozen = [] if [p.requires_grad for p in model.parameters()] == flags else ["requires_grad"]
    return {"valeur": value, "modifié dans le modèle": _changed(model, before) + unfrozen}


def freeze(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Ce que rend `fn(model, *args)` sur un petit GPT-2 à moitié gelé, et les paramètres qui apprennent ensuite."""
    model = _with_some_frozen(_model_of(inputs), inputs["seed"])
    before = _state(model)
    value = fn(model, *inputs.get("args", {}).values())
    return {
        "valeur": value,
        "paramètres qui apprennent": sorted(_trainable(model)),
        "modifié dans le modèle": _changed(model, before),
    }


def talkative_gpt2(inputs: dict[str, Any]) -> GPT2LMHeadModel:
    """Le petit GPT-2 de ces entrées, dont la suite la plus probable n'est pas toujours le même jeton."""
    model = _placed(tiny_gpt2(inputs["config"], inputs["seed"], 0.25), inputs)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(4)  # sinon la tête, liée à la table des mots, répète le dernier jeton
    return model


def generate(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, input_ids, n_new)` : jetons produits, et jetons lus au-delà de T + n_new (0 si le cache sert)."""
    model, ids, n_new = talkative_gpt2(inputs), inputs["input_ids"], inputs["n_new"]
    read = 0

    def count(_module: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        nonlocal read
        read += arguments[0].numel()

    model.transformer.wte.register_forward_hook(count)
    produced = fn(model, ids, n_new)
    return {"jetons": produced, "jetons lus en trop": max(0, read - ids.shape[0] * (ids.shape[1] + max(n_new, 0)))}
