"""Sondes : faire tourner du code d'étudiant et n'en rapporter que des données.

Une sonde reçoit une fonction (ou une classe) et les entrées d'un cas, et rend une valeur que l'on ne peut pas
deviner : tenseurs, nombres, noms. Elle ne contient aucune réponse ; `check`, la correction, la référence et
les réponses fausses connues passent toutes par `run_case`. Les clés des valeurs rendues sont en français :
elles sont montrées telles quelles à qui lit le résultat.

Sondes et entrées (les noms en capitales sont ceux du chapitre, dans l'ordre de la signature) :

| sonde | entrées | valeur |
|---|---|---|
| `call` | ARGUMENTS | ce que rend `fn(*ARGUMENTS)` |
| `call_float` | ARGUMENTS | le même résultat, un nombre ou un tenseur d'un seul élément, en flottant Python |
| `call_many` | ARGUMENTS, le premier étant une liste | la liste des `fn(élément, *autres)` |
| `call_iterator` | ARGUMENTS | `fn(iter(liste), *autres)` si le premier est une liste, tel quel si c'est un n-uplet |
| `loss_grads` | ARGUMENTS | valeur et gradient de sa somme pour chaque tenseur flottant (zéros s'il n'en reçoit pas) |
| `module` | `init`, `x`, `weights`, `out_grad`, `watch` | voir `module` |
| `train_steps` | `init`, `weights`, `x`, `target`, `lr`, `steps` | voir `train_steps` |
| `gpt2_transform` | `config`, `seed`, `args`, `input_ids`, `stand_ins` | voir `gpt2_transform` |
| `gpt2_new_model` | `config`, `seed`, `args`, `input_ids` | voir `gpt2_new_model` |
| `gpt2_call` | `config`, `seed`, `args` | `fn(model, *args)`, le modèle ayant des paramètres gelés |
| `generate` | `config`, `seed`, `input_ids`, `n_new` | jetons produits, jetons lus en trop |
| `freeze` | `config`, `seed`, `args` | valeur rendue, noms des paramètres qui apprennent |

Là où une sonde bâtit un module ou un modèle, une entrée de plus, `device`, peut dire sur quel appareil.
"""

from __future__ import annotations

import copy
import io
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from atelier.judging.compare import unchanged
from atelier.judging.frames import is_student_code, raised_by_statement, source_line

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

M = TypeVar("M", bound=nn.Module)

Outcome = dict[str, Any]
"""Ce qu'une exécution a donné. « status » vaut value, raised, todo, untransportable ou timeout."""

PRINTED_MAX = 2000
MESSAGE_MAX = 500


class Interruption(BaseException):
    """Levée, de l'extérieur, par qui limite le temps d'un cas : jamais comptée comme une erreur de l'étudiant."""


class NotData(Exception):
    """La fonction a rendu quelque chose qui n'est pas une donnée.

    place : où dans le résultat, écrit comme par `compare`, qui dira ce qu'il y attendait ; None si le message le dit.
    """

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.place = place


# --- Ce qui entoure un cas ------------------------------------------------------------------------------------------


class _Tail(io.TextIOBase):
    """Sortie texte qui ne garde que les premiers caractères : un print sans fin ne remplit pas la mémoire."""

    def __init__(self) -> None:
        self.text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if len(self.text) < PRINTED_MAX:
            self.text = (self.text + str(text))[:PRINTED_MAX]
        return len(text)


_SEED_0 = random.Random(0).getstate()
"""L'état de `random` après `random.seed(0)`, remis deux fois plus vite qu'il ne se calcule."""
_rooms = 0
"""Combien de `clean_room` sont ouverts, l'un dans l'autre."""


@contextmanager
def clean_room() -> Iterator[None]:
    """Réglages connus pendant le bloc (graines, type par défaut, gradients) ; ceux de l'appelant rendus ensuite.

    Dans un autre, il ne retient rien du hasard : qui enchaîne cent cas n'en garde l'état qu'une fois.
    """
    global _rooms
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    outer = _rooms == 0
    kept = (torch.get_rng_state(), random.getstate(), numpy_random and numpy_random.get_state()) if outer else None
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    device = torch.empty(0).device  # get_default_device le dit aussi, quatre fois moins vite
    torch.default_generator.manual_seed(0)  # torch.manual_seed lit toute la pile d'appels, à chaque cas
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    random.setstate(_SEED_0)
    if numpy_random:
        numpy_random.seed(0)
    torch.set_grad_enabled(True)
    if dtype != torch.float32:  # un réglage laissé par une autre cellule ne change pas l'énoncé
        torch.set_default_dtype(torch.float32)
    _rooms += 1
    try:
        yield
    finally:
        _rooms -= 1
        if kept:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])
            if numpy_random and kept[2]:
                numpy_random.set_state(kept[2])
        torch.set_default_dtype(dtype)
        if torch.empty(0).device != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(grad)


