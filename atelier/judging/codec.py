"""Valeurs ↔ JSON + safetensors. Sert aux paquets de `check` et au dialogue avec le processus de l'étudiant.

Rien d'autre que des données ne passe : None, booléens, entiers, flottants, texte, listes, n-uplets,
dictionnaires à clés de texte, tenseurs denses. Jamais de pickle.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors

MAX_MESSAGE = 256 * 1024 * 1024
MAX_NAMES = 1024 * 1024
"""Octets de la table des tenseurs d'un message : des milliers de tenseurs, pas des millions."""
MAX_OBJECTS = 20_000
"""Valeurs d'un message. Un cas honnête en a moins de cent ; un JSON de 4 Mio en compterait un million."""
TOO_MANY = f"un résultat de plus de {MAX_OBJECTS} valeurs"
MAX_DEPTH = 40
MAX_DIMENSIONS = 64
_VIEWS = {
    "bfloat16": (torch.bfloat16, torch.int16),
    "float8_e4m3fn": (torch.float8_e4m3fn, torch.uint8),
    "float8_e5m2": (torch.float8_e5m2, torch.uint8),
}
"""Types que NumPy ignore : nom dans l'arbre → (type, entiers de même taille qui en portent les octets)."""
_VIEWED = {dtype: (name, bits) for name, (dtype, bits) in _VIEWS.items()}
_IN_NUMPY = {torch.float32, torch.float64, torch.float16, torch.int8, torch.int16, torch.int32, torch.int64}
_IN_NUMPY |= {torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool}


class CodecError(ValueError):
    """Une valeur ne peut pas être transportée, ou un message reçu est mal formé."""


def _plain(x: torch.Tensor) -> torch.Tensor:
    if (
        type(x) not in (torch.Tensor, torch.nn.Parameter)
        or x.layout != torch.strided
        or x.is_quantized
        or x.dtype not in _IN_NUMPY
        and x.dtype not in _VIEWED
    ):
        raise CodecError(f"tenseur d'un genre non transportable : {type(x).__name__}, {x.dtype}")
    if x.device.type == "meta":
        raise CodecError("tenseur sans données (device meta)")
    return x.detach().to("cpu").resolve_neg().contiguous()


STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Une chaîne de JSON ; une chaîne jamais refermée va jusqu'au bout, pour n'être lue qu'une fois."""


def count_values(text: str) -> int:
    """Un majorant du nombre de valeurs d'un texte JSON, compté d'un trait, sans le lire ni rien construire."""
    bare = STRING.sub("", text)
    return 1 + sum(bare.count(mark) for mark in "[{,:")


_MARKS = 10
"""Signes de JSON par valeur, au plus, dans ce qu'écrit `encode`."""


