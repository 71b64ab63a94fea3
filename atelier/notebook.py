"""Ce que l'atelier ajoute au noyau d'un carnet : sous une erreur ordinaire, une phrase en français quand elle aide.

L'erreur reste affichée comme elle l'est partout. Seul un `check` d'un nom qui n'existe pas est dit autrement. Et une
cellule qui n'est que `check(exercice)` appelle le `check` du cours, même si une variable en a pris le nom.
"""

from __future__ import annotations

import re
from typing import Any

from atelier import glosses, paths
from atelier.judging.frames import raised_by_statement, source_line
from atelier.text import typeset


def install() -> None:
    """Se branche sur le noyau où l'on tourne, s'il y en a un et que personne ne l'a déjà fait."""
    shell = paths.shell()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((Exception, KeyboardInterrupt), _handler)
        shell.input_transformers_cleanup.append(_course_command)


_COMMAND = re.compile(r"\s*(check|hint|progress|quiz)\s*\(.*\)\s*;?\s*(?:#.*)?")


def _course_command(lines: list[str]) -> list[str]:
    """`check(f)` tout seul dans sa cellule → `atelier.check(f)`, si « check » désigne autre chose dans le carnet."""
    import atelier

    text, shell = "".join(lines).strip(), paths.shell()
    match = _COMMAND.fullmatch(text)
    if match is None or shell is None or shell.user_ns.get(match[1]) is getattr(atelier, match[1]):
        return lines
    return [f"__import__('atelier').{text}\n"]


def _handler(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None) -> None:
    if isinstance(error, NameError) and (text := _unknown_exercise(shell, error)):
        from atelier.checker import CheckFailed

        shell.showtraceback((CheckFailed, CheckFailed(text), None), tb_offset=tb_offset)
        return
    if _message(error) is None:  # IPython, qui veut l'afficher, s'y perdrait
        kind, error = Exception, Exception(f"{kind.__name__}, dont le message ne s'affiche pas")
    running = bool(source_line(trace))  # sinon la cellule elle-même n'a pas pu être lue
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=running)
    if gloss := explain(error, shell.user_ns):
        from atelier.display import wrapped

        print(wrapped("Autrement dit\u00a0: ", gloss, 0))


def _unknown_exercise(shell: Any, error: NameError) -> str:
    from atelier.checker import explain_unknown_name

    cell = (shell.history_manager.input_hist_raw or [""])[-1]
    defined = [n for n, v in shell.user_ns.items() if callable(v) and not n.startswith("_")]
    return explain_unknown_name(cell, getattr(error, "name", None) or "", defined)


def explain(error: BaseException, space: dict[str, Any]) -> str:
    """La phrase qui accompagne cette erreur ; vide s'il n'y en a pas de juste. space : les noms du carnet."""
    if type(error).__module__.partition(".")[0] == "atelier":
        return ""
    if isinstance(error, KeyboardInterrupt):
        return "vous avez interrompu cette cellule. Ce qui était fait avant elle est gardé."
    names, message = [c.__name__ for c in type(error).__mro__], _message(error) or ""
    if isinstance(error, SyntaxError):
        return glosses.explain_syntax(names, str(error.msg), error.text or "")
    if raised_by_statement(error.__traceback__):
        return ""
    if _CARD_FULL.search(message) and {"OutOfMemoryError", "RuntimeError", "AcceleratorError"} & {*names}:
        from atelier.hardware import smaller_scale

        if smaller_scale():
            return _SMALLER
    return _hidden_name(message, source_line(error.__traceback__), space) or glosses.explain(names, message)


_CARD_FULL = re.compile(r"(?:CUDA|MPS|HIP|XPU)\b.*\bout of memory", re.DOTALL)
_SMALLER = typeset(
    "la mémoire de la carte est pleine. Le cours passe à l'échelle « cpu », plus petite : relancez les cellules "
    "depuis le début (menu Exécution). Si cela recommence, redémarrez le noyau (menu Noyau) : ce que la carte tient "
    "sera rendu."
)


def _message(error: BaseException) -> str | None:
    """Le message d'une erreur ; None si elle ne sait pas l'écrire."""
    try:
        return str(error)[:500]
    except Exception:
        return None


def _hidden_name(message: str, line: str, space: dict[str, Any]) -> str:
    """Ce qu'on dit quand une variable du carnet a pris le nom d'une fonction de l'atelier."""
    import atelier

    if "object is not callable" not in message:
        return ""
    for name in atelier.__all__:
        if name in space and not callable(space[name]) and re.search(rf"(?<![\w.]){name}\s*\(", line):
            return (
                f"«\u00a0{name}\u00a0» désigne maintenant une variable à vous\u00a0; la fonction du cours s'appelle "
                f"toujours atelier.{name}(…)."
            )
    return ""
