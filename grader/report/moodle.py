"""Les notes pour Moodle : sa feuille d'évaluation, lue comme un tableur l'a laissée, rendue comme Moodle la veut.

Relu dans le code de Moodle (mod/assign/feedback/offline) : trois colonnes sont exigées, reconnues mot à mot dans la
langue de l'enseignant (en français « Identifiant », « Note », « Dernière modification (note) ») ; l'identifiant est
« Participant » suivi du numéro. L'import attend par défaut de l'UTF-8 et des virgules (les anciens Moodle ne prennent
rien d'autre), autant de cellules à chaque ligne, et saute sans le dire une note au-dessus du maximum. Le signe décimal
est celui de la langue : « 12,50 » lu par un Moodle anglais vaudrait 12.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from atelier import paths
from atelier.text import NBSP, legible, read_number
from grader import UserError
from grader.report.analysis import Row, Sheet

COLUMNS = ("Identifiant", "Nom complet", "Note", "Note maximale", "Dernière modification (note)")
"""En-têtes d'une feuille d'évaluation de Moodle en français : les trois que l'import exige (Identifiant, Note, Dernière
modification) et deux pour qui la lit."""
NAMES = {
    "id": ("identifiant", "identifier"),
    "grade": ("note", "grade"),
    "name": ("nom complet", "full name"),
    "email": ("adresse de courriel", "adresse e-mail", "courriel", "email address", "email"),
    "max": ("note maximale", "maximum grade"),
    "comment": ("feedback par commentaires", "feedback comments"),
}
"""Colonne → ses noms, en français puis en anglais, sans accent ni majuscule."""
ENCODINGS = ("utf-8-sig", "cp1252", "mac_roman", "cp850")
"""Ce qu'un tableur écrit : « CSV UTF-8 », « CSV » sous Windows, sous macOS, « CSV (MS-DOS) »."""
ACCENTED = "àâçéèêëîïôöùûüœ"
DELIMITERS = (",", ";", "\t")


def decimal(value: float | None, comma: bool = True) -> str:
    """Nombre qu'un tableur relit : deux décimales, ni milliers séparés ni « − » ; vide s'il n'y en a pas."""
    return "" if value is None else f"{value:.2f}".replace(".", "," if comma else ".")


def safe(text: str) -> str:
    """Texte qu'un tableur ne prendra pas pour une formule, même large (« ＝ »), même derrière des blancs invisibles."""
    text = legible(text).replace("\ufffd", "")
    return "'" + text if unicodedata.normalize("NFKC", text.lstrip()[:1]) in ("=", "+", "-", "@") else text


def render_csv(rows: Iterable[Iterable[str]], delimiter: str) -> bytes:
    """CSV en UTF-8 avec sa marque, pour que les tableurs lisent les accents."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def mark_within(sheet: Sheet, row: Row, maximum: float) -> float:
    """La note d'une copie sur `maximum`, jamais au-dessus : Moodle sauterait la ligne sans le dire."""
    share = (row.score or 0.0) / sheet.max_score if sheet.max_score else 0.0
    return min(maximum, round(maximum * share, 2))


def beyond(sheet: Sheet, row: Row) -> bool:
    """Vrai si un bonus met cette copie au-dessus du barème."""
    return (row.score or 0.0) > sheet.max_score + 1e-9


def moodle_csv(sheet: Sheet, numbers: Mapping[str, Mapping[str, str]]) -> bytes:
    """Feuille d'évaluation pour Moodle en français : « Participant4711 », note à virgule entre guillemets.

    Qui n'a rien rendu y est, sans note : Moodle saute sa ligne.
    """
    out_of = float(paths.course()["mark_out_of"])
    rows: list[list[str]] = [list(COLUMNS)]
    for row in sheet.rows:
        if person := numbers.get(row.student):
            id, name = f"Participant{person['number']}", safe(person["name"])
            mark = None if sheet.mark(row) is None else mark_within(sheet, row, out_of)
            rows.append([id, name, decimal(mark), decimal(out_of), "-"])
    return render_csv(rows, ",")