def _error_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _error_text(error: BaseException) -> str:
    try:
        return str(error)[:MESSAGE_MAX]
    except BaseException:  # un __str__ d'étudiant peut lever n'importe quoi
        return ""


# --- Valeurs ---------------------------------------------------------------------------------------------------------


def _name_of(value: Any) -> str:
    """Nom français d'un objet qui n'est pas une donnée."""
    kind = type(value)
    module = str(getattr(kind, "__module__", "")).split(".")[0]
    if module == "numpy":
        if kind.__name__ == "ndarray":
            return "un tableau NumPy (ndarray)"
        return f"un nombre NumPy ({kind.__name__})"
    if kind.__name__ in ("generator", "map", "filter", "zip", "range", "dict_keys", "dict_values", "dict_items"):
        return f"un itérateur ({kind.__name__}) et non les valeurs elles-mêmes"
    if kind.__name__ in ("function", "method", "builtin_function_or_method", "type"):
        return f"une fonction ou une classe ({getattr(value, '__name__', kind.__name__)}), peut-être jamais appelée"
    if isinstance(value, nn.Module):
        return f"un module ({kind.__name__})"
    return f"un objet de type {kind.__name__}, qui n'est pas une donnée (nombre, tenseur, liste…)"


def to_data(value: Any, place: str = "", depth: int = 0) -> Any:
    """Copie de `value` faite des seuls types que `codec` transporte ; lève `NotData` sinon."""
    if depth > 20:
        raise NotData("une structure qui s'emboîte sans fin")
    if value is None or type(value) in (bool, int, float, str):
        return value
    # np.float64 est un float de Python, np.str_ un texte, et valent la même chose
    ordinary: dict[type, Callable[[Any], Any]] = {int: int.__int__, float: float.__float__, str: str.__str__}
    for kind, make in ordinary.items():
        if isinstance(value, kind):
            return make(value)
    if isinstance(value, torch.Tensor):
        if value.device.type not in ("cpu", "meta"):  # calculé sur une carte : on n'en juge que les valeurs
            value = value.detach().cpu()
        if type(value) not in (torch.Tensor, nn.Parameter):
            raise NotData(f"un tenseur d'un genre particulier ({type(value).__name__}) ; on attend un torch.Tensor")
        odd = {
            "creux": value.layout != torch.strided,
            "quantifié": value.is_quantized,
            "complexe": value.is_complex(),
            "sans données": value.device.type == "meta",
        }
        if any(odd.values()):
            raise NotData(f"un tenseur {next(k for k, v in odd.items() if v)} ; on attend un tenseur ordinaire")
        return value.detach().to("cpu", copy=True)
    if isinstance(value, (list, tuple)):
        sequence = tuple if isinstance(value, tuple) else list
        return sequence(to_data(v, f"{place or 'résultat'}[{i}]", depth + 1) for i, v in enumerate(value))
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise NotData("un dictionnaire dont les clés ne sont pas toutes du texte")
        return {
            str.__str__(k): to_data(v, f"{place} → {k}" if place else str.__str__(k), depth + 1)
            for k, v in value.items()
        }
    raise NotData(_name_of(value), place)


# --- Un cas ----------------------------------------------------------------------------------------------------------


def copied(value: Any, seen: dict[int, Any]) -> Any:
    """`copy.deepcopy`, plus vite sur ce dont les entrées sont faites. seen : id → copie déjà faite."""
    if id(value) in seen:
        return seen[id(value)]
    if type(value) is dict:
        made: Any = {k: copied(v, seen) for k, v in value.items()}
    elif type(value) is list:
        made = [copied(v, seen) for v in value]
    elif type(value) is tuple:
        made = tuple(copied(v, seen) for v in value)
    elif type(value) is torch.Tensor and not value.requires_grad and value.is_contiguous():
        made = value.clone()
    elif value is None or type(value) in (bool, int, float, str):
        return value
    else:
        made = copy.deepcopy(value, seen)
    seen[id(value)] = made
    return made


