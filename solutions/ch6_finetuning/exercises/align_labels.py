"""Exercice `align_labels` du chapitre 6."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_align(d: Draw, group: str) -> Inputs:
    words = d.integer(5, 7)
    labels = [d.integer(0, 4) for _ in range(words)]
    silent = d.integer(1, words - 2)
    twin = d.choice([i for i in range(words - 1) if silent not in (i, i + 1)])
    labels[twin + 1] = labels[twin]
    labels[silent] = (labels[silent + 1] + d.integer(1, 4)) % 5
    pieces = [d.integer(1, 3) for _ in range(words)]
    long, short = d.random.sample([i for i in range(words) if i != silent], 2)
    pieces[long], pieces[short] = 3, 2
    if group == "courant":
        pieces[silent] = d.turn([1, 0, 0, 1])
    ids = [i for i, n in enumerate(pieces) for _ in range(n)]
    if group == "courant":
        return {"word_ids": [None, *ids, *[None] * d.integer(0, 2)], "word_labels": labels}
    return d.turn(
        [
            {"word_ids": ids, "word_labels": labels},
            {"word_ids": [None, *ids[: d.integer(3, 5)]], "word_labels": labels},
            {"word_ids": [None, *ids, None], "word_labels": [0] * words},
            {"word_ids": [[], [None] * d.integer(1, 4)][d.integer(0, 1)], "word_labels": labels},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=10,
    stars=1,
    hints=[
        "Prenez ['in', 'constitu', 'tion', 'nel'] : quatre jetons, un mot. Combien d'étiquettes à apprendre ?",
        "Un jeton commence un mot quand son numéro de mot n'est pas celui du jeton d'avant.",
        "L'étiquette se lit dans word_labels, à la place que donne le numéro du mot. Attention : le premier numéro "
        "est 0, "
        "et un mot peut n'avoir donné aucun jeton.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_align,
    visible=4,
    examples=[{"word_ids": [None, 0, 1, 1, 1, 2, None], "word_labels": [3, 0, 0]}],
)


misconceptions = """\
all_subwords   if word is None or word == previous: → if word is None:
    Un mot long compte chez vous plusieurs fois dans la perte.

last_subword   for word in word_ids: → for word, after in zip(word_ids, word_ids[1:] + [None]):
    & if word is None or word == previous: → if word is None or word == after:
    Votre étiquette est sur le dernier morceau de chaque mot ; l'énoncé la veut sur le premier.

specials_zero
    - if word is None or word == previous:
    + if word is None:
    +     labels.append(0)
    + elif word == previous:
    0 est une vraie étiquette : sur un jeton qui n'appartient à aucun mot, il n'y a rien à apprendre.

zeros_everywhere   labels.append(-100) → labels.append(0)
    0 est une vraie étiquette : la perte ne saura pas qu'il faut l'ignorer.

falsy_zero   if word is None or word == previous: → if not word or word == previous:
    Le premier mot porte le numéro 0 : que vaut 0 dans une condition ?

label_change   labels, previous = [], None → labels, previous = [], -1
    & if word is None or word == previous: → if word is None or word_labels[word] == previous:
    & previous = word → previous = -1 if word is None else word_labels[word]
    Deux mots voisins peuvent avoir la même étiquette : ce sont les numéros de mots qu'il faut comparer.

restarts
    - else:
    +     word = None
    + else:
    Un mot en trois morceaux reçoit chez vous deux étiquettes : votre mémoire du mot précédent s'efface en route.

counts_words   labels, previous = [], None → labels, previous, following = [], None, iter(word_labels)
    & labels.append(word_labels[word]) → labels.append(next(following))
    Vous distribuez les étiquettes dans l'ordre : un mot qui n'a donné aucun jeton décale toutes les suivantes.

specials_dropped
    - if word is None or word == previous:
    + if word is None:
    +     continue
    + if word == previous:
    La sortie doit rester alignée avec les jetons : une valeur pour chacun, même spécial.

subwords_dropped
    - if word is None or word == previous:
    + if word is not None and word == previous:
    +     continue
    + if word is None:
    Vous rendez une étiquette par mot : il en faut une par jeton.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def align_set(word_ids, word_labels):
    seen = set()
    out = []
    for w in word_ids:
        if w is not None and w not in seen:
            out.append(word_labels[w])
            seen.add(w)
        else:
            out.append(-100)
    return out


def align_zip(word_ids, word_labels):
    before = [None, *word_ids[:-1]]
    return [-100 if w is None or w == b else word_labels[w] for w, b in zip(word_ids, before, strict=False)]


def align_first_index(word_ids, word_labels):
    out = [-100] * len(word_ids)
    for i, label in enumerate(word_labels):
        if i in word_ids:
            out[word_ids.index(i)] = label
    return out


def align_index(word_ids, word_labels):
    return [
        word_labels[w] if w is not None and (i == 0 or word_ids[i - 1] != w) else -100 for i, w in enumerate(word_ids)
    ]


styles = [align_set, align_zip, align_first_index, align_index]
