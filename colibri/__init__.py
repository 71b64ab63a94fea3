"""Ce qui fabrique Colibri : son corpus (`corpus.py`, à partir de `sources.py`), puis son entraînement."""
