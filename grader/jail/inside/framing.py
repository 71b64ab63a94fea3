"""Des messages précédés de leur longueur (8 octets, petit-boutiste) : la seule forme de ce qui entre dans une copie et
de ce qui en sort, écrite et relue ici seulement. Ce qu'ils portent est à `atelier.judging.codec`.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_SIZE = struct.Struct("<Q")


class TooLong(Exception):
    """Le message annoncé dépasse ce que l'on accepte ; rien n'en a été lu."""


def framed(data: bytes) -> bytes:
    """Un message, prêt à partir."""
    return _SIZE.pack(len(data)) + data


class Frames:
    """Des octets qui arrivent par morceaux (`feed`), rendus message par message (`take`).

    limit : octets d'un message, au plus ; total : de tous, longueurs comprises.
    """

    def __init__(self, limit: int, total: float) -> None:
        self.limit, self.left = limit, total
        self.buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        self.buffer += chunk

    def take(self) -> bytes | None:
        """Le message suivant, s'il est arrivé entier. Lève `TooLong` dès que sa longueur est connue."""
        if len(self.buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self.buffer)
        end = _SIZE.size + size
        if size > self.limit or end > self.left:
            raise TooLong(f"message de {size} octets")
        if len(self.buffer) < end:
            return None
        body = bytes(memoryview(self.buffer)[_SIZE.size : end])
        del self.buffer[:end]
        self.left -= end
        return body


def read(stream: BinaryIO) -> bytes:
    """Un message entier, attendu aussi longtemps qu'il faut, de qui l'on croit. `EOFError` si le flux finit avant."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError("flux fermé")
    (size,) = _SIZE.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError("flux fermé au milieu d'un message")
    return body
