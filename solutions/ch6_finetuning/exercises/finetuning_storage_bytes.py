"""Exercice `finetuning_storage_bytes` du chapitre 6."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_storage(d: Draw, group: str) -> Inputs:
    inputs = {"n_params": d.integer(10**6, 10**11), "n_tasks": d.integer(3, 200)}
    small = d.integer(10**4, 10**6 - 1)
    if group == "bords":
        return inputs | d.turn(
            [
                {"bytes_per_param": 2, "n_task_params": 0},
                {"n_tasks": 0, "bytes_per_param": 4, "n_task_params": small},
                {"n_tasks": 0},
                {"n_tasks": 1, "bytes_per_param": 1},
            ]
        )
    return inputs | d.turn(
        [
            {},
            {"bytes_per_param": 4, "n_task_params": small},
            {"bytes_per_param": 4},
            {"bytes_per_param": 2, "n_task_params": small},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Fine-tuner tout le modèle change tous ses poids : combien de fichiers complets faut-il pour T tâches ?",
        "Si les tâches partagent une base, combien de fois est-elle sur le disque ?",
        "Copies : N·T poids. Base partagée : N + T·n poids. Le tout en octets.",
    ],
    groups={"courant": 0.85, "bords": 0.15},
    draw=draw_storage,
    visible=4,
    examples=[
        {"n_params": 1000, "n_tasks": 3},
        {"n_params": 1000, "n_tasks": 3, "bytes_per_param": 2, "n_task_params": 10},
        {"n_params": 1000, "n_tasks": 3, "bytes_per_param": 2, "n_task_params": 0},
    ],
)


misconceptions = """\
base_per_task   return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return (n_params + n_task_params) * n_tasks * bytes_per_param
    Si la base est partagée, combien de fois est-elle sur le disque ?

base_forgotten   return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return n_tasks * n_task_params * bytes_per_param
    Les petits modules ne servent à rien sans le modèle sur lequel ils se posent.

tasks_forgotten   return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return (n_params + n_task_params) * bytes_per_param
    Chaque tâche a son propre module : vous n'en comptez qu'un.

base_besides_copies   return n_params * n_tasks * bytes_per_param
    → return n_params * (n_tasks + 1) * bytes_per_param
    Chaque tâche a sa copie complète : faut-il encore garder l'original à côté ?

one_copy   return n_params * n_tasks * bytes_per_param → return n_params * bytes_per_param
    Une copie pour toutes les tâches ? Elles ont changé les poids chacune à leur façon.

truthiness   if n_task_params is None: → if not n_task_params:
    Zéro paramètre par tâche et « pas de base partagée » ne sont pas la même demande.

bytes_fixed   return n_params * n_tasks * bytes_per_param → return n_params * n_tasks * 2
    & return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return (n_params + n_tasks * n_task_params) * 2
    Changez le nombre d'octets par paramètre : votre réponse ne bouge pas.

base_only_in_bytes   return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return n_params * bytes_per_param + n_tasks * n_task_params
    Vous additionnez des octets et des paramètres.

parameters   return n_params * n_tasks * bytes_per_param → return n_params * n_tasks
    & return (n_params + n_tasks * n_task_params) * bytes_per_param → return n_params + n_tasks * n_task_params
    Vous comptez des paramètres : combien d'octets chacun occupe-t-il ?

in_bits   return n_params * n_tasks * bytes_per_param → return n_params * n_tasks * bytes_per_param * 8
    & return (n_params + n_tasks * n_task_params) * bytes_per_param
    → return (n_params + n_tasks * n_task_params) * bytes_per_param * 8
    Octets ou bits ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def storage_branches(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    total = n_params * n_tasks if n_task_params is None else n_params + n_task_params * n_tasks
    return total * bytes_per_param


def storage_sum(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    files = [n_params] * n_tasks if n_task_params is None else [n_params] + [n_task_params] * n_tasks
    return sum(files) * bytes_per_param


def storage_bytes_first(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    base = bytes_per_param * n_params
    if n_task_params is not None:
        return base + n_tasks * bytes_per_param * n_task_params
    return n_tasks * base


styles = [storage_branches, storage_sum, storage_bytes_first]
