"""Garder son travail hors de la machine : là où tout s'efface (Colab), une archive que l'on reprend ensuite."""

from __future__ import annotations

import importlib
import io
import zipfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from atelier import paths, state
from atelier.text import number

MOST = 500 * 1024 * 1024
"""Octets d'une archive de travail, une fois ouverte."""


def save_work(to: str | Path | None = None) -> Path:
    """Range progression, tableau et variantes dans une archive .zip, la propose au téléchargement dans Colab.

    to : l'archive à écrire ; par défaut `travail_DATE.zip`, à côté du carnet. Rend son chemin.
    """
    folder = state.folder()
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in found if _kept(path.relative_to(folder).as_posix())]
    target = paths.started_in() / (to or f"travail_{datetime.now():%Y-%m-%d_%Hh%M}.zip")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(folder).as_posix())
    paths.write_atomically(target, out.getvalue())
    size = number(round(len(out.getvalue()) / 1e6, 1), unit="Mo")
    print(f"{target}\u00a0: {size}. Pour le reprendre\u00a0: atelier.restore_work.")
    if colab := _colab():
        colab.download(str(target))
    return target


def restore_work(archive: str | Path | None = None) -> None:
    """Reprend le travail d'une archive de `save_work`. Ce qui était là est rangé à côté, dans `avant_DATE`.

    archive : son chemin ; dans Colab, sans rien, elle se choisit sur votre ordinateur.
    Lève `ValueError` si ce n'est pas une archive de travail.
    """
    if archive is None:
        colab = _colab()
        if colab is None:
            raise ValueError('donnez le chemin de l\'archive : restore_work("travail_….zip")')
        sent: dict[str, bytes] = colab.upload()
        if len(sent) != 1:
            raise ValueError("une archive, et une seule, est attendue")
        data = next(iter(sent.values()))
    else:
        data = (paths.started_in() / archive).read_bytes()
    files = _read(data)
    folder = state.folder()
    aside = folder / f"avant_{datetime.now():%Y-%m-%d_%Hh%M%S}"
    for name, content in files.items():
        if (folder / name).is_file():
            paths.write_atomically(aside / name, (folder / name).read_bytes())
        paths.write_atomically(folder / name, content)
    said = f" Ce qui y était est dans {aside.name}." if aside.is_dir() else ""
    print(f"Travail repris dans {folder}.{said}")


def _kept(name: str) -> bool:
    """Vrai pour ce qui est à garder, et que l'on accepte de reprendre."""
    parts = PurePosixPath(name).parts
    if len(parts) == 1:
        return name in (state.PROGRESS, state.BOARD)
    plain = not any(part in ("..", ".") or part.startswith(".") or "\\" in part or ":" in part for part in parts)
    return plain and len(parts) == 2 and parts[0] == state.VARIANTS and not name.startswith("/")


def _read(data: bytes) -> dict[str, bytes]:
    """Nom → octets d'une archive de travail."""
    wrong = "ce n'est pas une archive écrite par save_work"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if _kept(info.filename)]
            if not infos or sum(info.file_size for info in infos) > MOST:
                raise ValueError(wrong)
            return {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{wrong} ({error})") from error


def _colab() -> Any:
    """Le module de fichiers de Colab ; None ailleurs."""
    if state.in_colab():
        with suppress(ImportError):
            return importlib.import_module("google.colab.files")
    return None
