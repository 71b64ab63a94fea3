"""Ouvrir ce que l'enseignant a reçu : un dossier, une archive, des archives dans l'archive.

Chaque fichier reçu devient un `Received` : un chemin propre (accents retrouvés, barres, ni « .. » ni lecteur), une
date, des octets bornés rangés à part, ou la raison pour laquelle on ne les a pas. Rien ne s'écrit là où l'archive le
dit, et une entrée abîmée n'arrête pas les autres.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, cast

from atelier.text import NEWLINE, legible, number
from grader import UserError

MAX_FILES = 200_000
"""Entrées d'une archive. Une classe de dépôts GitHub en a des dizaines de milliers."""
MAX_TOTAL_BYTES = 32 * 1024**3
"""Octets déployés en tout. Au-delà, les fichiers suivants sont refusés, chacun par son nom."""
MAX_NESTED_DEPTH = 3
MAX_NESTED_FILES = 5_000
MAX_NESTED_BYTES = 256 * 1024**2
"""Bornes d'une archive rendue par un étudiant, avec celles qu'elle contient."""
MAX_RATIO = 200
RATIO_BYTES = 20_000_000
"""Un fichier plus grand que cela, et plus de `MAX_RATIO` fois plus que compressé, n'est pas un carnet."""
CHUNK = 1 << 20
SNIFF = 65_536

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".txz", ".bz2", ".tbz2", ".7z", ".rar")
MAYBE_NOTEBOOK = ("", ".txt", ".json", ".js", ".bak", ".download", ".nb")
"""Extensions sous lesquelles un carnet arrive parfois : son contenu décide."""
CLUTTER = {"__macosx", "__pycache__", "node_modules", "thumbs.db", "desktop.ini", "icon\r"}
OTHER_ARCHIVES = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR"}


@dataclass
class Received:
    """Un fichier reçu. path : « a.zip/b.ipynb » dans une archive rendue. order : une date, pour l'ordre seul."""

    path: str
    kind: str
    """notebook, stamp (timestamp.txt) ou other."""
    order: float | None
    date: datetime | None
    """Date de remise en temps universel ; None si rien ne la dit."""
    file: Path | None = None
    problem: str = ""
    nested: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts

    def data(self) -> bytes:
        return self.file.read_bytes() if self.file is not None else b""


@dataclass
class Budget:
    """Ce qu'une archive peut encore déployer."""

    files: int
    bytes: int


@dataclass
class Origin:
    """D'où vient un fichier : son nom, sa date, sa profondeur d'archive."""

    path: str
    order: float | None
    date: datetime | None
    depth: int = 0

    def inside(self, name: str) -> Origin:
        return Origin(f"{self.path}/{name}", self.order, self.date, self.depth + 1)


def clean_name(text: str) -> str:
    """Un nom venu d'une copie, tel qu'on peut l'afficher : une ligne, sans code de terminal ni marque de sens."""
    return " ".join(legible(unicodedata.normalize("NFC", text)).replace(NEWLINE, " ").replace("\ufffd", "").split())


def unpack(source: Path, spool: Path, limit: int) -> list[Received]:
    """Tout ce que contient `source`. spool : dossier où ranger les octets ; limit : taille d'un fichier."""
    opening = Unpacking(spool, limit)
    if source.is_dir():
        opening.folder(source)
    elif not source.is_file():
        raise UserError(f"{source} n'existe pas\u00a0: donnez une archive .zip ou un dossier de carnets.")
    else:
        budget = Budget(MAX_FILES, MAX_TOTAL_BYTES)
        with decompressed(source) as stream:
            head = first_bytes(stream)
            if is_tar(head):
                opening.tar(stream, source, None, budget)
            else:
                opening.zip(source, None, budget)
    return opening.found