def encode(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Valeur → (arbre JSON, tenseurs, qui peuvent partager sa mémoire).

    Lève `CodecError` sur tout ce qui n'est pas une donnée.
    """
    tensors: dict[str, torch.Tensor] = {}
    count = 0

    def walk(v: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_OBJECTS:
            raise CodecError(TOO_MANY)
        if depth > MAX_DEPTH:
            raise CodecError("structure trop profonde")
        if v is None or isinstance(v, (bool, str)) and type(v) in (bool, str):
            return v
        if type(v) is int:
            return v if abs(v) < 2**53 else {"$": "int", "v": hex(v)}
        if type(v) is float:
            return v if math.isfinite(v) else {"$": "float", "v": repr(v)}
        if isinstance(v, torch.Tensor):
            key = f"t{len(tensors)}"
            node: dict[str, Any] = {"$": "tensor", "v": key}
            x = _plain(v)
            if x.dtype in _VIEWED:
                node["dtype"], bits = _VIEWED[x.dtype]
                x = x.view(bits)
            tensors[key] = x
            if not v.is_contiguous():
                node["strided"] = True
            return node
        if type(v) is list:
            return [walk(x, depth + 1) for x in v]
        if type(v) is tuple:
            return {"$": "tuple", "v": [walk(x, depth + 1) for x in v]}
        if type(v) is dict:
            if not all(type(k) is str for k in v):
                raise CodecError("un dictionnaire transporté a des clés de texte")
            return {"$": "dict", "v": {k: walk(x, depth + 1) for k, x in v.items()}}
        raise CodecError(f"valeur non transportable : {type(v).__name__}")

    return walk(value, 0), tensors


def decode(tree: Any, tensors: dict[str, torch.Tensor], *, ours: bool = False) -> Any:
    """Inverse de `encode`. Lève `CodecError` sur un arbre mal formé.

    ours : un fichier du cours, où des cas partagent leurs tenseurs. D'ailleurs, chacun ne sert qu'une fois (mille
    renvois au même en feraient mille copies) et les valeurs sont comptées.
    """
    left = dict(tensors)
    count = 0

    def walk(v: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_OBJECTS and not ours:
            raise CodecError(TOO_MANY)
        if depth > MAX_DEPTH:
            raise CodecError("structure trop profonde")
        if isinstance(v, list):
            return [walk(x, depth + 1) for x in v]
        if isinstance(v, str):
            v.encode()  # UnicodeEncodeError sur une moitié de caractère, que rien ne saurait réécrire
        if not isinstance(v, dict):
            return v
        kind, body = v.get("$"), v.get("v")
        if kind == "int" and isinstance(body, str) and len(body) < 10_000:
            return int(body, 16)
        if kind == "float" and body in ("nan", "inf", "-inf"):
            return float(body)
        if kind == "tensor" and isinstance(body, str) and body in left:
            x = left[body] if ours else left.pop(body)
            if x.dim() > MAX_DIMENSIONS:
                raise CodecError(f"tenseur de plus de {MAX_DIMENSIONS} dimensions")
            if x.dtype == torch.bool:  # un octet de booléen peut mentir : 2 n'est ni vrai ni faux
                x = x.view(torch.uint8) != 0
            if "dtype" in v:
                dtype, bits = _VIEWS.get(str(v["dtype"]), (None, None))
                if dtype is None or x.dtype != bits:
                    raise CodecError("type d'éléments inconnu")
                x = x.view(dtype)
            if v.get("strided") is True:
                wide = x.new_zeros(*x.shape, 2)
                wide[..., 0] = x
                return wide[..., 0]
            return x.clone()
        if kind == "tuple" and isinstance(body, list):
            return tuple(walk(x, depth + 1) for x in body)
        if kind == "dict" and isinstance(body, dict):
            "".join(body).encode()
            return {k: walk(x, depth + 1) for k, x in body.items()}
        raise CodecError("nœud JSON inconnu")

    try:
        return walk(tree, 0)
    except (ValueError, RecursionError) as error:
        raise CodecError(str(error)) from error


def dumps(value: Any) -> bytes:
    """Valeur → octets : longueur du JSON (8 octets, petit-boutiste), JSON, safetensors."""
    tree, tensors = encode(value)
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    head = text.encode("utf-8", errors="replace")
    packed = save_arrays({name: x.numpy() for name, x in tensors.items()}) if tensors else b""
    return struct.pack("<Q", len(head)) + head + packed


def loads(data: bytes, max_json: int = MAX_MESSAGE) -> Any:
    """Inverse de `dumps`. Lève `CodecError` si les octets ne sont pas ceux d'une valeur.

    max_json : octets de JSON acceptés. Les valeurs sont comptées avant de rien construire.
    """
    try:
        (n,) = struct.unpack_from("<Q", data)
        if n > len(data) - 8:
            raise CodecError("message tronqué")
        if n > max_json:
            raise CodecError(f"{n} octets de JSON, limite {max_json}")
        text = data[8 : 8 + n].decode()
        if count_values(text) > _MARKS * MAX_OBJECTS:
            raise CodecError(TOO_MANY)
        tree = json.loads(text)
        body = data[8 + n :]
        if len(body) >= 8 and struct.unpack_from("<Q", body)[0] > MAX_NAMES:
            raise CodecError("trop de tenseurs")
        return decode(tree, load_tensors(bytes(body)) if body else {})
    except (CodecError, MemoryError):  # la mémoire qui manque ici n'est pas la faute de ces octets
        raise
    except Exception as error:
        raise CodecError(f"message illisible : {type(error).__name__}") from error
