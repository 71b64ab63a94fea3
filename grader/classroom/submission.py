"""Lire la copie d'un étudiant comme une donnée, la rapprocher du carnet publié, dire ce qui doit être exécuté.

Une copie peut avoir perdu ses métadonnées, ses cellules ou sa forme. `read_notebook` ne garde que ce qui est compris ;
`repair` rend à nbgrader les cellules notées et remet celles qui manquent ; `plan` dit ce qui s'exécute. Règles :
- ce qui est noté est ce que les cellules de code, de haut en bas, laissent sous le nom de l'exercice : l'exécution en
  décide (`grader.jail.inside.cells`), jamais le texte ; une cellule de texte, ou brute, n'est pas exécutée, donc pas
  notée ;
- pour nbgrader, la cellule de réponse est celle qui a l'identifiant et n'est plus l'énoncé ; à défaut, une qui semble
  définir le nom demandé ; de plusieurs, la dernière ;
- les cellules de vérification et les cellules verrouillées sont celles du carnet publié ; ce qu'un étudiant y a écrit
  est gardé dans une cellule à part, juste avant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from atelier.judging.codec import STRING
from grader.classroom.display import harmless
from grader.jail.outside.dialogue import CodeCell, shown

MAX_FILE_BYTES = 100 * 1024 * 1024
MAX_CELLS = 2000
MAX_TREE = 400 * 1024 * 1024
"""Octets qu'un fichier occuperait une fois lu, d'après le compte de ses listes, dictionnaires et valeurs."""
MAX_SOURCE = 200_000
MAX_TEXT = 20_000
"""Caractères d'une cellule de texte, que nbgrader mettra en page (certains Markdown s'y lisent en temps carré)."""
MAX_SOURCES = 2_000_000
"""Caractères de toutes les cellules d'un carnet."""
MAX_OUTPUT_TEXT = 20_000
MAX_IMAGE = 1_000_000
MAX_PASTED = 4_000_000
"""Caractères d'une image collée dans un texte (une photo de trois mégaoctets)."""
MAX_OUTPUTS = 20
MAX_NOTEBOOK_OUTPUTS = 12_000_000
KEPT_MIMES = ("text/plain", "image/png", "image/jpeg")
"""Sorties gardées dans la copie corrigée. Ni HTML ni script : l'enseignant ouvre ces pages."""

KEY = "atelier"
"""Clé, dans les métadonnées du carnet corrigé, de ce que la correction y écrit."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Unreadable(Exception):
    """La copie ne peut pas être lue. Le texte est la raison, en français, montrée à l'étudiant."""


# ---------------------------------------------------------------------------------------------- lire


def read_file(path: Path) -> NotebookNode:
    """Lit une copie sur disque ; `Unreadable` si ce n'est pas un carnet."""
    return read_notebook(read_data(path))


def read_data(path: Path) -> bytes:
    """Les octets d'une copie sur disque ; `Unreadable` si ce n'est pas un fichier ordinaire, ou s'il est démesuré."""
    if path.is_symlink() or not path.is_file():
        raise Unreadable("ce n'est pas un fichier ordinaire")
    if path.stat().st_size > MAX_FILE_BYTES:
        size = path.stat().st_size // 1024**2
        raise Unreadable(
            f"le fichier pèse {size}\u00a0Mo, la limite est de {MAX_FILE_BYTES // 1024**2}\u00a0Mo\u00a0: "
            "effacez les sorties (menu Édition) puis rendez-le de nouveau"
        )
    return path.read_bytes()


