"""`publish` : le dossier que reçoivent les étudiants, et la preuve qu'il ne contient aucune réponse."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from grader import UserError
from grader.authoring.chapters import Chapter, chapter_names, load_chapter
from grader.authoring.rules import LEAK, distinctive_lines

REQUIRED = (
    *("notebooks", "atelier", "assets", "cours.py", "course.toml", "constraints.txt", "pyproject.toml"),
    *("environment.yml", "README.md", "LICENSE"),
)
OPTIONAL = ("AGENTS.md",)
SKIP = ("__pycache__", "*.pyc", ".ipynb_checkpoints", ".atelier", "*.tmp", "virtual_documents")


def publish(root: Path, to: Path) -> list[Path]:
    """Écrit le dossier des étudiants dans `to`. Rend ses fichiers ; lève `UserError` si une réponse y est passée."""
    if missing := [name for name in REQUIRED if not (root / name).exists()]:
        raise UserError(f"Il manque à la racine du cours\u00a0: {', '.join(missing)}.")
    check_target(root, to)
    files = sorted(bundle_files(root))
    chapters = [load_chapter(name, root) for name in chapter_names(root)]
    if not list((root / "notebooks").glob("*.ipynb")):
        raise UserError("notebooks/ est vide\u00a0: construisez d'abord les carnets (python -m grader build).")
    if found := [leak for path in files for leak in leaks(root, path, chapters)]:
        shown = "\n".join(f"  {text}" for text in found[:20])
        more = f"\n  … et {len(found) - 20} autres" if len(found) > 20 else ""
        raise UserError(f"Rien n'a été publié\u00a0: des réponses s'y trouveraient.\n{shown}{more}")
    to.mkdir(parents=True, exist_ok=True)
    for name in (*REQUIRED, *OPTIONAL):
        remove(to / name)
    for path in files:
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
    return files


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


def bundle_files(root: Path) -> Iterator[Path]:
    """Chemins relatifs de ce qui est publié."""
    for name in (*REQUIRED, *OPTIONAL):
        top = root / name
        found = [top] if top.is_file() else sorted(top.rglob("*")) if top.is_dir() else []
        for path in found:
            relative = path.relative_to(root)
            skipped = any(Path(part).match(pattern) for part in relative.parts for pattern in SKIP)
            if skipped or not path.is_file() or path.is_symlink():
                continue
            yield relative


def leaks(root: Path, path: Path, chapters: list[Chapter]) -> Iterator[str]:
    """Ce qui, dans un fichier, n'a pas à être chez l'étudiant."""
    try:
        text = (root / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix == ".ipynb":
        text = "\n".join(notebook_text(text))
        if found := LEAK.search(text):
            yield f"{path}\u00a0: le mot «\u00a0{found[0]}\u00a0»"
    elif path.suffix == ".py":
        yield from (f"{path}\u00a0: importe {name}" for name in forbidden_imports(text))
    lines = {line.strip() for line in text.splitlines()}
    for chapter in chapters:
        for id, source in chapter.sources.items():
            for line in distinctive_lines(source):
                if line in lines:
                    yield f"{path}\u00a0: une ligne de la solution de {id} («\u00a0{line[:60]}\u00a0»)"


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
