"""La prison où tourne le code d'un étudiant : ce qui est dedans, ce qui la garde."""
