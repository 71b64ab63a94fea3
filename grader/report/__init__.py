"""Ce que l'enseignant et l'étudiant lisent : bilan, retours, feuilles de notes."""
