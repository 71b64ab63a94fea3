"""Une carte simulée, en Python : l'appareil « carte », qui garde ses tenseurs sur l'hôte et refuse ce que CUDA refuse.

Ses tenseurs ne rencontrent pas ceux du processeur (sauf un nombre sans dimension, ou des indices), ne se changent pas
en tableaux NumPy, ne se remplissent pas d'un générateur de l'hôte, et des matrices d'entiers ne s'y multiplient pas.
`install(without_float64=True)` refuse en plus le float64, comme les cartes d'Apple (MPS). Les calculs sont ceux du
processeur : les valeurs, exactes au bit près, et la durée, à ce que coûte Python par opération.

Ce qu'elle ne sait pas faire est essayé un à un dans test_carte.py (`LIMITS`).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "carte"
HOST = torch.device("cpu")

_CROSSING = {"aten::copy_", "aten::_copy_from", "aten::_to_copy"}
"""Les seules opérations qui passent d'un appareil à l'autre."""
_HOST_INDICES = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"}
"""CUDA accepte des indices de l'hôte pour un tenseur de la carte ; l'inverse, non."""

_FLOAT_PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot")}
"""Les produits que CUDA ne fait pas entre entiers."""

_FACTORIES = ("empty.memory_format", "empty_strided", "eye", "eye.m", "arange", "arange.start", "arange.start_step")
_FACTORIES += ("linspace", "randperm", "randperm.generator")
"""Ce qui crée un tenseur sur la carte. torch ferait les derniers en agrandissant un tenseur vide, que son enveloppe
croirait toujours vide."""

_without_float64 = False


class CardTensor(torch.Tensor):
    """Un tenseur de la carte : une enveloppe autour d'un tenseur de l'hôte, `inner`."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> CardTensor:
        compressed = inner.layout in (torch.sparse_csr, torch.sparse_csc)  # torch ne sait pas envelopper ces formats
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=(inner.shape[-1], 1) if compressed else inner.stride(),
            storage_offset=0 if compressed else inner.storage_offset(),
            dtype=inner.dtype,
            layout=torch.strided if compressed else inner.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} sur la carte"

    def item(self) -> Any:
        return self.inner.item()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> CardTensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
        made = CardTensor(self.inner.clone()).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            made._is_param = True
        memo[id(self)] = made
        made.grad = copy.deepcopy(self.grad, memo)
        return made


def _tensors(value: Any, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            _tensors(v, found)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(v, change) for v in value)
    return change(value)


def _inner(value: Any) -> Any:
    if isinstance(value, CardTensor):
        return value.inner
    return HOST if isinstance(value, torch.device) and value.type == NAME else value


def _refuse_mixing(func: Any, name: str, args: Any, found: list[torch.Tensor], on_card: bool) -> None:
    host = [t for t in found if not isinstance(t, CardTensor) and t.ndim > 0]
    if not host or not on_card or name in _CROSSING:
        return
    if name in _HOST_INDICES and isinstance(args[0], CardTensor):
        values = [] if name == "aten::index" else [args[2]]
        if all(isinstance(v, CardTensor) or v.ndim == 0 for v in values):
            return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({func})"
    )


def _refuse_integers(name: str, found: list[torch.Tensor]) -> None:
    if name in _FLOAT_PRODUCTS and not (found[0].is_floating_point() or found[0].is_complex()):
        raise RuntimeError(f'"{name.removeprefix("aten::")}_cuda" not implemented for integers')


def _refuse_float64(value: Any) -> None:
    dtype = value.dtype if isinstance(value, torch.Tensor) else value
    if _without_float64 and dtype == torch.float64:
        raise TypeError(
            f"Cannot convert a {NAME} Tensor to float64 dtype as the framework doesn't support float64. "
            "Please use float32 instead."
        )


@contextlib.contextmanager
def _normal_tensors() -> Iterator[None]:
    """Hors d'inference_mode, où une enveloppe ne se laisserait plus modifier, et sans rouvrir les gradients."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _plain_tensors() -> contextlib.AbstractContextManager[None]:
    return _normal_tensors() if torch.is_inference_mode_enabled() else contextlib.nullcontext()


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Une opération : refusée si elle mêle les appareils, sinon faite sur l'hôte et remise dans des enveloppes."""
    if torch.is_inference_mode_enabled() and _is_composite(func):  # autograd, absent ici, l'aurait décomposée
        return func.decompose(*args, **kwargs)
    name = func._schema.name
    found: list[torch.Tensor] = []
    _tensors(args, found)
    if kwargs:
        _tensors(list(kwargs.values()), found)
    given = {id(t.inner): t for t in found if isinstance(t, CardTensor)}
    _refuse_mixing(func, name, args, found, bool(given))
    if given:
        _refuse_integers(name, found)
    to_host = False
    if kwargs:
        where = kwargs.get("device")
        to_host = where is not None and torch.device(where).type != NAME
        if not to_host and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
        kwargs = {k: _mapped(v, _inner) for k, v in kwargs.items() if k != "pin_memory"}
        if not to_host:
            _refuse_float64(kwargs.get("dtype"))
    plain = [_mapped(a, _inner) for a in args]
    with _plain_tensors():
        out = func(*plain, **kwargs)

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or isinstance(value, CardTensor):
                return value
            if id(value) in given:
                return given[id(value)]
            if to_host or name == "aten::copy_":  # copy_ rend le tenseur de l'hôte qu'elle a rempli
                return value
            _refuse_float64(value)
            return CardTensor(value)

        return _mapped(out, wrap)


_kept: list[torch.library.Library] = []
"""Ce qui est inscrit auprès de torch vit autant que ces objets."""


def _factory(op: Any) -> Callable[..., CardTensor]:
    def make(*args: Any, **kwargs: Any) -> CardTensor:
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
        _refuse_float64(kwargs.get("dtype"))
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
        with _plain_tensors():
            return CardTensor(op(*args, **kwargs, device=HOST))

    return make


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _inner(target).copy_(_inner(source))
    return target


def _keep_ties() -> None:
    """`module.to(carte)` refait chaque paramètre : ceux qui n'en étaient qu'un le redeviennent, comme sous CUDA."""
    convert = nn.Module._apply

    def apply(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        before: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in self.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    before.setdefault(id(p), []).append((module, name))
        shared = [places for places in before.values() if len(places) > 1]
        out = convert(self, *args, **kwargs)
        for (owner, first), *others in shared:
            for module, name in others:
                module._parameters[name] = owner._parameters[first]
        return out

    nn.Module._apply = apply


def install(without_float64: bool = False) -> torch.device:
    """Inscrit l'appareil auprès de torch, une fois par processus, et le rend."""
    global _without_float64
    _without_float64 = without_float64
    if not _kept:
        _setup_privateuseone_for_python_backend(NAME)
        aten = torch.library.Library("aten", "IMPL")
        for op in _FACTORIES:
            packet, _, overload = op.partition(".")
            aten.impl(op, _factory(getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1")
        aten.impl("_copy_from", _copy_from, "PrivateUse1")
        aten.impl("_copy_from_and_resize", _copy_from, "PrivateUse1")
        everything = torch.library.Library("_", "IMPL")
        everything.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
        everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        _kept.extend([aten, everything])
        module = getattr(torch, NAME)
        module.get_rng_state = lambda device=None: torch.get_rng_state()
        module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
        module.synchronize = lambda *_: None
        module.is_initialized = lambda: True
        module._is_in_bad_fork = lambda: False
        module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
        _keep_ties()
    return torch.device(NAME)