def feedback_zip(pages: Mapping[tuple[str, str], bytes]) -> bytes:
    """Les retours, pour « Téléverser plusieurs fichiers de feedback dans un zip ». pages : (numéro, nom) → page HTML.

    Relu dans le code de Moodle (mod/assign/feedback/file/importziplib) : à chacun son dossier,
    « nom_numéro_assignsubmission_file_ » ; aucun « _ » dans le nom. Mêmes pages, mêmes octets.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for (number, name), page in sorted(pages.items()):
            label = " ".join(re.sub(r'[_/\\:*?"<>|.~]', " ", legible(name)).split()) or "Participant"
            info = zipfile.ZipInfo(f"{label}_{number}_assignsubmission_file_/retour.html")
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, page)
    return out.getvalue()


def comment_of(row: Row) -> str:
    """Ce que « Feedback par commentaires » dit d'une copie : ce qui a manqué, exercice par exercice."""
    if row.refused:
        return f"Copie refusée{NBSP}: {row.refused}."
    lost = [
        f"{id}{NBSP}: {decimal(row.scores.get(id, 0.0))} sur {decimal(result.max_score)}. "
        f"{'' if result.verdict == 'manual' and id not in row.pending else result.message}".rstrip()
        for id, result in row.results.items()
        if row.scores.get(id, 0.0) < result.max_score and not (result.verdict == "missing" and id not in row.scores)
    ]
    late = [f"Retard{NBSP}: {decimal(row.penalty)} de moins."] if row.penalty else []
    return " — ".join([*lost, *late]) or "Tous les exercices passent."


# ---------------------------------------------------------------------------------------------- lire une feuille


def plain(text: str) -> str:
    """Un texte à comparer : sans accent, sans majuscule, blancs réduits."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split())


@dataclass
class Worksheet:
    """Une feuille d'évaluation. columns : ce qui est reconnu → son rang."""

    rows: list[list[str]]
    columns: dict[str, int]

    def cell(self, row: list[str], column: str) -> str:
        return row[self.columns[column]].strip() if column in self.columns else ""

    def number(self, row: list[str]) -> str:
        """Le numéro du participant, sans « Participant »."""
        found = re.search(r"\d+$", self.cell(row, "id"))
        return found[0] if found else ""

    @property
    def people(self) -> list[list[str]]:
        return self.rows[1:]

    @cached_property
    def comma(self) -> bool:
        """Vrai si ses nombres ont une virgule décimale : d'après ceux qu'elle contient, sinon d'après sa langue."""
        written = [self.cell(row, column) for row in self.people for column in ("max", "grade")]
        marks = Counter(found[1] for text in written if (found := re.fullmatch(r"\d+([.,])\d+", text)))
        if marks[","] != marks["."]:
            return marks[","] > marks["."]
        return plain(self.rows[0][self.columns["id"]]) == NAMES["id"][0]

    def maximum(self, row: list[str], default: float) -> float:
        """La note maximale que Moodle donne à cette ligne."""
        text = self.cell(row, "max")
        found = read_number(text) if re.fullmatch(r"\d+([.,]\d+)?", text) else 0.0
        return found if found > 0 else default


def read_worksheet(path: Path) -> Worksheet:
    """Lit une feuille, telle que Moodle la donne ou qu'un tableur l'enregistre ; `UserError` si ce n'en est pas une."""
    data = path.read_bytes()
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise UserError(f"{path} est un classeur. Dans le tableur, enregistrez-le au format CSV, puis recommencez.")
    text = decode(data)
    for delimiter in DELIMITERS:
        if sheet := parse(text, delimiter):
            return sheet
    raise UserError(
        f"{path} n'est pas une feuille d'évaluation de Moodle{NBSP}: il y manque la colonne "
        f"«{NBSP}{COLUMNS[0]}{NBSP}» ou «{NBSP}{COLUMNS[2]}{NBSP}». Dans Moodle{NBSP}: Afficher tous les travaux "
        "remis, puis Télécharger la feuille d'évaluation."
    )


def decode(data: bytes) -> str:
    """Le texte. Sans marque ni UTF-8, l'encodage où l'on voit le plus de lettres accentuées du français."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:2]:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", errors="replace")
    texts = []
    for encoding in ENCODINGS:
        try:
            texts.append(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        if encoding == ENCODINGS[0]:  # ce qui se lit en UTF-8 en est
            break
    return max(texts, key=lambda text: sum(map(text.count, ACCENTED)))


def parse(text: str, delimiter: str) -> Worksheet | None:
    """La feuille, si ce séparateur y fait apparaître les colonnes exigées. Les lignes vides n'en sont pas."""
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row))
        ]
    except csv.Error:
        return None
    if rows and rows[0][0].strip().lower().startswith("sep="):
        rows = rows[1:]
    header = [plain(cell) for cell in rows[0]] if rows else []
    columns = {key: header.index(name) for key, names in NAMES.items() for name in reversed(names) if name in header}
    if not {"id", "grade"} <= columns.keys():
        return None
    width = len(header)
    return Worksheet([(row + [""] * width)[:width] for row in rows], columns)


