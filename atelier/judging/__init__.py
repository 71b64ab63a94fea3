"""Juger une réponse : partagé par `check` et par la correction. Pur, et sans réponse."""
