"""Noter : tirer les cas cachés, comparer, compter les points, dire le verdict et écrire le retour à l'étudiant.

Tout ce qui est ici tourne du côté sûr ; le code de l'étudiant n'y entre que sous la forme des résultats qu'il a rendus.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from atelier import glosses
from atelier.judging.calls import case_text, failing_item
from atelier.judging.compare import CaseResult, Outcome, compare
from atelier.judging.diagnose import Diagnosis, diagnose
from atelier.judging.exercise import Exercise, Inputs
from atelier.judging.probes import clean_room, run_case
from atelier.text import NBSP, THIN, number, percent, plural
from grader import UserError, retries
from grader.authoring.chapters import Chapter
from grader.classroom.telling import Telling
from grader.jail.outside.dialogue import CellReport, CodeCell, Report, Task, TaskReport

VERDICTS = {
    "refused": "copie refusée",
    "missing": "non fait",
    "timeout": "trop long",
    "error": "erreur",
    "correct": "juste",
    "misconception": "idée fausse",
    "partial": "en partie juste",
    "incorrect": "faux",
    "manual": "à la main",
}
"""Verdict → mot français, dans l'ordre où le premier qui s'applique est retenu."""


class GradingError(UserError):
    """La correction elle-même est en faute : un exercice mal déclaré, une référence qui échoue."""


@dataclass(frozen=True)
class GroupScore:
    """Un groupe de cas. counted : faux s'il est réussi mais ne compte pas, le groupe courant ne l'étant pas."""

    name: str
    share: float
    passed: int
    total: int
    counted: bool

    @property
    def full(self) -> bool:
        return self.passed == self.total


@dataclass
class Result:
    """Un exercice noté."""

    exercise: str
    score: float
    max_score: float
    verdict: str
    message: str
    misconception: str | None = None
    feedback: str = ""
    seed: str = ""
    """Graine des cas cachés, en décimal (du texte : elle dépasse ce que JSON garde exact)."""
    groups: list[GroupScore] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Result:
        return cls(**{**data, "groups": [GroupScore(**g) for g in data["groups"]]})

    def record(self, student: str, assignment: str) -> dict[str, Any]:
        """L'enregistrement que `grade --json` écrit (DESIGN §4)."""
        return {
            "student": student,
            "assignment": assignment,
            "exercise": self.exercise,
            "score": self.score,
            "max_score": self.max_score,
            "verdict": self.verdict,
            "misconception": self.misconception,
            "message": self.message,
        }


@dataclass(frozen=True)
class Drawn:
    """Un exercice et ses cas cachés ; ce qu'on doit y répondre, calculé au premier besoin, sert à toutes les copies."""

    id: str
    chapter: Chapter
    seed: int
    cases: list[tuple[str, Inputs]]

    @property
    def exercise(self) -> Exercise:
        return self.chapter.exercises[self.id]

    @cached_property
    def task(self) -> Task:
        cases = self.cases + (self.doubled.cases if self.doubled else [])
        return Task(self.id, self.exercise.probe, self.exercise.seconds, [inputs for _, inputs in cases])

    @cached_property
    def doubled(self) -> Drawn | None:
        """Les mêmes cas, où une doublure remplace l'exercice dont celui-ci peut se servir ; None s'il n'y en a pas."""
        named = self.exercise.stand_ins
        if not named or "stand_ins" in self.cases[0][1]:
            return None
        return replace(self, cases=[(group, {**inputs, "stand_ins": dict(named)}) for group, inputs in self.cases])

    def answers(self, function: Any) -> list[Outcome]:
        """Ce que `function` répond à chaque cas."""
        return [run_case(self.exercise.probe, function, dict(inputs)) for _, inputs in self.cases]

    @cached_property
    def expected(self) -> list[Outcome]:
        """Ce que la référence répond. Lève `GradingError` si ce n'est ni une valeur ni une erreur."""
        expected = self.answers(self.chapter.reference(self.id))
        if any(map(out_of_memory, expected)):
            raise MemoryError
        for outcome in expected:
            if outcome["status"] not in ("value", "raised"):
                text = f"la référence répond «{NBSP}{outcome['status']}{NBSP}» ({outcome.get('message', '')})"
                raise GradingError(f"{self.chapter.file}, {self.id}, graine {self.seed}{NBSP}: {text}")
        return expected

    @cached_property
    def wrong(self) -> dict[str, list[Outcome]]:
        """Ce que répond chaque idée fausse, par nom. N'est demandé qu'après un échec."""
        names = [m.name for m in self.exercise.misconceptions]
        return {name: self.answers(self.chapter.wrong(self.id, name)) for name in names}


