"""La roue d'atelier : ce qu'un carnet importe et ses ressources, en un seul fichier que pip installe partout.

C'est ce que pyproject.toml donne à pip pour bâtir (PEP 517 et 660), en Python seul : `pip install ADRESSE` et `publish`
ne demandent rien d'autre, et la même source donne le même fichier, à l'octet près.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TAG = "py3-none-any"
SKIP = ("__pycache__", "*.pyc", ".ipynb_checkpoints", ".atelier", "*.tmp", "virtual_documents")
CARRIED = ("atelier", "assets", "course.toml")
"""Ce que porte la roue, dans `atelier/` : c'est là qu'`atelier.paths` le cherche."""

Files = dict[str, bytes]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Écrit la roue dans ce dossier ; rend son nom."""
    name, data = wheel(ROOT)
    Path(wheel_directory, name).write_bytes(data)
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Une roue qui ne fait que désigner ce dépôt : `pip install -e .`."""
    # Un .pth est lu dans le codage du système : cette ligne reste en ASCII.
    name, data = packed(ROOT, {"cours.pth": f"import sys; sys.path.append({ascii(str(ROOT))})\n".encode()})
    Path(wheel_directory, name).write_bytes(data)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Écrit ce que la roue dira d'elle-même, sans la bâtir."""
    about = metadata(ROOT)
    for name, data in about.items():
        path = Path(metadata_directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return next(iter(about)).partition("/")[0]


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def wheel(root: Path) -> tuple[str, bytes]:
    """La roue du cours de ce dossier : son nom, ses octets."""
    return packed(root, {placed(path): (root / path).read_bytes() for path in carried(root)})


def carried(root: Path) -> list[Path]:
    """Les fichiers qu'elle porte, relatifs à `root`."""
    return [path for name in CARRIED for path in files_under(root, name)]


def placed(path: Path) -> str:
    """Où va un fichier du dépôt, dans la roue."""
    return path.as_posix() if path.parts[0] == "atelier" else f"atelier/{path.as_posix()}"


def files_under(root: Path, name: str) -> Iterator[Path]:
    """Un fichier, ou tous ceux d'un dossier, relatifs à `root` ; ni liens, ni fichiers de passage."""
    top = root / name
    for path in [top] if top.is_file() else sorted(top.rglob("*")):
        relative = path.relative_to(root)
        skipped = any(Path(part).match(pattern) for part in relative.parts for pattern in SKIP)
        if not skipped and path.is_file() and not path.is_symlink():
            yield relative


def packed(root: Path, files: Files) -> tuple[str, bytes]:
    """Une roue faite de ces fichiers : son nom, ses octets."""
    files = files | metadata(root)
    info = next(name for name in files if name.endswith(".dist-info/METADATA")).partition("/")[0]
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    record = f"{info}/RECORD"
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # sans date : celle du zip, 1980
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return f"{info.removesuffix('.dist-info')}-{TAG}.whl", output.getvalue()


def metadata(root: Path) -> Files:
    """Ce que la roue dit d'elle-même, tiré de pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    head = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in project["license-files"]),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {line}" for line in project["dependencies"]),
        *_extras(project["optional-dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    text = "\n".join(head) + "\n\n" + (root / project["readme"]).read_text(encoding="utf-8")
    info = f"{project['name']}-{project['version']}.dist-info"
    about = f"Wheel-Version: 1.0\nGenerator: cours\nRoot-Is-Purelib: true\nTag: {TAG}\n"
    licenses = {f"{info}/licenses/{name}": (root / name).read_bytes() for name in project["license-files"]}
    return {f"{info}/METADATA": text.encode(), f"{info}/WHEEL": about.encode(), **licenses}


def _extras(groups: Mapping[str, list[str]]) -> Iterator[str]:
    for group, lines in groups.items():
        yield f"Provides-Extra: {group}"
        for line in lines:
            package, _, marker = line.partition(";")
            condition = f"({marker.strip()}) and " if marker else ""
            yield f'Requires-Dist: {package.strip()} ; {condition}extra == "{group}"'