class Unpacking:
    """Une ouverture en cours."""

    def __init__(self, spool: Path, limit: int) -> None:
        self.spool, self.limit = spool, limit
        self.found: list[Received] = []
        self.inner: Budget
        self.left = MAX_TOTAL_BYTES
        self.count = 0

    # ------------------------------------------------------------------------------------------ les trois sources

    def folder(self, source: Path) -> None:
        """Les fichiers d'un dossier ; les liens ne sont pas suivis. Leur date ne dit pas quand ils furent rendus."""

        def closed(error: OSError) -> None:
            where = clean_path(Path(error.filename).relative_to(source).as_posix())
            self.refuse(Origin(where or source.name, None, None), f"dossier illisible ({error.strerror})")

        for folder, folders, names in os.walk(source, onerror=closed, followlinks=False):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                where = clean_path(path.relative_to(source).as_posix())
                if clutter(where):
                    continue
                try:
                    about = path.lstat()
                    if not stat.S_ISREG(about.st_mode):
                        continue
                    with path.open("rb") as stream:
                        self.take(Origin(where, about.st_mtime, None), stream, about.st_size, keep=path)
                except OSError as error:
                    self.refuse(Origin(where, None, None), f"illisible ({error.strerror})")

    def zip(self, source: Path, outer: Origin | None, budget: Budget) -> None:
        """Les fichiers d'une archive zip. outer : celui qu'elle était, si un étudiant l'a rendue."""
        try:
            archive = zipfile.ZipFile(source)
            entries = [e for e in archive.infolist() if not e.is_dir()]
        except Exception as error:  # zipfile lève de tout sur une archive abîmée
            self.unopened(source, outer, error)
            return
        with archive:
            if not self.enough(source, outer, len(entries), budget):
                return
            for entry in entries:
                where = clean_path(entry_name(entry))
                if not where or clutter(where):
                    continue
                date = None if outer else zip_date(entry)
                mine = outer.inside(where) if outer else Origin(where, seconds(date) if date else None, date)
                if stat.S_ISLNK(entry.external_attr >> 16):
                    self.refuse(mine, "lien symbolique, ignoré")
                elif entry.file_size > RATIO_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
                    self.refuse(mine, f"plus de {self.limit_text()}" if entry.file_size > self.limit else BOMB)
                else:
                    try:
                        with archive.open(entry) as stream:
                            self.take(mine, stream, entry.file_size, budget)
                    except Exception as error:  # une entrée abîmée, quelle que soit la façon, n'arrête pas les autres
                        self.refuse(mine, entry_problem(entry, error))

    def tar(self, stream: IO[bytes], source: Path, outer: Origin | None, budget: Budget) -> None:
        """Les fichiers d'une archive tar déjà décompressée, lue d'un bout à l'autre."""
        start = len(self.found)
        try:
            limited = Limited(stream, budget.bytes)  # « r| » n'appelle que read ; typeshed demande tout un fichier
            with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
                for rank, member in enumerate(archive):
                    where = clean_path(member.name)
                    if rank >= budget.files:
                        raise ValueError(f"plus de {budget.files} fichiers")
                    if not where or clutter(where) or member.isdir():
                        continue
                    date = datetime.fromtimestamp(member.mtime, UTC).replace(tzinfo=None) if member.mtime > 0 else None
                    date = None if outer else plausible(date)
                    mine = outer.inside(where) if outer else Origin(where, seconds(date) if date else None, date)
                    content = archive.extractfile(member) if member.isreg() else None
                    if content is None:
                        self.refuse(mine, "lien symbolique, ignoré")
                    else:
                        self.take(mine, content, member.size, budget)
        except Exception as error:  # tarfile, comme zipfile, lève de tout
            if outer is None and len(self.found) == start:
                raise UserError(f"{source} n'est pas une archive lisible ({error}).") from None
            self.refuse(outer or Origin(source.name, None, None), f"archive lisible en partie seulement ({error})")

    def unopened(self, source: Path, outer: Origin | None, error: Exception) -> None:
        """Ce n'est pas une archive zip : dire ce que c'est, et quoi faire."""
        with source.open("rb") as stream:
            head = stream.read(SNIFF)
        other = next((name for magic, name in OTHER_ARCHIVES.items() if head.startswith(magic)), "")
        if outer is not None:
            reason = f"archive {other}, à décompresser" if other else f"archive illisible ({clean_name(str(error))})"
            self.refuse(outer, reason)
        elif other:
            raise UserError(
                f"{source} est une archive {other}, que Python ne sait pas ouvrir\u00a0: décompressez-la, "
                "puis donnez le dossier obtenu."
            )
        elif looks_like_notebook(head):
            raise UserError(
                f"{source} n'est pas une archive, c'est un carnet\u00a0: mettez-le dans un dossier au nom de "
                "l'étudiant, et donnez le dossier qui contient celui-là."
            )
        else:
            raise UserError(f"{source} n'est pas une archive .zip lisible ({error}).") from None

    def enough(self, source: Path, outer: Origin | None, count: int, budget: Budget) -> bool:
        """Compte les fichiers d'une archive ; faux, ou `UserError`, s'il y en a trop."""
        budget.files -= count
        if budget.files >= 0:
            return True
        if outer is None:
            raise UserError(f"{source} contient {count} fichiers, la limite est de {MAX_FILES}.")
        self.refuse(outer, f"archive de plus de {MAX_NESTED_FILES} fichiers")
        return False

    # ------------------------------------------------------------------------------------------ un fichier

    def refuse(self, origin: Origin, problem: str) -> None:
        kind = "notebook" if is_notebook_name(origin.path) else "other"
        self.found.append(Received(origin.path, kind, origin.order, origin.date, None, problem, origin.depth > 0))

    def take(
        self, origin: Origin, stream: IO[bytes], size: int, budget: Budget | None = None, keep: Path | None = None
    ):  # noqa: ANN201
        """Un fichier : un carnet est gardé, une archive ouverte, le reste seulement nommé."""
        suffix = PurePosixPath(origin.path).suffix.lower()
        head = stream.read(SNIFF)
        kind = "other"
        if PurePosixPath(origin.path).name == "timestamp.txt":
            kind = "stamp"
        elif is_notebook_name(origin.path) or (suffix in MAYBE_NOTEBOOK and looks_like_notebook(head)):
            kind = "notebook"
        inner = (suffix in ARCHIVES or kind == "notebook") and is_archive(head)
        item = Received(origin.path, kind, origin.order, origin.date, nested=origin.depth > 0)
        if kind == "other" and not inner:
            item.problem = "un fichier vide" if not head else ""
            self.found.append(item)
            return
        if size > self.limit:
            self.refuse(origin, f"plus de {self.limit_text()}")
            return
        if keep is None:
            keep = self.copy(origin, head, stream, budget)
            if keep is None:
                return
        if inner:
            self.nested(origin, keep, head)
            return
        item.file = keep
        self.found.append(item)

    def copy(self, origin: Origin, head: bytes, stream: IO[bytes], budget: Budget | None) -> Path | None:
        """Range les octets d'un fichier, sans croire la taille qu'il annonce."""
        self.count += 1
        path = self.spool / str(self.count)
        size = 0
        with path.open("wb") as out:
            while head:
                size += len(head)
                out.write(head)
                if size > self.limit:
                    break
                head = stream.read(CHUNK)
        self.left -= size
        if budget is not None:
            budget.bytes -= size
        problem = ""
        if size > self.limit:
            problem = f"plus de {self.limit_text()}"
        elif self.left < 0 or (budget is not None and budget.bytes < 0):
            problem = "l'archive se déploie sur trop d'octets, ce fichier n'a pas été lu"
        if problem:
            path.unlink()
            self.refuse(origin, problem)
            return None
        return path

    def nested(self, origin: Origin, file: Path, head: bytes) -> None:
        """Une archive dans l'archive, sous les mêmes bornes que tout ce qu'elle contient."""
        if origin.depth >= MAX_NESTED_DEPTH:
            self.refuse(origin, "archives emboîtées les unes dans les autres")
            return
        before = len(self.found)
        budget = Budget(MAX_NESTED_FILES, MAX_NESTED_BYTES)
        if origin.depth:  # elle n'a que ce qui reste à celle qui la contient
            budget = self.inner
        self.inner = budget
        if head.startswith((b"PK", *OTHER_ARCHIVES)):
            self.zip(file, origin, budget)
        else:
            with decompressed(file) as stream:
                content = first_bytes(stream)
                if is_tar(content):
                    self.tar(stream, file, origin, budget)
                elif content:
                    inside = origin.inside(PurePosixPath(origin.path).stem)
                    try:
                        self.take(inside, stream, 0, budget)
                    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                        self.refuse(inside, f"illisible dans l'archive, abîmé ({error})")
        if len(self.found) == before:
            self.refuse(origin, "archive vide")

    def limit_text(self) -> str:
        return number(self.limit / 2**20, unit="Mio")