def fresh_seed() -> int:
    """Graine d'une correction, où toutes les copies ont le même sujet : personne ne peut la connaître d'avance."""
    return secrets.randbits(64)


def draw(chapter: Chapter, seed: int) -> list[Drawn]:
    """Les cas cachés de chaque exercice, tirés de cette graine."""
    drawn = []
    for id, exercise in chapter.exercises.items():
        try:
            cases = exercise.draw_cases(id, seed, exercise.cases)
        except MemoryError:
            raise
        except Exception as error:
            text = f"{chapter.exercise_file(id)}{NBSP}: le tirage échoue avec la graine {seed}"
            raise GradingError(f"{text} ({type(error).__name__}{NBSP}: {error})") from error
        drawn.append(Drawn(id, chapter, seed, cases))
    return drawn


# ---------------------------------------------------------------------------------------------- points


def is_constant(expected: Sequence[Outcome]) -> bool:
    """Vrai si une fonction sans réflexion réussirait ces cas : la même réponse partout, ou toujours une erreur."""
    if all(e["status"] == "raised" for e in expected):
        return True
    return all(e["status"] == "value" and compare(expected[0], e, {}).ok for e in expected)


def score_groups(exercise: Exercise, cases: Sequence[CaseResult]) -> list[GroupScore]:
    """Les groupes, dans l'ordre déclaré, le premier étant le groupe courant."""
    scores: list[GroupScore] = []
    for name, share in exercise.groups.items():
        mine = [c for c in cases if c.group == name]
        passed = sum(c.verdict.ok for c in mine)
        typical_full = not scores or scores[0].full
        counted = typical_full or not is_constant([c.expected for c in mine])
        scores.append(GroupScore(name, share, passed, len(mine), counted))
    return scores


def earned(groups: Sequence[GroupScore], points: float) -> float:
    """Points gagnés : la part de chaque groupe entièrement réussi et compté, arrondie au centième."""
    return round(points * sum(g.share for g in groups if g.full and g.counted), 2)


# ---------------------------------------------------------------------------------------------- juger


@dataclass(frozen=True)
class Answer:
    """Ce que l'on sait d'une réponse avant de comparer. cell : None si elle est absente ou encore l'énoncé."""

    cell: CodeCell | None
    report: CellReport | None
    task: TaskReport
    telling: Telling
    notes: Sequence[str] = ()


def answer_of(id: str, cells: Sequence[CodeCell], report: Report, notes: Mapping[str, Sequence[str]]) -> Answer:
    cell = next((c for c in cells if c.exercise == id), None)
    telling = Telling({c.id: c for c in cells}, report)
    return Answer(cell, report.cells.get(cell.id) if cell else None, report.tasks[id], telling, notes.get(id, ()))


def judge(drawn: Drawn, answer: Answer, points: float) -> Result:
    """Note un exercice : compare chaque cas à la référence et choisit le verdict, dans l'ordre de DESIGN §4."""
    id, exercise = drawn.id, drawn.exercise
    if answer.task.status == "undefined":
        return without_answer(drawn, answer, points)
    drawn, cases = kindest(drawn, answer.task.outcomes)
    groups = score_groups(exercise, cases)
    score = earned(groups, points)
    typical = [c for c in cases if c.group == groups[0].name]
    failing = [c for c in cases if not c.verdict.ok]
    result = Result(id, score, points, "", "", seed=str(drawn.seed), groups=groups)
    diagnosis = None
    if all(c.verdict.kind == "todo" for c in typical):
        result.verdict, result.message = "missing", f"Exercice non fait{NBSP}: la fonction est encore à écrire."
    elif any(c.verdict.kind == "timeout" for c in cases):
        result.verdict = "timeout"
        result.message = (
            f"Un calcul a dépassé {plural(exercise.seconds, 'seconde')}, la limite pour un cas{NBSP}: "
            "boucle sans fin, ou méthode trop lente."
        )
    elif all(c.verdict.kind == "raised" for c in typical):
        result.verdict, result.message = "error", one_line(sentence(typical[0].verdict.message))
    elif not failing:
        result.verdict, result.message = "correct", "Tous les cas cachés passent."
    elif diagnosis := explain(drawn, cases):
        result.verdict, result.misconception, result.message = "misconception", diagnosis.name, diagnosis.sentence
    else:
        result.verdict = "partial" if score > 0 else "incorrect"
        result.message = one_line("\n".join(failure_lines(drawn, failing[0])))
    result.feedback = feedback(drawn, result, cases, diagnosis, answer)
    return result


