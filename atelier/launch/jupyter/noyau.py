"""Ce qu'IPython exécute quand un noyau démarre ou redémarre (PYTHONSTARTUP).

Les messages en français de l'atelier sont ainsi là avant que le carnet l'importe ; aucun nom n'est défini.
"""

__import__("atelier")