def read_notebook(data: bytes, pictures: bool = False) -> NotebookNode:
    """Octets → carnet propre au format 4.5, réduit à ce qui est compris ; `Unreadable` sinon.

    pictures : garder aussi les images collées dans un texte, et celles de `atelier.show` : qui note à la main regarde.
    """
    cells = raw_cells(read_json(data))
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"le carnet a {len(cells)} cellules, la limite est de {MAX_CELLS}")
    for cached in (plain, definitions):
        cached.cache_clear()  # une copie ne laisse rien à la suivante
    notebook = new_notebook()
    total = 0
    budget = MAX_NOTEBOOK_OUTPUTS
    for raw in cells:
        cell = clean_cell(raw)
        if cell is None:
            continue
        total += len(cell.source)
        if total > MAX_SOURCES:
            raise Unreadable(
                f"les cellules du carnet contiennent plus de {MAX_SOURCES // 10**6} millions de caractères"
            )
        found = [cell]
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(raw.get("outputs"), pictures)
        elif pictures and (pasted := pasted_pictures(raw.get("attachments"))):
            found.append(NotebookNode(cell_type="code", id="", metadata={}, source="", outputs=pasted))
            found[-1].execution_count = None
        for kept in found:
            size = sum(len(str(o)) for o in kept.get("outputs", ()))
            if size > budget:
                kept.outputs = []
            budget -= size if size <= budget else 0
            kept.id = f"copie-{len(notebook.cells)}"
            notebook.cells.append(kept)
    return notebook


def read_json(data: bytes) -> Any:
    """Octets → ce que dit leur JSON, compté avant d'être lu ; `Unreadable` sinon."""
    if not data.strip(b" \t\r\n\0"):
        raise Unreadable("le fichier est vide")
    try:
        text = decode_text(data)
        if 110 * len(text) > MAX_TREE and tree_size(text) > MAX_TREE:
            raise Unreadable(
                "le fichier contient trop de valeurs pour être lu\u00a0: effacez les sorties (menu Édition) puis "
                "rendez-le de nouveau"
            )
        return json.loads(text)
    except RecursionError:
        raise Unreadable("le fichier est imbriqué sans fin, ce n'est pas un carnet") from None
    except ValueError as error:
        where = f" (ligne {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(f"le fichier est abîmé ou coupé{where}\u00a0: Jupyter ne pourrait pas l'ouvrir") from None


def tree_size(text: str) -> int:
    """Octets qu'occuperaient les objets d'un texte JSON, chaînes non comptées ; majorés, d'un trait, sans le lire."""
    bare = STRING.sub("", text)
    return sum(size * bare.count(mark) for mark, size in (("[", 100), ("{", 250), (",", 60), (":", 60)))


def decode_text(data: bytes) -> str:
    """Texte du fichier, quel que soit l'encodage où un éditeur l'a enregistré."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if data[:4].count(0) >= 1:
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def raw_cells(tree: Any) -> list[dict[str, Any]]:
    """Les cellules d'un carnet au format 4, ou 3 (rangées dans des « worksheets »)."""
    if not isinstance(tree, dict):
        raise Unreadable("le fichier n'est pas un carnet Jupyter")
    cells = tree.get("cells")
    if cells is None and isinstance(tree.get("worksheets"), list):
        sheets = [s.get("cells") for s in tree["worksheets"] if isinstance(s, dict)]
        cells = [c for sheet in sheets if isinstance(sheet, list) for c in sheet]
    if not isinstance(cells, list):
        raise Unreadable("le fichier n'est pas un carnet Jupyter\u00a0: il ne contient aucune cellule")
    return [c for c in cells if isinstance(c, dict)]


def clean_cell(raw: dict[str, Any]) -> NotebookNode | None:
    """Une cellule neuve : son genre, son texte, son identifiant nbgrader. Rien d'autre de la copie ne survit."""
    kind = raw.get("cell_type")
    source = raw.get("source", raw.get("input", ""))
    if isinstance(source, list):
        source = "".join(x for x in source if isinstance(x, str))
    if not isinstance(source, str):
        source = ""
    if len(source) > MAX_SOURCE:
        source = source[:1000] + "\n# … cellule de plus de 200 000 caractères, coupée à la correction"
    if kind != "code" and len(source) > MAX_TEXT:
        source = source[:MAX_TEXT] + "\n… texte de plus de 20 000 caractères, coupé à la correction"
    source = source.encode("utf-8", errors="replace").decode("utf-8")
    kind = "markdown" if kind == "heading" else kind
    if kind not in ("code", "markdown", "raw"):
        return None
    source = source.replace("\x00", "")
    cell = NotebookNode(cell_type=kind, id="", metadata=NotebookNode(), source=source)
    if kind == "code":
        cell.update(outputs=[], execution_count=None)
    metadata = raw.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    if isinstance(grade_id, str) and _ID.fullmatch(grade_id):
        cell.metadata["nbgrader"] = NotebookNode(grade_id=grade_id)
    return cell