def kindest(drawn: Drawn, outcomes: Sequence[Outcome]) -> tuple[Drawn, list[CaseResult]]:
    """Les cas, tels quels ou avec des doublures : ceux qui rapportent le plus ; à égalité, ceux que l'on explique."""
    cases = compare_cases(drawn, outcomes[: len(drawn.cases)])
    if drawn.doubled is None or all(c.verdict.ok for c in cases):
        return drawn, cases
    helped = compare_cases(drawn.doubled, outcomes[len(drawn.cases) :])
    own, other = (earned(score_groups(drawn.exercise, found), 1.0) for found in (cases, helped))
    if other > own or other == own and not explain(drawn, cases) and explain(drawn.doubled, helped):
        return drawn.doubled, helped
    return drawn, cases


def compare_cases(drawn: Drawn, outcomes: Sequence[Outcome]) -> list[CaseResult]:
    """Chaque cas, comparé à ce que la référence répond aux mêmes entrées."""
    return [
        CaseResult(group, inputs, expected, got, compare(expected, got, inputs, drawn.exercise.tolerance))
        for (group, inputs), expected, got in zip(drawn.cases, drawn.expected, outcomes, strict=True)
    ]


def out_of_memory(outcome: Outcome) -> bool:
    """Vrai si c'est la mémoire qui a manqué à la référence : rien n'est alors à conclure."""
    return outcome["status"] == "raised" and (
        outcome["error"] == "MemoryError" or "allocate memory" in str(outcome.get("message", ""))
    )


def explain(drawn: Drawn, cases: Sequence[CaseResult]) -> Diagnosis | None:
    """L'idée fausse reconnue."""
    probed = [
        replace(case, wrong={name: outcomes[i] for name, outcomes in drawn.wrong.items()})
        for i, case in enumerate(cases)
    ]
    messages = {m.name: m.message for m in drawn.exercise.misconceptions}
    return diagnose(probed, messages, drawn.exercise.tolerance)


def without_answer(drawn: Drawn, answer: Answer, points: float) -> Result:
    """Rien à appeler : réponse absente, ou cellule qui ne définit pas le nom demandé."""
    result = Result(drawn.id, 0.0, points, "", "", seed=str(drawn.seed))
    passed = answer.report.passed if answer.report else []
    first = next((p for p in passed if drawn.id in p.lost or p.error == "SyntaxError"), passed[0] if passed else None)
    if answer.cell is None:
        why = " ".join(answer.notes) or "la cellule est vide ou encore celle de l'énoncé."
        result.verdict, result.message = "missing", f"Exercice non fait{NBSP}: {why}"
    elif first is None:
        result.verdict = "error"
        result.message = f"La cellule s'exécute mais ne définit pas de fonction ou de classe «{NBSP}{drawn.id}{NBSP}»."
    elif first.status == "timeout":
        result.verdict = "timeout"
        result.message = (
            f"La cellule ne s'est pas terminée en {plural(answer.cell.seconds, 'seconde')}{NBSP}: elle ne doit que "
            "définir, les essais vont dans une autre cellule."
        )
    elif first.status == "died":
        result.verdict = "error"
        result.message = (
            f"L'exécution de la cellule a arrêté Python d'un coup{THIN}; l'exercice n'a pas pu être essayé."
        )
    else:
        where = f", ligne {first.line}" if first.line else ""
        about = f" ({first.error}{where})" if first.error else ""
        text = f" {first.message}" if first.message else ""
        result.verdict = "error"
        result.message = f"La cellule ne s'exécute pas{about}{NBSP}:{text}".rstrip(f"{NBSP}:")
        if gloss := glosses.explain([first.error], first.message):
            result.message += f". Autrement dit{NBSP}: {gloss}"
    result.feedback = feedback(drawn, result, [], None, answer)
    return result


