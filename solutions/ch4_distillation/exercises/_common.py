"""Ce que partagent les exercices du chapitre 4.

Règle des tirages : les logits des pertes restent modérés (écarts sous 15), pour qu'une réponse qui enchaîne un softmax
et un logarithme soit aussi juste que celle qui emploie log_softmax ; seul `softmax_temperature` promet de tenir de
grands logits. Dans `student_layers`, un rang à mi-chemin tombe exactement sur un demi, quel que soit l'ordre du calcul.
"""

from __future__ import annotations


def refuse(temperature):
    if not temperature > 0:
        raise ValueError("température")
