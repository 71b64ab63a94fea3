# %% [markdown]
# # Accueil
#
# **Le but du cours, en une phrase :** découvrir comment on réduit la taille d'un modèle de langue, et comment on
# l'adapte à un texte ou à une tâche qu'il ne connaît pas.
#
# Nous le ferons sur un vrai modèle, assez petit pour tenir dans votre machine : **Colibri**, qui a l'architecture de
# GPT-2 et a appris le français sur de la prose libre. Vous le suivrez de chapitre en chapitre : vous compterez ses
# paramètres, vous stockerez ses poids sur 8 puis 4 bits, vous l'imiterez avec un modèle plus petit, vous
# l'élaguerez, vous lui apprendrez un autre style. Après chaque chapitre, un même tableau dira où il en est :
# sa qualité, sa taille, sa vitesse.
#
# Rien n'est montré ici qui ne soit calculé sous vos yeux. Commencez par la cellule suivante : cliquez dedans, puis
# **Maj + Entrée**.

# %%
import atelier
from atelier.figures.ch0 import chapter_links, chapter_map, demonstrate_check, write_on

atelier.describe_machine()

# %% [markdown]
# La première ligne dit quelle machine vous avez. La deuxième dit à quelle *échelle* les chapitres vont tourner : les
# mêmes cellules s'adaptent, sur deux cœurs de processeur comme sur une carte graphique. Vous n'avez rien à régler. La
# dernière dit où chercher un mot ou une lettre, depuis n'importe quel chapitre.

# %% [markdown]
# ## 0.1 Écoutez-le
#
# Un modèle de langue ne sait faire qu'une chose : devant un début de texte, donner une probabilité à chaque mot qui
# pourrait suivre. Qu'attendez-vous d'un modèle qui tient dans une pièce jointe ? **Exécutez, puis changez le début.**

# %%
write_on("Pour obtenir une carte d'identité, il faut")

# %% [markdown]
# La grammaire tient souvent, le sens s'égare vite. C'est ce qu'on peut espérer de quelques millions de paramètres ;
# GPT-2 en compte de 124 à 1 558 millions, et les plus grands d'aujourd'hui des centaines de milliards. Les gestes que
# vous apprendrez ici sont les mêmes à toutes les tailles : voyons lesquels.

# %% [markdown]
# ## 0.2 La carte

# %%
chapter_map()

# %% [markdown]
# Il y a deux façons de rendre un grand modèle utilisable. On peut le **réduire** : moins de bits par poids, moins de
# poids, ou un modèle plus petit qui imite le grand. On peut aussi l'**adapter** sans le refaire : quelques pas
# d'apprentissage, et parfois quelques milliers de paramètres ajoutés au lieu de millions modifiés. Avant cela, il faut
# savoir ce que contient le modèle et ce qu'il coûte.
#
# Une question pour la suite : si un modèle de 7 milliards de paramètres occupe 14 Go, sur combien de bits chaque poids
# est-il écrit ? Le chapitre 3 part de là.

# %%
chapter_links()

# %% [markdown]
# Les minutes et les points sont ceux des exercices du chapitre, sans les approfondissements (★), dont les points sont
# un bonus ; avec la lecture, comptez deux heures. Les points pèsent **dans** un chapitre : un exercice de 3 points y
# compte trois fois plus qu'un exercice de 1. D'un chapitre à l'autre, ils ne s'additionnent pas : chaque carnet est un
# devoir, noté sur 20, et c'est votre enseignant qui dit ce que vaut chacun.

# %% [markdown]
# | La diapositive « Plan » annonce | où c'est |
# |---|---|
# | *Finetuning : kesako ?* et *Le challenge du finetuning* | chapitre 6, après ce que coûte un modèle (chapitres 1 et 2) |
# | *Knowledge distillation* | chapitre 4, avec les deux autres façons de réduire (chapitres 3 et 5) |
# | *LoRA* | chapitre 8 |
# | *Adapters* | chapitre 7, avant LoRA, qui en reprend l'idée |
#
# Le « But du chapitre » de la diapositive est celui de tout ce cours : *découvrir comment on réduit la taille des
# paramètres et comment finetuner un modèle*. Les sujets d'exposé de la dernière diapositive ont le leur, le chapitre 9.