def run_case(probe: str, fn: Callable[..., Any], inputs: dict[str, Any]) -> Outcome:
    """Applique la sonde à `fn` sur une copie des entrées. Rend toujours des données, sauf si l'on interrompt.

    « modified » : les noms des entrées que l'appel a changées.

    Seules traversent `Interruption` (la limite de temps) et un `KeyboardInterrupt` venu du clavier.
    """
    run = PROBES[probe]
    given = copied(inputs, {})
    out = _Tail()
    try:
        with clean_room(), redirect_stdout(out):
            value = run(fn, given)
        outcome = {"status": "value", "value": to_data(value)}
    except Interruption:
        raise
    except NotData as error:
        place = {} if error.place is None else {"place": error.place}
        return {"status": "untransportable", "message": f"votre fonction rend {error}", **place, "printed": out.text}
    except BaseException as error:
        trace = error.__traceback__
        by_statement = raised_by_statement(trace)
        if isinstance(error, KeyboardInterrupt) and not by_statement:
            raise
        if isinstance(error, NotImplementedError) and by_statement:
            return {"status": "todo", "message": _error_text(error), "printed": out.text}
        return {
            "status": "raised",
            "error": _error_name(type(error)),
            "mro": [_error_name(c) for c in type(error).__mro__ if c is not object],
            "message": _error_text(error),
            "where": source_line(trace),
            "own": by_statement,
            "printed": out.text,
        }
    outcome["modified"] = [name for name, value in inputs.items() if not unchanged(value, given[name])]
    return outcome | {"printed": out.text}


def without_source(outcome: Outcome) -> Outcome:
    """Le résultat sans rien du texte de qui a répondu (ligne, message, affichages) : ce qu'un paquet peut contenir."""
    kept = ("status", "value", "error", "mro")
    return {k: v for k, v in outcome.items() if k in kept}


# --- Fonctions -------------------------------------------------------------------------------------------------------