def clean_outputs(raw: Any, pictures: bool = False) -> list[NotebookNode]:
    """Les sorties d'une cellule, en texte et en images, bornées. pictures : celles de `atelier.show` aussi."""
    kept = []
    for output in raw[:MAX_OUTPUTS] if isinstance(raw, list) else []:
        if not isinstance(output, dict):
            continue
        kind = output.get("output_type")
        if kind == "stream" and (text := joined(output.get("text"))):
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            kept.append(NotebookNode(output_type="stream", name=name, text=text))
        elif kind == "error":
            lines = output.get("traceback")
            lines = [joined(x) for x in lines[-20:]] if isinstance(lines, list) else []
            name, value = joined(output.get("ename")), joined(output.get("evalue"))
            kept.append(NotebookNode(output_type="error", ename=name, evalue=value, traceback=lines))
        elif kind in ("display_data", "execute_result") and isinstance(output.get("data"), dict):
            data = {mime: clean_data(mime, output["data"].get(mime)) for mime in KEPT_MIMES}
            if pictures and (figure := _SHOWN.match(joined_lines(output["data"].get("text/html")))):
                data["image/png"] = data["image/png"] or clean_data("image/png", figure[1])
            if data := {mime: value for mime, value in data.items() if value}:
                kept.append(NotebookNode(output_type="display_data", data=NotebookNode(data), metadata=NotebookNode()))
    return kept


