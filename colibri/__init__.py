"""Ce qui fabrique Colibri : son corpus (`corpus.py`, `sources.py`), puis son entraînement."""
