"""Ce que vous avez fait : exercices réussis, indices ouverts, réponses aux quiz, paris.

Tenu dans `progression.json` par `atelier.state`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from atelier import packs, paths, state
from atelier.judging.exercise import is_bonus
from atelier.naming import exercise_of

FILE = state.PROGRESS

State = dict[str, Any]
_reader = uuid.uuid4().hex
"""L'identifiant d'un lecteur qui n'en a pas encore."""


def _entry(section: dict[str, Any], key: str) -> dict[str, Any]:
    return section.setdefault(key, {})


def _clean(raw: Any) -> tuple[State, bool]:
    """Ce qui, d'un fichier lu, a la forme attendue ; ce qu'une autre version du cours y a mis reste tel quel."""
    if raw is not None and not isinstance(raw, dict):
        raise ValueError("un objet JSON est attendu")
    found: State = dict(raw or {})
    dropped = False
    for section in ("exercises", "quizzes", "bets"):
        entries = found.get(section) if found.get(section) is not None else {}
        if not isinstance(entries, dict):
            raise ValueError(f"{section} doit être un objet JSON")
        found[section] = {key: entry for key, entry in entries.items() if isinstance(entry, dict)}
        dropped = dropped or len(found[section]) < len(entries)
    if not isinstance(found.get("reader"), str) or not found["reader"]:
        found["reader"] = _reader
    return found, dropped


def read() -> State:
    """L'état courant."""
    return state.read(FILE, _clean)


def update(change: Callable[[State], None]) -> State:
    """Relit l'état, lui applique `change`, l'écrit. Garde le changement en mémoire si l'écriture est refusée."""
    return state.update(FILE, _clean, change)


def record_check(chapter: str, exercise: str, passed: bool) -> None:
    """Note un `check`. Un exercice réussi une fois le reste."""

    def change(found: State) -> None:
        entry = _entry(found["exercises"], f"{chapter}/{exercise}")
        entry["tries"] = _count(entry, "tries") + 1
        entry["passed"] = bool(entry.get("passed")) or passed

    update(change)


def record_answer(chapter: str, quiz: str, correct: bool) -> None:
    """Note une réponse de quiz. Une question comprise une fois le reste."""

    def change(found: State) -> None:
        entry = _entry(found["quizzes"], f"{chapter}/{quiz}")
        entry["tries"] = _count(entry, "tries") + 1
        entry["correct"] = bool(entry.get("correct")) or correct

    update(change)


def record_bet(name: str, guess: float | str) -> None:
    """Garde un pari ; le dernier remplace le précédent."""
    update(lambda found: found["bets"].update({name: {"guess": guess}}))


