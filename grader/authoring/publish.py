"""`publish` : le dossier que reçoivent les étudiants, et la preuve qu'il ne contient aucune réponse."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from atelier import paths
from grader import UserError
from grader.authoring.chapters import BEGIN, END, chapter_names, load_chapter
from grader.authoring.rules import LEAK, secret_lines

CARRIED = ("atelier", "assets", "course.toml")
"""Ce que porte la roue (pyproject.toml)."""
BESIDE = ("notebooks", "cours.py", "constraints.txt", "environment.yml", "README.md", "LICENSE")
"""Ce que l'étudiant reçoit à côté de la roue."""
OPTIONAL = ("AGENTS.md",)
SOLVED = "corriges"
"""Le dossier des carnets résolus, chez l'étudiant."""
MARKER = re.compile(rf"#+\s*({re.escape(BEGIN)}|{re.escape(END)})")
PASSING = ("__pycache__", "*.pyc", ".*", "*.tmp")
"""Ce que laissent les outils, et qui n'est pas du cours."""
CODESPACES = Path(".devcontainer", "devcontainer.json")
"""Ce que GitHub Codespaces lit ; Binder, lui, se contente d'environment.yml."""
PYTHON = "3.11"
"""Le Python des deux (environment.yml)."""
EDITABLE = "-e .[lab,enseignant]"
"""Comment environment.yml installe le dépôt ; chez l'étudiant, la roue en prend la place."""


def publish(root: Path, to: Path, solved: Sequence[str] = ()) -> list[Path]:
    """Écrit le dossier des étudiants dans `to`, et les corrigés des chapitres `solved`. Rend ses fichiers.

    Lève `UserError` si une réponse d'un autre chapitre y est passée, ou si un chapitre n'existe pas.
    """
    if missing := [name for name in (*BESIDE, *CARRIED) if not (root / name).exists()]:
        raise UserError(f"Il manque à la racine du cours\u00a0: {', '.join(missing)}.")
    check_target(root, to)
    known = chapter_names(root)
    if unknown := [name for name in solved if name not in known]:
        raise UserError(f"Chapitre inconnu\u00a0: {', '.join(unknown)}. Chapitres écrits\u00a0: {', '.join(known)}.")
    secrets = secret_lines(load_chapter(name, root) for name in known if name not in solved)
    if not list((root / "notebooks").glob("*.ipynb")):
        raise UserError("notebooks/ est vide\u00a0: construisez d'abord les carnets (python -m grader build).")
    name, data = wheel(root)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        carried = {Path(inside): packed.read(inside) for inside in packed.namelist()}
    present = [name for name in (*BESIDE, *OPTIONAL) if (root / name).exists()]
    beside = {path: (root / path).read_bytes() for name in present for path in files_under(root, name)}
    beside |= {Path(SOLVED, f"{name}.ipynb"): solved_notebook(root, name) for name in solved}
    if found := [leak for path, content in (beside | carried).items() for leak in leaks(path, content, secrets)]:
        shown = "\n".join(f"  {text}" for text in found[:20])
        more = f"\n  … et {len(found) - 20} autres" if len(found) > 20 else ""
        raise UserError(f"Rien n'a été publié\u00a0: des réponses s'y trouveraient.\n{shown}{more}")
    files = {Path(name): data} | beside
    recipe = Path("environment.yml")
    files[recipe] = files[recipe].replace(EDITABLE.encode(), f"./{name}[lab]".encode())
    files[CODESPACES] = devcontainer()
    to.mkdir(parents=True, exist_ok=True)
    ours = (*BESIDE, *CARRIED, *OPTIONAL, SOLVED, CODESPACES.parent, "pyproject.toml")
    for old in (*(to / name for name in ours), *to.glob("atelier-*.whl")):
        remove(old)  # les publications d'avant, aussi, qui n'avaient pas de roue
    for path, content in files.items():
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return sorted(files)