# %% [markdown]
# ## 0.3 Un exercice, comment ça se passe
#
# Un exercice est une fonction à compléter. Sous elle, une cellule `check(…)` l'essaie et vous répond aussitôt. Voyez
# plutôt : la fonction suivante devrait rendre le milieu de deux nombres, et une erreur s'y est glissée.
# **Exécutez la cellule, lisez la réponse, corrigez la fonction, exécutez à nouveau.**


# %%
def midpoint(a: float, b: float) -> float:
    """Le milieu de a et b."""
    return a + b / 2


demonstrate_check(midpoint)

# %% [markdown]
# Remarquez le premier cas : 2 et 2. La réponse montre l'entrée, ce qui était attendu, ce que vous avez obtenu et, quand
# l'erreur est connue, une piste. Elle ne montre jamais le code à écrire.
#
# | vous tapez | il se passe |
# |---|---|
# | `check(f)` | votre fonction `f` est essayée sur quelques cas que vous pouvez voir |
# | `hint(f)` | un indice s'ouvre, puis un autre si vous recommencez : des questions, de plus en plus précises |
# | `progress()` | vos exercices réussis, vos points, chapitre par chapitre |
# | **Maj + Entrée** | la cellule est exécutée, et la suivante choisie |
# | **Noyau → Redémarrer** | la mémoire est vidée ; votre texte reste |
# | **Exécuter → Tout exécuter** | tout le carnet, de haut en bas ; un exercice pas encore écrit le dit, et la suite continue |
#
# Un exercice que vous laissez de côté ne bloque rien : les expériences qui en dépendent montrent alors le résultat de
# l'auteur, en le disant, et deviennent les vôtres dès que `check` passe. `check` ne donne pas la note : elle se calcule
# sur d'autres cas, tirés au moment de la correction. Une fonction qui suit sa consigne n'a rien à en craindre. Un
# indice ne coûte rien non plus. La correction exécute votre carnet de haut en bas, et note ce qu'elle obtient : avant
# de rendre, redémarrez le noyau et exécutez tout, vous verrez ce qu'elle verra.
#
# Les questions à choix ne comptent pas non plus dans la note ; chaque réponse, juste ou fausse, a son explication.

# %% [markdown]
# ## 0.4 Où travailler, comment rendre
#
# | où | pour commencer | pour rendre |
# |---|---|---|
# | sur votre machine | `python cours.py` dans le dossier du cours | déposez le carnet (`.ipynb`) là où votre enseignant le demande |
# | sur un JupyterHub | menu **Nbgrader → Assignment List**, puis **Fetch** | même liste, **Submit** ; la correction : **Fetch Feedback** |
# | dans Colab | ouvrez le carnet depuis le dépôt du cours | **Fichier → Télécharger → .ipynb**, puis déposez-le |
#
# Avant de rendre : enregistrez (**Ctrl + S**), et gardez les cellules d'exercice à leur place, même vides. Ne supprimez
# pas les cellules `check` : la correction retrouve votre travail par elles. Vous pouvez ajouter autant de cellules que
# vous voulez.

# %% [markdown]
# ## 0.5 Les lettres et les mots
#
# Un mot désigne une chose, et une seule, dans tout le cours. Les lettres, elles, manquent : le domaine emploie les
# mêmes pour plusieurs choses. Voici ce que chacune désigne, et où elle change de sens.

# %%
atelier.notations()

# %%
atelier.glossary()

# %% [markdown]
# Dans un chapitre, `atelier.glossary("lot")` montre les seules entrées qui contiennent ce mot, français ou anglais.

# %% [markdown]
# ## 0.6 Où vous en êtes

# %%
atelier.progress()

# %% [markdown]
# Ce tableau est tenu à côté de vos carnets, dans `notebooks/.atelier` ; il n'est envoyé à personne. Revenez ici quand
# vous voulez, et exécutez à nouveau la cellule.
