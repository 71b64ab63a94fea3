"""Ce qui garde la prison : la fermer, y faire entrer des cas, en lire les réponses."""
