"""Le scellé autour du processus des copies : la commande bubblewrap qui le lance, et que dire quand elle échoue.

Ce que le processus voit : le système et ce Python en lecture seule, `atelier`, les ressources publiques du cours sauf
les paquets de `check`. Ni le dépôt, ni le dossier de cours, ni les copies, ni le dossier personnel, ni le réseau.
"""

from __future__ import annotations

import os
import platform
import shutil
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import atelier
from atelier import paths
from grader import cgroups

UID = 65533
"""L'utilisateur que devient le processus quand root corrige. Il n'existe dans aucun annuaire et ne possède rien."""
COURSE = "/cours"
"""Où le cours est monté dans le scellé."""
HIDDEN_ASSETS = ("packs",)

UNSEALED = "COURS_SANS_ISOLEMENT"
"""Variable que pose `grade --sans-isolement` pour les processus qu'il lance. Absente : scellé, ou rien."""
LOUD = """\
╔══════════════════════════════════════════════════════════════════════════════════════════════════╗
║  SANS ISOLEMENT : le code des copies a vos droits, vos fichiers, votre réseau et les solutions.  ║
║  Ne corrigez ainsi que votre propre code, jamais celui d'un étudiant.                            ║
╚══════════════════════════════════════════════════════════════════════════════════════════════════╝"""

SYSTEM = (
    "/usr",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/fonts",
    "/etc/alternatives",
)
LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Souvent des liens vers /usr ; montés si ce sont de vrais dossiers (NixOS, vieux systèmes)."""
DEVICES = ("null", "zero", "full", "random", "urandom")

WAYS_OUT = """\
La correction exécute le code des étudiants, enfermé par le noyau Linux ; sans cela, elle ne commence pas.
Trois façons de continuer :
  1. corriger sur une machine Linux (un poste, une machine virtuelle, un serveur), avec bubblewrap ;
  2. corriger dans le conteneur de grader/conteneur/LISEZMOI.md (Docker ou Podman, aussi sur macOS et Windows) ;
  3. pour votre propre code seulement, jamais pour celui d'un autre : ajouter --sans-isolement."""


def wanted() -> bool:
    """Faux seulement pendant `unsealed()`."""
    return os.environ.get(UNSEALED) != "1"


@contextmanager
def unsealed() -> Iterator[None]:
    """Le temps du bloc, ce processus et ceux qu'il lance exécutent les copies sans scellé, et le disent."""
    print(LOUD, file=sys.stderr)
    before = os.environ.get(UNSEALED)
    os.environ[UNSEALED] = "1"
    try:
        yield
    finally:
        os.environ.pop(UNSEALED)
        if before is not None:
            os.environ[UNSEALED] = before


def missing() -> str:
    """Ce qui manque d'évidence à cette machine pour sceller, en une phrase ; "" si rien ne se voit d'avance."""
    from atelier.confine import MACHINES

    if sys.platform != "linux":
        return f"Ce système ({platform.system()}) n'a pas les espaces de noms de Linux."
    if platform.machine() not in MACHINES:
        return f"Le filtre d'appels système n'est écrit que pour x86_64 et aarch64, pas pour {platform.machine()}."
    if shutil.which("bwrap") is None:
        return "Il manque le programme bubblewrap (bwrap). Sur Debian ou Ubuntu : sudo apt install bubblewrap."
    return ""


def refusal(why: str) -> str:
    """Le refus complet, avec les trois façons d'en sortir."""
    return f"{why}\n\n{WAYS_OUT}".replace(" :", "\u00a0:").replace(" ;", "\u202f;")


def explain(log: str) -> str:
    """Une phrase sur ce que bubblewrap, ou le noyau, vient de refuser."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "aucune explication")
    text = f"Le noyau de cette machine n'a pas laissé enfermer le processus des copies ({last[:300]})."
    if _is_one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
        text += (
            " Ubuntu interdit par défaut les espaces d'utilisateurs aux programmes sans profil AppArmor : "
            "installez le profil de bwrap, ou lancez la correction avec sudo."
        )
    elif _is_zero("/proc/sys/kernel/unprivileged_userns_clone") or _is_zero("/proc/sys/user/max_user_namespaces"):
        text += (
            " Les espaces d'utilisateurs y sont désactivés : sudo sysctl kernel.unprivileged_userns_clone=1 "
            "user.max_user_namespaces=15000, ou lancez la correction avec sudo."
        )
    elif Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        text += " Ce processus tourne dans un conteneur, qui l'interdit sans les options de la recette."
    return text


def _is_one(path: str) -> bool:
    return _read(path) == "1"


def _is_zero(path: str) -> bool:
    return _read(path) == "0"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


# ---------------------------------------------------------------------------------------------- la commande


_PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def extra_packages() -> list[str]:
    """Les dossiers de paquets que ce Python ne trouverait pas seul : ceux de PYTHONPATH, celui de l'utilisateur."""
    asked = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), site.getusersitepackages()]
    return [p for p in sys.path if p in asked and Path(p).name in _PACKAGE_FOLDERS]


