"""Ce que plusieurs chapitres partagent : aspect, réglages, couches d'un GPT-2, tailles publiées, fichiers de poids."""
