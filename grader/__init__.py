"""Le côté de l'enseignant : construire les carnets, les publier, relever les copies, les corriger."""


class UserError(Exception):
    """Erreur que l'utilisateur peut réparer : montrée comme une phrase, sans trace d'exécution."""


PRELOADED = ("grader.classroom.nbglue", "grader.classroom.jobs")
"""Ce que chaque processus qui corrige a déjà importé en naissant."""
