"""Écrire un chapitre : le lire, le vérifier, en construire les carnets et les paquets, le publier."""