def devcontainer() -> bytes:
    """La recette d'un espace Codespaces : la commande du README, et le noyau qu'elle a préparé."""
    settings = {"python.defaultInterpreterPath": "${containerWorkspaceFolder}/.venv/bin/python"}
    tools = {"extensions": ["ms-python.python", "ms-toolsai.jupyter"], "settings": settings}
    recipe = {
        "name": paths.course()["title"],
        "image": f"mcr.microsoft.com/devcontainers/python:{PYTHON}",
        "postCreateCommand": "python3 cours.py --no-open",
        "hostRequirements": {"cpus": 2, "memory": "8gb", "storage": "32gb"},
        "customizations": {"vscode": tools},
    }
    return (json.dumps(recipe, ensure_ascii=False, indent=2) + "\n").encode()


def solved_notebook(root: Path, name: str) -> bytes:
    """Le carnet résolu d'un chapitre, sans ce qui sert à le construire et à le noter."""
    notebook = json.loads((root / "solutions" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"].pop("nbgrader", None)
        if cell["cell_type"] == "code":
            cell["source"] = [line for line in cell["source"] if not MARKER.search(line)]
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()


def wheel(root: Path) -> tuple[str, bytes]:
    """La roue du cours de ce dossier : son nom, ses octets ; la même source donne les mêmes octets."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = map(Path, WheelBuilder(str(root)).build(directory=folder, versions=["standard"]))
        return path.name, path.read_bytes()


def files_under(root: Path, name: str) -> Iterator[Path]:
    """Un fichier, ou tous ceux d'un dossier, relatifs à `root` ; ni liens, ni fichiers de passage."""
    top = root / name
    for path in [top] if top.is_file() else sorted(top.rglob("*")):
        relative = path.relative_to(root)
        skipped = any(Path(part).match(pattern) for part in relative.parts for pattern in PASSING)
        if not skipped and path.is_file() and not path.is_symlink():
            yield relative


def check_target(root: Path, to: Path) -> None:
    """Refuse d'écraser autre chose qu'une publication, un dépôt ou un dossier vide."""
    if to.resolve() == root.resolve() or root.resolve() in to.resolve().parents and (to / "cours.py").exists():
        raise UserError(f"{to} est dans le dépôt du cours\u00a0: choisissez un dossier à part.")
    if to.is_file():
        raise UserError(f"{to} est un fichier\u00a0: donnez un dossier.")
    known = ("cours.py", ".git")
    if to.is_dir() and any(to.iterdir()) and not any((to / name).exists() for name in known):
        raise UserError(f"{to} contient autre chose qu'une publication du cours\u00a0: choisissez un dossier vide.")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def leaks(path: Path, content: bytes, secrets: dict[str, str]) -> Iterator[str]:
    """Ce qui, dans un fichier, n'a pas à être chez l'étudiant. secrets : voir `secret_lines`."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix == ".ipynb":
        text = "\n".join(notebook_text(text))
        if found := LEAK.search(text):
            yield f"{path}\u00a0: le mot «\u00a0{found[0]}\u00a0»"
    elif path.suffix == ".py":
        yield from (f"{path}\u00a0: importe {name}" for name in forbidden_imports(text))
    for line in dict.fromkeys(line.strip() for line in text.splitlines()):
        if owner := secrets.get(line):
            yield f"{path}\u00a0: une ligne de la solution de {owner} («\u00a0{line[:60]}\u00a0»)"


def notebook_text(text: str) -> Iterator[str]:
    """Cellules et sorties d'un carnet, en lignes."""
    for cell in json.loads(text)["cells"]:
        yield "".join(cell["source"])
        yield from ("".join(o.get("text", "")) for o in cell.get("outputs", []))


def forbidden_imports(text: str) -> Iterator[str]:
    """Les imports de `grader` ou de `solutions`."""
    for node in ast.walk(ast.parse(text)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] in ("grader", "solutions"))