_SHOWN = re.compile(r'<img alt="[^"]{0,20000}" src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
"""Ce que `atelier.show` écrit."""


def joined_lines(value: Any) -> str:
    """Un texte donné d'un bloc ou par lignes ; "" si ce n'en est pas un."""
    text = "".join(value) if isinstance(value, list) and all(isinstance(x, str) for x in value) else value
    return text if isinstance(text, str) else ""


def pasted_pictures(raw: Any) -> list[NotebookNode]:
    """Les images collées dans une cellule de texte (ses « attachments »), en sorties ; ce qui manque est dit."""
    kept = []
    for name, data in list(raw.items())[:MAX_OUTPUTS] if isinstance(raw, dict) else []:
        found = {m: clean_data(m, data.get(m), MAX_PASTED) for m in KEPT_MIMES[1:]} if isinstance(data, dict) else {}
        if found := {mime: value for mime, value in found.items() if value}:
            kept.append(NotebookNode(output_type="display_data", data=NotebookNode(found), metadata=NotebookNode()))
        else:
            text = f"[image {shown(str(name), 60)} : ni PNG ni JPEG, ou trop lourde ; elle est dans la copie rendue]"
            kept.append(NotebookNode(output_type="stream", name="stdout", text=f"{text}\n"))
    return kept


def clean_data(mime: str, value: Any, limit: int = MAX_IMAGE) -> str:
    if mime == "text/plain":
        return joined(value)
    text = joined_lines(value)
    return text if len(text) <= limit and re.fullmatch(r"[A-Za-z0-9+/=\s]*", text) else ""


def joined(value: Any) -> str:
    """Texte d'une sortie (chaîne ou liste de chaînes), borné et encodable."""
    text = "".join(part for part in value if isinstance(part, str)) if isinstance(value, list) else value
    if not isinstance(text, str):
        return ""
    if len(text) > MAX_OUTPUT_TEXT:
        text = text[:MAX_OUTPUT_TEXT] + "\n… sortie coupée à la correction …"
    return text.encode("utf-8", errors="replace").decode("utf-8")


# ---------------------------------------------------------------------------------------------- carnet publié


@dataclass(frozen=True)
class TemplateCell:
    """Une cellule du carnet publié. role : solution, test, task (notée à la main), locked, setup ou other."""

    index: int
    role: str
    cell_type: str
    source: str
    grade_id: str
    exercise: str
    node: NotebookNode


@dataclass
class Template:
    """Le carnet tel que les étudiants le reçoivent : ce à quoi une copie est comparée."""

    name: str
    notebook: NotebookNode
    cells: list[TemplateCell] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, notebook: NotebookNode, exercises: Iterable[str]) -> Template:
        """Range les cellules de `notebook` ; `exercises` : les identifiants que le chapitre déclare."""
        known = set(exercises)
        cells = []
        for index, node in enumerate(notebook.cells):
            meta = node.metadata.get("nbgrader", {})
            grade_id = meta.get("grade_id", "")
            exercise = ""
            if meta.get("grade") and grade_id.removeprefix("test_") in known:
                role, exercise = "test", grade_id.removeprefix("test_")
            elif meta.get("solution") and grade_id in known:
                role, exercise = "solution", grade_id
            elif meta.get("task"):
                role = "task"
            elif grade_id:
                role = "locked"
            else:
                role = "setup" if "setup" in node.metadata.get("tags", []) and node.cell_type == "code" else "other"
            cells.append(TemplateCell(index, role, node.cell_type, node.source, grade_id, exercise, node))
        return cls(name, notebook, cells)

    @classmethod
    def read(cls, path: Path, exercises: Iterable[str]) -> Template:
        return cls.of(path.stem, nbformat.read(path, as_version=4), exercises)

    @property
    def tasks(self) -> dict[str, float]:
        """Ce qui se note à la main : identifiant → points."""
        return {c.grade_id: float(c.node.metadata["nbgrader"]["points"]) for c in self.cells if c.role == "task"}

    @property
    def graded(self) -> list[TemplateCell]:
        """Les cellules que nbgrader connaît, dans l'ordre."""
        return [c for c in self.cells if c.grade_id]

    def blank(self) -> NotebookNode:
        """Un carnet neuf, jamais rempli."""
        return nbformat.from_dict(json.loads(json.dumps(self.notebook)))


@lru_cache(maxsize=2 * MAX_CELLS)
def plain(source: str) -> str:
    """Le texte d'une cellule sans ses blancs de fin : deux cellules de même texte sont la même."""
    return "\n".join(line.rstrip() for line in source.replace("\r\n", "\n").strip().split("\n"))


_DEFINED = re.compile(
    r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)"  # même sous un `if` ou un `try`
    r"|^(\w+(?:[ \t]*,[ \t]*\w+)*)[ \t]*(?::[^=\n]*)?=(?!=)"
    r"|\b(?:import|as)[ \t]+(\w+)",
    re.MULTILINE,
)


def defines(source: str, name: str) -> bool:
    """Vrai si la cellule semble donner ce nom. Une présomption, lue sans rien exécuter ni analyser."""
    return name in source and name in definitions(source)


@lru_cache(maxsize=2 * MAX_CELLS)
def definitions(source: str) -> frozenset[str]:
    """Les noms qu'une cellule semble donner."""
    found = (name for groups in _DEFINED.findall(source) for part in groups for name in part.split(","))
    return frozenset(name.strip() for name in found)


# ---------------------------------------------------------------------------------------------- réparer

Notes = dict[str, list[str]]
"""Exercice (ou "") → ce qui a été réparé, en français."""