def refused(id: str, points: float, reason: str) -> Result:
    """Un exercice d'une copie illisible."""
    message = f"Copie refusée{NBSP}: {reason}."
    return Result(id, 0.0, points, "refused", message, feedback=f"✗ {id}{NBSP}: 0 / {number(points)}\n{message}")


# ---------------------------------------------------------------------------------------------- retour


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.split("\n") if line.strip())


def failure_lines(drawn: Drawn, case: CaseResult) -> list[str]:
    """Un cas manqué : son groupe et l'appel, comme l'étudiant l'écrirait ; puis attendu et obtenu."""
    inputs, message = failing_item(drawn.exercise.probe, case.inputs, case.verdict.message)
    shown = case_text(drawn.id, drawn.exercise.probe, inputs, drawn.exercise.hexadecimal)
    return [f"Premier cas manqué ({case.group}){NBSP}: {shown or 'sans argument'}", *message.split("\n")]


def feedback(
    drawn: Drawn, result: Result, cases: Sequence[CaseResult], diagnosis: Diagnosis | None, answer: Answer
) -> str:
    """Le texte que l'étudiant lit sous son exercice."""
    mark = "✔" if result.score == result.max_score and result.verdict == "correct" else "✗"
    lines = [f"{mark} {result.exercise}{NBSP}: {number(result.score)} / {number(result.max_score)}"]
    said = () if answer.cell is None and not cases else answer.notes  # déjà dites par le message
    told = [*said, *answer.telling.exercise(result.exercise, result.verdict), *replacements(cases)]
    lines += [f"  Note{NBSP}: {text}" for text in told]
    if not cases or result.verdict in ("missing", "correct"):
        return "\n".join([*lines, f"  {result.message}"])
    lines.append(f"  {credit(result)}")
    lines += [group_line(g) for g in result.groups]
    failing = next((c for c in cases if not c.verdict.ok), None)
    if failing is not None:
        first, *rest = failure_lines(drawn, failing)
        lines += [f"  {first}", *(f"     {line}" for line in rest)]
        if printed := str(failing.got.get("printed", "")).strip():
            lines.append(f"     affiché par votre code{NBSP}: {printed[:200]}")
    if result.verdict == "timeout":
        lines.append(f"  {result.message}")
    if diagnosis is not None:
        lines.append(f"  Piste{NBSP}: {diagnosis.sentence}")
    lines += closing(result)
    return "\n".join(lines)


def replacements(cases: Sequence[CaseResult]) -> Iterator[str]:
    """Ce qu'une doublure a remplacé dans ces cas."""
    if names := next((case.inputs["stand_ins"] for case in cases if "stand_ins" in case.inputs), None):
        one = f"jugé avec une autre version de {' et de '.join(names)}, à la place de la vôtre"
        yield f"{one}{THIN}; une faute y est donc comptée dans son exercice seulement."


def group_line(group: GroupScore) -> str:
    share = percent(group.share, 3)
    text = f"  {'✔' if group.full and group.counted else '✗'} {group.name} ({share} des points){NBSP}: "
    text += f"{group.passed} cas sur {group.total}"
    return (
        text if group.counted or not group.full else text + ", comptés seulement si le premier groupe passe en entier"
    )


def credit(result: Result) -> str:
    """D'où viennent les points, en une phrase que l'étudiant comprend, avec la graine qui rejoue les cas."""
    earned_by = [g for g in result.groups if g.full and g.counted]
    lost = [g for g in result.groups if not (g.full and g.counted)]
    score = number(result.score)
    if earned_by:
        share = percent(sum(g.share for g in earned_by), 3)
        verb = "passent" if len(earned_by) > 1 else "passe"
        text = f"Vous avez {score} sur {number(result.max_score)} parce que {listed(earned_by)} {verb} en entier"
        text += f" ({share} des points)"
    else:
        text = f"Vous n'avez pas de points parce que {listed(result.groups[:1])} ne passe pas en entier"
        text += ", et que les autres groupes réussis ne comptent qu'avec lui" * any(g.full for g in lost)
    if earned_by and lost:
        text += f" et {listed(lost)} non"
    return f"{text} (cas tirés avec la graine {result.seed}, rejouables à l'identique)."