def call(fn: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Les entrées par position."""
    return fn(*inputs.values())


def call_float(fn: Callable[..., Any], inputs: dict[str, Any]) -> float:
    """Le résultat en flottant Python, qu'il vienne en nombre ou en tenseur d'un seul élément."""
    value = fn(*inputs.values())
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise NotData(f"un tenseur de forme {tuple(value.shape)} ; on attend un seul nombre")
        return float(value.detach())
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        name = _name_of(value) if not isinstance(value, (type(None), str, bool)) else repr(value)
        raise NotData(f"{name} ; on attend un seul nombre")
    return float(value)


def call_many(fn: Callable[..., Any], inputs: dict[str, Any]) -> list[Any]:
    """Le premier argument est une liste : la fonction est appelée sur chaque élément, les autres restant fixes."""
    first, *others = inputs.values()
    return [fn(item, *others) for item in first]


def call_iterator(fn: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Le premier argument est donné tel quel si c'est un n-uplet ; une liste devient un itérateur, à lire une fois."""
    first, *others = inputs.values()
    return fn(first if isinstance(first, tuple) else iter(first), *others)


def loss_grads(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Valeur, puis gradient pour chaque entrée flottante. Un gradient absent compte comme nul."""
    wanted = {k: v.requires_grad_(True) for k, v in inputs.items() if _is_float_tensor(v)}
    value = fn(*inputs.values())
    result: dict[str, Any] = {"valeur": value}
    if isinstance(value, torch.Tensor):
        result["gradients"] = _gradients(value.sum(), wanted)
    for tensor in wanted.values():
        tensor.requires_grad_(False)
    return result


def _is_float_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _gradients(loss: torch.Tensor, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not loss.requires_grad or not wanted:
        return {name: torch.zeros_like(t) for name, t in wanted.items()}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wanted.items(), found, strict=True)}


# --- Modules ---------------------------------------------------------------------------------------------------------

_LAYERS: dict[str, type[nn.Module]] = {"Linear": nn.Linear, "Embedding": nn.Embedding, "LayerNorm": nn.LayerNorm}


def _build(spec: Any) -> Any:
    """{"module": "Linear", "args": [4, 3], "weights": {…}} → le module ; toute autre valeur reste elle-même."""
    if not (isinstance(spec, dict) and "module" in spec):
        return spec
    layer = _LAYERS[spec["module"]](*spec.get("args", ()))
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
        raise NotData(f"{_name_of(made)} ; on attend un nn.Module")
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
        result["gradients"] = _gradients(loss, {"x": x, **dict(sorted(parameters.items()))})
    x.requires_grad_(False)
    result["modules reçus"] = _states(given)
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
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16} | config
    fixed: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "attn_implementation": "eager"}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **fixed, bos_token_id=None, eos_token_id=None)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            scale_of_norm = ".ln_" in name and name.endswith("weight")
            p.copy_(1 + 0.2 * noise if scale_of_norm else std * noise)
    return model


def _model_of(inputs: dict[str, Any]) -> GPT2LMHeadModel:
    return _placed(tiny_gpt2(inputs["config"], inputs["seed"]), inputs)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def _changed(model: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    now = model.state_dict()
    return sorted(name for name, t in before.items() if name not in now or not torch.equal(now[name], t))


def _shape_name(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "()"


class Bottleneck(nn.Module):
    """Doublure d'un adaptateur : mêmes attributs et mêmes formes, même identité au départ, autre formule."""

    down: nn.Linear
    up: nn.Linear

    def __init__(self, d_model: int, bottleneck: int) -> None:
        super().__init__()
        sizes = {"down": (d_model, bottleneck), "up": (bottleneck, d_model)}
        for name, size in sizes.items():
            setattr(self, name, nn.Linear(*size))
        for p in self.up.parameters():
            p.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(torch.sin(3 * self.down(x)))


STAND_INS: dict[str, type] = {"Bottleneck": Bottleneck}


def _scopes_of(fn: Callable[..., Any]) -> list[dict[str, Any]]:
    """Les noms globaux de l'étudiant que voit `fn` : fonction, décorée ou non, `partial`, méthode, objet appelable."""
    found: dict[int, dict[str, Any]] = {}
    seen: dict[int, Any] = {}
    waiting: list[Any] = [fn]
    while waiting and len(seen) < 100:
        value = waiting.pop()
        if value is None or id(value) in seen:
            continue
        seen[id(value)] = value
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):
            if is_student_code(code):
                found[id(value.__globals__)] = value.__globals__
            cells = value.__closure__ or ()
            waiting += [held for cell in cells if callable(held := _content(cell))]
        else:
            waiting.append(getattr(type(value), "__call__", None))  # noqa: B004
        waiting += [getattr(value, name, None) for name in ("__wrapped__", "func", "__func__")]
    return list(found.values())


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # pas encore rempli
        return None


@contextmanager
def _replaced(fn: Callable[..., Any], stand_ins: dict[str, str]) -> Iterator[None]:
    """Le temps de l'appel, des noms globaux de `fn` désignent des doublures : une faute ne coûte qu'une fois."""
    missing = object()
    scopes = _scopes_of(fn) if stand_ins else []
    kept = [(scope, {name: scope.get(name, missing) for name in stand_ins}) for scope in scopes]
    for scope in scopes:
        scope.update({name: STAND_INS[double] for name, double in stand_ins.items()})
    try:
        yield
    finally:
        for scope, names in kept:
            for name, value in names.items():
                if value is missing:
                    scope.pop(name, None)
                else:
                    scope[name] = value


def gpt2_transform(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`fn(model, *args)` transforme un petit GPT-2 sur place et le rend.

    Mesure le modèle transformé au départ, puis après avoir posé dans ses paramètres entraînés des poids qui ne
    dépendent que de leur forme : noms et mécanisme restent libres. stand_ins : nom global de `fn` → doublure.
    """
    model: nn.Module = _model_of(inputs)
    ids = inputs["input_ids"]
    with _replaced(fn, inputs.get("stand_ins", {})):
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
    found = _gradients((logits * weighting).sum(), {str(i): p for i, p in enumerate(parameters)})
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
        raise NotData(f"{_name_of(made)} ; on attend un {type(model).__name__}")
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


PROBES: dict[str, Callable[[Callable[..., Any], dict[str, Any]], Any]] = {
    f.__name__: f
    for f in (
        call,
        call_float,
        call_many,
        call_iterator,
        loss_grads,
        module,
        train_steps,
        gpt2_transform,
        gpt2_new_model,
        gpt2_call,
        generate,
        freeze,
    )
}
