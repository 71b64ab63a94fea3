"""Les mots et les lettres du cours, une seule fois : `atelier.glossary("lot")`, `atelier.notations()`.

L'accueil montre les deux tableaux ; la construction refuse les synonymes (grader/authoring/words.py).
"""

from __future__ import annotations

import unicodedata

from atelier.display import note, table

TERMS: dict[str, tuple[str, str, int]] = {
    "activation": ("activation", "ce qu'une couche a calculé pour un texte donné, par opposition à ses poids", 1),
    "adaptateur": ("adapter", "petit module ajouté dans un modèle gelé, seul à apprendre", 7),
    "amorce": ("prompt", "le début de texte qu'on donne au modèle, et qu'il continue", 1),
    "apprentissage": ("training", "modifier les paramètres, pas après pas, pour que la perte baisse", 2),
    "attention": ("attention", "moyenne des valeurs des jetons passés, pondérée : requêtes contre clés", 1),
    "bloc": ("transformer block, layer", "une attention puis un MLP, chacun ajouté au flux résiduel", 1),
    "cache K/V": ("KV cache", "les clés et les valeurs des jetons déjà lus, gardées pour ne pas les refaire", 1),
    "clé": ("key", "ce qu'un jeton offre aux requêtes : à quoi on le reconnaît", 1),
    "composante": ("feature, dimension", "un des d nombres du vecteur d'un jeton", 1),
    "contexte": ("context window", "les jetons que le modèle peut lire à la fois", 1),
    "couche linéaire": ("linear layer", "y = xW + b ; Conv1D dans transformers, où W est (entrée, sortie)", 1),
    "découpeur": ("tokenizer", "ce qui coupe un texte en jetons, et le recolle", 1),
    "élagage": ("pruning", "mettre à zéro, ou retirer, une partie des poids", 5),
    "élève": ("student model", "le petit modèle qui imite", 4),
    "enseignant": ("teacher model", "le grand modèle imité", 4),
    "fine-tuning": ("fine-tuning", "poursuivre l'apprentissage d'un modèle sur une tâche à soi", 6),
    "flux résiduel": ("residual stream", "le vecteur de chaque jeton, auquel chaque bloc ajoute ce qu'il a calculé", 1),
    "gelé": ("frozen", "se dit d'un paramètre que l'apprentissage ne modifie pas", 6),
    "GELU": ("GELU", "la non-linéarité du MLP : x fois la probabilité qu'une normale soit sous x", 1),
    "graine": ("seed", "le nombre qui fixe un tirage au hasard", 0),
    "jeton": ("token", "un morceau de texte du vocabulaire", 1),
    "LayerNorm": ("layer norm", "recentrer un vecteur, diviser par son écart type, puis gain et biais appris", 1),
    "logit": ("logit", "ce que la tête de sortie donne à une entrée du vocabulaire, avant softmax", 1),
    "lot": ("batch", "les phrases lues en même temps", 1),
    "MLP": ("MLP, feed-forward", "deux couches linéaires, de d à 4d puis de 4d à d, GELU entre les deux", 1),
    "nat": ("nat", "l'unité d'une surprise en logarithme naturel ; 1 nat vaut 1/ln 2, soit 1,44 bit", 1),
    "paramètre": ("parameter", "un nombre que le modèle a appris : poids, biais ou gain", 1),
    "passage arrière": ("backward pass", "le calcul des gradients, de la perte vers l'entrée", 2),
    "passage avant": ("forward pass", "le calcul des logits, de l'entrée vers la sortie", 2),
    "perplexité": ("perplexity", "exp(perte) : entre combien de jetons équiprobables le modèle hésite", 1),
    "perte": ("loss", "la surprise moyenne d'un jeton, en nats : moyenne de −ln p (entropie croisée)", 1),
    "plongement": ("embedding", "le vecteur d'un jeton ou d'un rang, lu dans une table", 1),
    "poids": ("weight", "un nombre d'une matrice du modèle", 1),
    "quantification": ("quantization", "remplacer chaque valeur par la plus proche d'un ensemble fini", 3),
    "remplissage": ("padding", "les faux jetons qui complètent les phrases courtes d'un lot", 1),
    "requête": ("query", "ce qu'un jeton cherche : comparée aux clés des autres", 1),
    "score": ("attention score", "produit scalaire d'une requête et d'une clé, divisé par √D, avant softmax", 1),
    "taux d'apprentissage": ("learning rate", "la longueur d'un pas d'apprentissage", 5),
    "température": ("temperature", "ce qui divise les logits avant softmax", 1),
    "tête": ("head", "une des H attentions d'un bloc, sur ses d/H composantes", 1),
    "tête de sortie": ("LM head", "un vecteur → un logit par entrée du vocabulaire ; liée à la table des jetons", 1),
    "valeur": ("value", "ce qu'un jeton donne à ceux qui le regardent", 1),
}  # fmt: skip
"""Mot du cours → (mot anglais, ce que c'est, chapitre où on le rencontre)."""