def repair(notebook: NotebookNode, template: Template) -> tuple[NotebookNode, Notes]:
    """Rend à la copie ses cellules notées : une de chaque, avec les métadonnées du carnet publié."""
    notes: Notes = {}
    matched: dict[str, int] = {}
    owners = [claimed(cell) for cell in notebook.cells]
    for wanted in template.graded:
        index = find_cell(notebook, owners, wanted, template, notes, set(matched.values()))
        if index is not None:
            matched[wanted.grade_id] = index
    chosen = set(matched.values())
    for index, cell in enumerate(notebook.cells):
        if index not in chosen:
            cell.metadata.pop("nbgrader", None)
    placed = {grade_id: notebook.cells[index] for grade_id, index in matched.items()}
    for wanted in template.graded:
        if wanted.grade_id in placed:
            keep_aside(notebook, placed[wanted.grade_id], wanted)
            adopt(placed[wanted.grade_id], wanted)
    insert_missing(notebook, template, placed, notes)
    published = {plain(c.source) for c in template.cells}
    for cell in notebook.cells:
        if cell.cell_type != "code" and plain(cell.source) not in published:
            cell.cell_type, cell.source = "markdown", harmless(cell.source)
    notebook.metadata = NotebookNode(
        {k: v for k, v in template.notebook.metadata.items() if k in ("kernelspec", "language_info")}
    )
    return notebook, notes


def find_cell(
    notebook: NotebookNode,
    owners: Sequence[str],
    wanted: TemplateCell,
    template: Template,
    notes: Notes,
    taken: Set[int] = frozenset(),
) -> int | None:
    """Le rang, dans la copie, de la cellule qui correspond le mieux à `wanted`.

    owners : ce que chacune dit être. taken : celles qui correspondent déjà à une autre.
    """
    if wanted.role != "solution":
        found = [i for i, owner in enumerate(owners) if owner == wanted.grade_id]
        if not found:
            text = plain(wanted.source)
            found = [i for i, c in enumerate(notebook.cells) if not owners[i] and plain(c.source) == text]
        return found[-1] if found else None

    name = wanted.exercise
    exercises = {c.exercise for c in template.cells if c.role == "solution"}
    candidates, texts = [], []
    for i, (owner, cell) in enumerate(zip(owners, notebook.cells, strict=True)):
        if i in taken:
            continue
        defined = defines(cell.source, name)
        elsewhere = owner in exercises and owner != name and defines(cell.source, owner)
        if owner == name or (defined and not elsewhere and not owner.startswith("test_")):
            written = plain(cell.source) != plain(wanted.source) and (defined or (owner == name and has_code(cell)))
            if cell.cell_type == "code":
                candidates.append((written, owner == name, defined, i))
            elif written:
                texts.append(i)
    best = max(candidates, default=(False, False, False, -1))
    if texts and not best[0]:
        note(notes, name, TEXT_CELL)
    if not candidates:
        return None
    index = best[3]
    claims = sum(owners[i] == name for *_, i in candidates)
    if owners[index] != name:
        note(notes, name, MOVED if claims else UNNAMED)
    elif claims > 1:
        note(notes, name, SEVERAL)
    return index


TEXT_CELL = (
    "sa cellule n'était plus une cellule de code\u00a0: Jupyter n'exécute pas une cellule de texte (Markdown), ni une "
    "cellule brute, elle n'est donc pas notée. Remettez-la en code (touche Y), puis rendez de nouveau le carnet."
)
UNNAMED = "sa cellule avait perdu son identifiant\u202f; elle a été retrouvée par le nom qu'elle définit."
MOVED = "sa cellule est restée celle de l'énoncé\u202f; la réponse est dans une autre cellule, qui définit ce nom."
SEVERAL = (
    "plusieurs cellules portaient cet identifiant\u202f; est noté ce que laisse l'exécution du carnet de haut en bas."
)


def has_code(cell: NotebookNode) -> bool:
    """Vrai si la cellule contient autre chose que des blancs et des commentaires."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in cell.source.split("\n"))


def claimed(cell: NotebookNode) -> str:
    """L'identifiant nbgrader que la copie donne à cette cellule, ou ""."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def note(notes: Notes, exercise: str, text: str) -> None:
    notes.setdefault(exercise, []).append(shown(text, 500))