# ---------------------------------------------------------------------------------------------- la remplir


@dataclass
class Filled:
    """La feuille remplie. filled : notes mises ; remarks : ce qu'il faut en savoir."""

    data: bytes
    filled: int
    remarks: list[str] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)
    """(numéro, nom) des participants dont aucune copie n'est notée, si la feuille est bien celle de ce devoir."""


def fill_worksheet(sheet: Sheet, numbers: Mapping[str, Mapping[str, str]], path: Path) -> Filled:
    """La feuille téléchargée de Moodle, avec les notes dans sa colonne, en UTF-8 et avec des virgules."""
    worksheet = read_worksheet(path)
    found, doubtful = match(sheet, numbers, worksheet)
    above, used = [], set()
    names = [worksheet.cell(cells, "name") for cells in worksheet.people]
    for row, cells in zip(found, worksheet.people, strict=True):
        if "name" in worksheet.columns:
            cells[worksheet.columns["name"]] = safe(worksheet.cell(cells, "name"))
        if row is None:
            continue
        used.add(row.student)
        if row.pending:
            continue
        maximum = worksheet.maximum(cells, float(paths.course()["mark_out_of"]))
        cells[worksheet.columns["grade"]] = decimal(mark_within(sheet, row, maximum), worksheet.comma)
        if "comment" in worksheet.columns and not worksheet.cell(cells, "comment"):
            cells[worksheet.columns["comment"]] = safe(comment_of(row))
        above += [row.student] if beyond(sheet, row) else []
    said = {
        "sans ligne dans la feuille": [row.student for row in sheet.graded if row.student not in used | set(doubtful)],
        "numéro qui est celui d'un autre nom dans la feuille (est-ce bien celle de ce devoir\u202f?)": doubtful,
        "note ramenée au maximum, que Moodle ne laisse pas dépasser": above,
        "sans note encore, une partie étant à noter à la main": [row.student for row in sheet.pending],
    }
    remarks = [f"{what}{NBSP}: {', '.join(who)}" for what, who in said.items() if who]
    absent = [
        (worksheet.number(cells), name)
        for cells, name, row in zip(worksheet.people, names, found, strict=True)
        if row is None and worksheet.number(cells) and used and not doubtful
    ]
    return Filled(render_csv(worksheet.rows, ","), len(found) - found.count(None), remarks, absent)


def match(
    sheet: Sheet, numbers: Mapping[str, Mapping[str, str]], worksheet: Worksheet
) -> tuple[list[Row | None], list[str]]:
    """Pour chaque ligne de la feuille, la copie notée de ce participant ; et les étudiants dont le numéro fait douter.

    Le numéro décide. Qui n'en a pas est cherché par son adresse, puis par son nom complet, s'ils ne désignent qu'une
    personne de chaque côté.
    """
    graded = {row.student: row for row in sheet.graded}
    owners = {person["number"]: student for student, person in numbers.items()}
    found: list[Row | None] = []
    doubtful = []
    for cells in worksheet.people:
        student = owners.get(worksheet.number(cells), "")
        theirs = words(worksheet.cell(cells, "name")).split()
        mine = words(numbers[student].get("name", "")).split() if student else []
        if theirs and mine and not set(theirs) & set(mine):
            doubtful.append(student)
            student = ""
        found.append(graded.get(student))
    for column in ("email", "name"):
        taken = {row.student for row in found if row is not None}
        people = keyed(
            (key_of(column, getattr(row, column)), row) for row in sheet.graded if row.student not in numbers
        )
        lines = keyed((key_of(column, worksheet.cell(cells, column)), i) for i, cells in enumerate(worksheet.people))
        for key, line in lines.items():
            free = found[line] is None and worksheet.number(worksheet.people[line]) not in owners
            if free and key in people and people[key].student not in taken:
                found[line] = people[key]
    return found, doubtful


def keyed(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Clé → valeur, pour les clés qui n'en ont qu'une."""
    kept: dict[str, list[Any]] = {}
    for key, value in pairs:
        kept.setdefault(key, []).append(value)
    return {key: values[0] for key, values in kept.items() if key and len(values) == 1}


def key_of(column: str, text: str) -> str:
    return text.strip().casefold() if column == "email" else words(text)


def words(name: str) -> str:
    """Un nom complet à comparer : ses mots, dans un ordre qui ne dépend pas de « Prénom Nom » ou « NOM Prénom »."""
    return " ".join(sorted(re.findall(r"\w+", plain(name))))
