"""Mesurer la correction : `python cours.py bench`."""