LETTERS: dict[str, tuple[str, str]] = {
    "B": ("phrases d'un lot", "le second facteur de LoRA, BA (ch. 8)"),
    "b": ("bits d'un code (ch. 3)", "biais d'une couche"),
    "C": ("opérations d'un apprentissage, en FLOP (ch. 2)", "nombre de classes (ch. 6)"),
    "D": ("composantes d'une tête, D = d/H (ch. 1)", "jetons lus pendant l'apprentissage (ch. 2)"),
    "d": ("composantes d'un jeton (d_model)", ""),
    "H": ("têtes d'un bloc (n_head)", "la hessienne, dans GPTQ (ch. 3)"),
    "k": ("jetons gardés par top-k (ch. 1)", "une clé, dans une formule de l'attention"),
    "L": ("blocs (n_layer)", ""),
    "N": ("paramètres du modèle", "lignes de x, dans int8_linear (ch. 3)"),
    "p": ("une probabilité", ""),
    "q, k, v": ("requête, clé, valeur", "q : un code entier (ch. 3) ; une distribution (ch. 4)"),
    "r": ("rang d'une mise à jour (ch. 8)", "un réel que l'on quantifie (ch. 3)"),
    "S": ("l'échelle d'une grille, son pas (ch. 3)", "le bit de signe, dans la formule de FP32"),
    "T": ("jetons d'une phrase", "la température (ch. 4)"),
    "V": ("entrées du vocabulaire", ""),
    "W, ΔW": ("une matrice de poids, son changement", ""),
    "Z": ("le code du réel 0 (ch. 3)", ""),
}
"""Lettre → (ce qu'elle désigne, ce qu'elle désigne aussi, là où l'usage du domaine l'impose)."""


def _plain(word: str) -> str:
    """Sans accent ni majuscule."""
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(c))


def glossary(*words: str) -> None:
    """Le glossaire, français et anglais ; avec des mots, les seules entrées qui les contiennent."""
    wanted = [_plain(word) for word in words]
    rows = [
        [fr, en, meaning, f"chapitre {chapter}" if chapter else "accueil"]
        for fr, (en, meaning, chapter) in TERMS.items()
        if not wanted or any(word in _plain(f"{fr} {en}") for word in wanted)
    ]
    if not rows:
        note(f"Le glossaire n'a pas « {', '.join(words)} ». Sans mot, atelier.glossary() le montre en entier.")
        return
    table(rows, header=["mot du cours", "en anglais", "ce que c'est", "rencontré au"], caption="Un mot pour une chose")


def notations() -> None:
    """Les lettres des formules et des formes."""
    rows = [[letter, *meanings] for letter, meanings in LETTERS.items()]
    table(rows, header=["lettre", "désigne", "et aussi"], caption="Les lettres du cours")
