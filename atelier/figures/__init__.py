"""Figures, mesures et explorations des chapitres. Public, sans réponse : ce que l'étudiant écrit arrive en argument."""