def _count(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    return value if type(value) is int and value >= 0 else 0


def is_passed(state: State, chapter: str, exercise: str) -> bool:
    """Cet exercice a-t-il déjà passé son `check` ?"""
    return bool(state["exercises"].get(f"{chapter}/{exercise}", {}).get("passed"))


def hints_opened(state: State, chapter: str, exercise: str) -> int:
    """Nombre d'indices ouverts pour cet exercice."""
    return _count(state["exercises"].get(f"{chapter}/{exercise}", {}), "hints")


# --- Indices ---------------------------------------------------------------------------------------------------------


def hint(exercise: Any = "") -> None:
    """Ouvre l'indice suivant d'un exercice : `hint(absmax_scale)` ou `hint("absmax_scale")`."""
    from atelier.display import wrapped

    if isinstance(exercise, str) and not exercise:
        print("hint ouvre les indices d'un exercice, un à un\u00a0: écrivez son nom, par exemple hint(absmax_scale).")
        return
    name = exercise if isinstance(exercise, str) else exercise_of(exercise)
    name = name or str(getattr(exercise, "__name__", type(exercise).__name__))
    found = packs.find("exercises", name)
    if not found:
        print(unknown_name(name, "exercises"))
        return
    chapter, declaration = found[0]
    name, ladder = packs.split_name(name)[1], declaration["hints"]
    fresh = 0

    def change(found: State) -> None:
        nonlocal fresh
        entry = _entry(found["exercises"], f"{chapter}/{name}")
        fresh = min(_count(entry, "hints") + 1, len(ladder))
        entry["hints"] = fresh

    update(change)
    lines = [wrapped(f"{name}, indice {i} sur {len(ladder)}\u00a0: ", ladder[i - 1], 3) for i in range(1, fresh + 1)]
    if fresh == len(ladder):
        lines.append("C'était le dernier indice.")
    print("\n".join(lines))


def unknown_name(name: str, section: str) -> str:
    """Ce qu'on dit à qui écrit un nom que le cours ne connaît pas, avec le plus proche s'il y en a un."""
    import difflib

    what = "un exercice" if section == "exercises" else "un quiz"
    known = packs.names(section)
    if not packs.load_packs():
        return "Les paquets du cours sont introuvables (assets/packs)\u00a0: téléchargez à nouveau le dossier du cours."
    near = difflib.get_close_matches(packs.split_name(name)[1], known, n=1, cutoff=0.6)
    guess = f" Vouliez-vous dire {near[0]}\u202f?" if near else ""
    return f"«\u00a0{name}\u00a0» n'est pas {what} du cours.{guess}"


# --- Tableau de progression ------------------------------------------------------------------------------------------

DONE, TODO = "✔", "○"


def progress(chapter: str = "") -> None:
    """Affiche où vous en êtes : une ligne par chapitre, ou par exercice pour un seul (`progress("ch3")`)."""
    from atelier.display import note, table
    from atelier.text import number

    state, found, titles = read(), packs.load_packs(), paths.chapter_titles()
    chosen = [c for c in titles if packs.matches(c, chapter)]
    if not chosen:
        note(f"«\u00a0{chapter}\u00a0» n'est pas un chapitre du cours\u00a0: {', '.join(titles)}.")
        return
    if chapter and chosen[0] in found:
        name = chosen[0]
        rows = [
            [
                f"{DONE if is_passed(state, name, id) else TODO} {id}",
                number(e["points"]) + (" de bonus" if is_bonus(e["stars"]) else ""),
                number(e["minutes"], unit="min"),
                "★" * e["stars"],
                f"{hints_opened(state, name, id)} sur {len(e['hints'])}",
            ]
            for id, e in found[name]["exercises"].items()
        ]
        header = ["Exercice", "Points", "Durée prévue", "Difficulté", "Indices ouverts"]
        table(rows, header, f"{titles[name]} ({DONE} réussi, {TODO} à faire)")
        return
    rows = [_chapter_row(state, c, titles[c], found.get(c)) for c in chosen]
    table(
        rows,
        ["Chapitre", "Exercices réussis", "Points", "Indices ouverts", "Quiz compris"],
        f"Votre progression ({DONE} réussi, {TODO} à faire). La note, elle, se calcule sur d'autres cas.",
    )


def _chapter_row(state: State, chapter: str, title: str, pack: dict[str, Any] | None) -> list[str]:
    from atelier.text import number

    exercises, quizzes = (pack["exercises"], pack["quizzes"]) if pack else ({}, {})
    done = [id for id in exercises if is_passed(state, chapter, id)]
    marks = DONE * len(done) + TODO * (len(exercises) - len(done))
    core = {id: e["points"] for id, e in exercises.items() if not is_bonus(e["stars"])}
    points, total = number(sum(core.get(id, 0) for id in done)), number(sum(core.values()))
    more = sum(exercises[id]["points"] for id in done if id not in core)
    understood = sum(bool(state["quizzes"].get(f"{chapter}/{q}", {}).get("correct")) for q in quizzes)
    hints = sum(min(hints_opened(state, chapter, id), len(e["hints"])) for id, e in exercises.items())
    return [
        title,
        f"{len(done)} sur {len(exercises)} {marks}" if exercises else "—",
        f"{points} sur {total}" + (f", {number(more)} de bonus" if more else "") if exercises else "—",
        f"{hints} sur {sum(len(e['hints']) for e in exercises.values())}" if exercises else "—",
        f"{understood} sur {len(quizzes)}" if quizzes else "—",
    ]