def notes_text(notes: Notes) -> list[str]:
    """Les remarques d'une copie, une par ligne ; celles de toute la copie (clé "") ne nomment pas d'exercice."""
    return [f"{id}\u00a0: {text}" if id else text for id, texts in notes.items() for text in texts]


def adopt(cell: NotebookNode, wanted: TemplateCell) -> None:
    """Donne à la cellule les métadonnées et le genre du carnet publié ; son texte aussi, sauf pour une réponse."""
    cell.metadata = NotebookNode(json.loads(json.dumps(wanted.node.metadata)))
    if cell.cell_type != wanted.cell_type:
        cell.cell_type = wanted.cell_type
        for key in ("outputs", "execution_count", "attachments"):
            cell.pop(key, None)
        if wanted.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    if wanted.role != "solution":
        cell.source = wanted.source


def keep_aside(notebook: NotebookNode, cell: NotebookNode, wanted: TemplateCell) -> None:
    """Garde, juste avant une cellule verrouillée, ce que l'étudiant y a écrit : cela compte comme le reste."""
    if wanted.role == "solution" or cell.cell_type == "raw" or cell.cell_type != wanted.cell_type:
        return
    if plain(cell.source) not in ("", plain(wanted.source)):
        at = next(i for i, c in enumerate(notebook.cells) if c is cell)
        new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        aside = new(cell.source)
        aside.id = f"a-part-{wanted.index}"
        notebook.cells.insert(at, aside)


def insert_missing(notebook: NotebookNode, template: Template, placed: dict[str, NotebookNode], notes: Notes) -> None:
    """Remet les cellules notées absentes, chacune après la cellule notée qui la précède dans le carnet publié."""
    previous: NotebookNode | None = None
    for wanted in template.graded:
        cell = placed.get(wanted.grade_id)
        if cell is None:
            cell = nbformat.from_dict(json.loads(json.dumps(wanted.node)))
            cell.id = f"remise-{wanted.index}"
            if cell.cell_type == "code":
                cell.outputs = []
            at = 0 if previous is None else 1 + next(i for i, c in enumerate(notebook.cells) if c is previous)
            notebook.cells.insert(at, cell)
            placed[wanted.grade_id] = cell
            if wanted.role == "solution" and wanted.exercise not in notes:
                note(notes, wanted.exercise, "sa cellule n'était plus dans la copie\u202f; elle y a été remise, vide.")
        previous = cell


# ---------------------------------------------------------------------------------------------- exécuter


@dataclass
class Plan:
    """Ce qu'il faut exécuter d'une copie réparée. `answers` : exercice → cellule de réponse ; absent si non faite."""

    cells: list[CodeCell]
    answers: dict[str, CodeCell]


def plan(notebook: NotebookNode, template: Template) -> Plan:
    """Cellules de préparation de l'auteur, réponses, cellules ajoutées ou changées : le reste n'est pas exécuté."""
    setups = [c for c in template.cells if c.role == "setup"]
    position = {c.grade_id: c for c in template.graded}
    by_text = {plain(c.source): c for c in template.cells if c.cell_type == "code"}
    result = Plan([], {})

    def prepare(before: int) -> None:
        while setups and setups[0].index <= before:
            setup = setups.pop(0)
            result.cells.append(CodeCell(f"preparation-{setup.index}", setup.source, "setup"))

    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        known = position.get(claimed(cell)) or by_text.get(plain(cell.source))
        if known is not None:
            prepare(known.index)
        if known is None:
            result.cells.append(CodeCell(cell.id, cell.source, "extra"))
        elif known.role == "solution" and claimed(cell) == known.grade_id:
            if plain(cell.source) != plain(known.source):
                answer = CodeCell(cell.id, cell.source, "solution", known.exercise)
                result.cells.append(answer)
                result.answers[known.exercise] = answer
    prepare(len(template.cells))
    return result