def library() -> list[Path]:
    """Les dossiers de ce Python et de ses paquets, hors /usr."""
    folders = [Path(p) for p in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)]
    folders += [Path(sys.executable).resolve().parent.parent, *map(Path, extra_packages())]
    kept: list[Path] = []
    for folder in folders:
        for known in (folder.absolute(), folder.resolve()):
            inside = any(known.is_relative_to(other) for other in (*kept, Path("/usr")))
            if os.path.isdir(known) and not inside and _holds_only_python(known):
                kept.append(known)
    return kept


def _holds_only_python(folder: Path) -> bool:
    """Faux pour la racine, un dossier personnel ou le dépôt du cours, qui contiennent bien autre chose qu'un Python."""
    return not any(place.resolve().is_relative_to(folder) for place in (Path.home(), paths.root()))


def shown() -> Iterator[tuple[Path, str]]:
    """Ce qui est monté en lecture seule : (chemin ici, chemin dans le scellé)."""
    for name in SYSTEM:
        if Path(name).exists():
            yield Path(name), name
    for folder in library():
        yield folder, str(folder)
    yield Path(atelier.__file__).resolve().parent, f"{COURSE}/atelier"
    yield paths.root() / "course.toml", f"{COURSE}/course.toml"
    assets = paths.root() / "assets"
    for path in sorted(assets.iterdir()) if assets.is_dir() else []:
        if path.name not in HIDDEN_ASSETS:
            yield path.resolve(), f"{COURSE}/assets/{path.name}"


def command(arguments: list[str], cgroup: Path | None = None) -> list[str]:
    """La commande bubblewrap complète de `python -m atelier.runner ARGUMENTS`. cgroup : le sien, s'il en a un."""
    bwrap = shutil.which("bwrap") or "bwrap"
    root = os.geteuid() == 0
    line = [bwrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"]
    line += ["--hostname", "correction", "--cap-drop", "ALL"]
    if root:  # de quoi monter /proc et changer d'utilisateur, ce que le processus fait avant toute autre chose
        line += ["--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        line += ["--dir", "/proc"]
        arguments = [*arguments, "--uid", str(UID)]
    else:
        line += ["--unshare-user", "--proc", "/proc"]
    mounts = [(str(source), target) for source, target in shown()]
    if cgroup is not None:
        line += ["--bind", str(cgroup), cgroups.INSIDE]
    parents = {str(p) for _, target in mounts for p in Path(target).parents} | {"/dev", "/dev/shm", "/tmp"}
    for folder in sorted(parents - {"/"}):  # sinon bubblewrap les crée fermés à qui n'est pas root
        line += ["--dir", folder]
    for source, target in mounts:
        line += ["--ro-bind", source, target]
    for name in LINKS:
        path = Path(name)
        if path.is_symlink():
            line += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            line += ["--ro-bind", name, name]
    for name in DEVICES:
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    line += ["--symlink", "/proc/self/fd", "/dev/fd"]
    line += ["--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--tmpfs", "/dev/shm"]
    line += ["--remount-ro", "/", "--chdir", "/tmp", "--"]
    line += [sys.executable, "-m", "atelier.runner", *arguments]
    if cgroup is not None:  # le processus tiède naît dans un coin de son cgroup
        return ["/bin/sh", "-c", 'echo $$ > "$0"/tiede/cgroup.procs && exec "$@"', str(cgroup), *line]
    return line


def environment() -> dict[str, str]:
    """Les variables du processus scellé : rien de l'enseignant."""
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([COURSE, *extra_packages()]),
        "PYTHONNOUSERSITE": "1",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "copie",
        "LANG": "C.UTF-8",
        "COURS_RACINE": COURSE,
    }