def listed(groups: Sequence[GroupScore]) -> str:
    """« a », « b » et « c »."""
    names = [f"«{NBSP}{g.name}{NBSP}»" for g in groups]
    return " et ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def closing(result: Result) -> list[str]:
    """Ce que vaut une réussite partielle, et quoi faire ensuite."""
    lines = ["  Un groupe rapporte sa part des points quand tous ses cas passent, rien sinon."]
    if result.groups and result.groups[0].full:
        lines.append(
            f"  Votre check était complet{THIN}? Les cas cachés suivent le même énoncé avec d'autres entrées{NBSP}: "
            "relisez la phrase de l'énoncé qui parle du cas ci-dessus, puis essayez-en un semblable dans votre carnet."
        )
    return lines


# ---------------------------------------------------------------------------------------------- une copie


def grade_copy(
    subject: Callable[[], Sequence[Drawn]],
    run: Callable[[Sequence[Task], bool], Report],
    cells: Sequence[CodeCell],
    points: Mapping[str, float],
    notes: dict[str, list[str]],
) -> list[Result]:
    """Note une copie entière. run : exécute ses cellules et des exercices, qui partagent ou non un processus.

    subject : donne les cas cachés. points : barème, par exercice. notes : ce que la réparation a dit, par exercice ou
    de la copie ("") ; complétées de ce que l'exécution apprend.
    """
    with clean_room():
        drawn = subject()
    report = confirmed(run, [d.task for d in drawn], shared=True)

    def judged(some: Sequence[Drawn]) -> dict[str, Result]:
        with clean_room():
            return {d.id: judge(d, answer_of(d.id, cells, report, notes), points[d.id]) for d in some}

    results = judged(drawn)
    doubtful = [d for d in drawn if results[d.id].verdict != "correct" and not report.tasks[d.id].alone]
    if doubtful:  # aucune faute n'est retenue d'un processus où un autre exercice s'était exécuté
        again = confirmed(run, [d.task for d in doubtful], shared=False)
        report = Report(again.cells, report.tasks | again.tasks)
        results |= judged(doubtful)
    telling = Telling({c.id: c for c in cells}, report)
    for id, result in results.items():
        add(notes, id, telling.exercise(id, result.verdict))
    add(notes, "", telling.copy({id: result.verdict for id, result in results.items()}))
    return list(results.values())


def add(notes: dict[str, list[str]], exercise: str, texts: Sequence[str]) -> None:
    if texts:
        notes[exercise] = [*notes.get(exercise, ()), *texts]


def confirmed(run: Callable[[Sequence[Task], bool], Report], tasks: Sequence[Task], shared: bool) -> Report:
    """Exécute une copie ; une mort n'est retenue que si elle se reproduit.

    Un processus tué du dehors (mémoire prise par un voisin, `kill -9`) ne coûte ainsi rien à l'étudiant ; un code qui
    arrête Python le refait à l'identique.
    """
    report, todo = Report(), tasks
    for attempt in retries.DEATH:
        found = run(todo, shared and not attempt)
        report = Report(found.cells, report.tasks | found.tasks)
        dead = [t for t in tasks if report.tasks[t.id].status == "died"]
        todo = tasks if any(cell.status == "died" for cell in found.cells.values()) else dead
        if not todo:
            break
    return report


def worth(chapter: Chapter, points: Mapping[str, float]) -> dict[str, float]:
    """Ce que vaut chaque exercice. points : le barème de nbgrader, où un approfondissement (★) vaut 0."""
    return {id: value or chapter.exercises[id].bonus for id, value in points.items()}


def grade_refused(chapter: Chapter, points: Mapping[str, float], reason: str) -> list[Result]:
    """Note une copie illisible : zéro partout, et pourquoi. points : le barème de nbgrader."""
    full = worth(chapter, points)
    return [refused(id, full[id], reason) for id in dict.fromkeys((*chapter.exercises, *points))]


def by_hand(id: str, points: float) -> Result:
    """Un critère que seul quelqu'un peut noter."""
    return Result(id, 0.0, points, "manual", "À noter à la main, dans formgrader.")