BOMB = "fichier démesuré une fois décompressé"


class Limited:
    """Un flux dont on ne lira pas plus que promis, quoi que l'archive en fasse."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self.stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("elle se déploie sur trop d'octets")
        return data


def decompressed(file: Path) -> IO[bytes]:
    """Le contenu d'un fichier, décompressé s'il est compressé d'un bloc (gzip, xz, bzip2)."""
    with file.open("rb") as stream:
        head = stream.read(8)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if head.startswith(magic):
            return cast("IO[bytes]", opener(file))  # un flux binaire de plus, que typeshed ne dit pas être un IO
    return file.open("rb")


def first_bytes(stream: IO[bytes]) -> bytes:
    """Le début d'un flux, sans l'avancer ; vide s'il est abîmé."""
    try:
        head = stream.read(512)
        stream.seek(0)
        return head
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


def is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


# ---------------------------------------------------------------------------------------------- noms


def clean_path(name: str) -> str:
    """Un chemin relatif en barres obliques, accents composés, sans « .. », « . » ni lettre de lecteur."""
    parts = [unicodedata.normalize("NFC", p) for p in re.split(r"[/\\]", name.replace("\0", ""))]
    parts = [p for p in parts if p.strip() not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", p)]
    return "/".join(parts)


def clutter(path: str) -> bool:
    """Vrai pour ce que les systèmes et les outils ajoutent sans que personne ne l'ait rendu."""
    parts = path.split("/")
    hidden = any(p.startswith((".", "~$")) and p.lower() != ".ipynb" for p in parts)
    return hidden or any(p.lower() in CLUTTER for p in parts)


def entry_name(entry: zipfile.ZipInfo) -> str:
    """Le nom d'une entrée. Sans la marque UTF-8, Python l'a lu en cp437, quoi qu'ait écrit l'autre machine."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        raw = entry.filename.encode("cp437")
    except UnicodeEncodeError:
        return entry.filename
    for kind, value in extras(entry.extra):
        if kind == 0x7075 and len(value) > 5:  # « Unicode Path » d'Info-ZIP
            with suppress(UnicodeDecodeError):
                return value[5:].decode("utf-8")
    return decode_name(raw)


def decode_name(raw: bytes) -> str:
    """Des octets d'un nom : l'UTF-8 de macOS s'il en est, sinon la page de code qui en fait le plus de mots."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    found = []
    for encoding in ("cp850", "cp437", "cp1252"):
        with suppress(UnicodeDecodeError):
            text = raw.decode(encoding)
            found.append((likely(text), text))
    return max(found, key=lambda pair: pair[0])[1]


def likely(text: str) -> int:
    """Combien ce nom ressemble à du français : ses lettres accentuées, moins ce qui ne s'écrit pas dans un mot."""
    score = 0
    for before, c in zip(" " + text, text, strict=False):
        if ord(c) > 127:
            usual = c in "àâäçéèêëîïôöùûüÿœæñáíóúãõåøÀÂÄÇÉÈÊËÎÏÔÖÙÛÜŸŒÆÑÁÍÓÚÅØß"
            score += 1 if usual and not (c.isupper() and before.islower()) else -1
    return score


def extras(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Les champs supplémentaires d'une entrée zip."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        yield kind, extra[4 : 4 + size]
        extra = extra[4 + size :]


def is_notebook_name(path: str) -> bool:
    """« x.ipynb », mais aussi « x.ipynb.txt » ou « x.ipynb (1) »."""
    return re.search(r"\.ipynb(\.(txt|json|download|bak|zip)|\s*\(\d+\))*$", path.lower()) is not None


def looks_like_notebook(head: bytes) -> bool:
    """Vrai si ces premiers octets sont ceux d'un carnet, quel que soit son nom."""
    text = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    return text.startswith(b"{") and any(word in text for word in (b'"cells"', b'"nbformat', b'"worksheets"'))


def is_archive(head: bytes) -> bool:
    magics = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", *OTHER_ARCHIVES)
    return head.startswith(magics) or is_tar(head)


def entry_problem(entry: zipfile.ZipInfo, error: Exception) -> str:
    """Pourquoi une entrée ne se lit pas, en français."""
    if entry.flag_bits & 0x1:
        return "protégé par un mot de passe"
    if isinstance(error, NotImplementedError):
        return "compressé d'une façon que Python ne connaît pas"
    return f"illisible dans l'archive, abîmé ({clean_name(str(error)) or type(error).__name__})"


# ---------------------------------------------------------------------------------------------- dates


def zip_date(entry: zipfile.ZipInfo) -> datetime | None:
    """La date d'une entrée en temps universel. Celle du format est locale, à 2 s près, et vaut 1980 si tue."""
    for kind, value in extras(entry.extra):
        if kind == 0x5455 and len(value) >= 5 and value[0] & 1:  # « extended timestamp », en temps universel
            return plausible(datetime.fromtimestamp(struct.unpack("<i", value[1:5])[0], UTC).replace(tzinfo=None))
    if entry.date_time[0] <= 1980:
        return None
    try:
        local = time.mktime((*entry.date_time, 0, 0, -1))
        return plausible(datetime.fromtimestamp(local, UTC).replace(tzinfo=None))
    except (ValueError, OverflowError, OSError):
        return None


def plausible(date: datetime | None) -> datetime | None:
    """Une date à laquelle une copie a pu être rendue : ni l'origine des horloges, ni demain."""
    if date is None or date.year < 2000 or seconds(date) > time.time() + 86_400:
        return None
    return date


def seconds(date: datetime) -> float:
    return date.replace(tzinfo=UTC).timestamp()
