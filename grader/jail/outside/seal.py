"""Le scellé autour du processus des copies : la commande bubblewrap qui le lance, et que dire quand elle échoue.

Ce que le processus voit : le système et ce Python en lecture seule, `atelier`, les ressources publiques du cours sauf
les paquets de `check`. Ni le dépôt, ni le dossier de cours, ni les copies, ni le dossier personnel, ni le réseau.
Tout ce qui n'est pas du système y est monté à une place fixe (`PYTHON`, `COURSE`) : celle qu'il a ici n'y paraît pas et
ne compte pas, fût-elle sous /tmp, dans un dossier personnel ou derrière un lien.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import atelier
from atelier import paths
from grader import variables
from grader.jail import inside
from grader.jail.outside import cgroups

UID = 65533
"""L'utilisateur que devient le processus quand root corrige. Il n'existe dans aucun annuaire et ne possède rien."""
COURSE = "/cours"
"""Où le cours est monté dans le scellé."""
PYTHON = "/python"
"""Où ce Python y est monté, s'il n'est pas du système : `bin`, `lib` et `paquets/N`."""
HIDDEN_ASSETS = ("packs",)

UNSEALED = "COURS_SANS_ISOLEMENT"
"""Variable que pose `grade --unsealed` pour les processus qu'il lance. Absente : scellé, ou rien."""
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
  3. pour votre propre code seulement, jamais pour celui d'un autre : ajouter --unsealed."""


def wanted() -> bool:
    """Faux seulement pendant `unsealed()`."""
    return os.environ.get(UNSEALED) != "1"


@contextmanager
def unsealed() -> Iterator[None]:
    """Le temps du bloc, ce processus et ceux qu'il lance exécutent les copies sans scellé, et le disent."""
    print(LOUD, file=sys.stderr)
    with variables(**{UNSEALED: "1"}):
        yield


def missing() -> str:
    """Ce qui manque d'évidence à cette machine pour sceller, en une phrase ; "" si rien ne se voit d'avance."""
    from grader.jail.inside.syscalls import MACHINES

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


PACKAGE_FOLDERS = ("site-packages", "dist-packages", "lib-dynload")


@dataclass(frozen=True)
class Interpreter:
    """Ce Python, tel qu'il est dans le scellé : le programme, ce qu'il faut monter pour lui, et son `sys.path`."""

    program: str
    mounts: dict[Path, str]
    path: list[str]


def interpreter() -> Interpreter:
    """Le programme, la bibliothèque standard et les dossiers de paquets de ce Python, là où ils seront montés.

    Rien d'autre n'est pris de l'endroit où il est installé, qui peut être le dossier personnel ou celui du cours. Un
    environnement virtuel n'est qu'un dossier de paquets de plus : on lance le Python dont il est fait.
    """
    program, library = Path(sys.executable).resolve(), Path(os.__file__).resolve().parent.parent
    mounts: dict[Path, str] = {}
    if not of_the_system(program):
        mounts[program] = f"{PYTHON}/bin/{program.name}"
    if not of_the_system(library):
        mounts[library] = f"{PYTHON}/{library.name}"
    path: list[str] = []
    for folder in (Path(p).resolve() for p in sys.path if p):
        if not folder.is_dir():
            continue
        if not of_the_system(folder) and not folder.is_relative_to(library) and folder.name in PACKAGE_FOLDERS:
            mounts.setdefault(folder, f"{PYTHON}/paquets/{len(mounts)}")
        if (there := _inside(folder, mounts)) is not None:
            path.append(there)
    return Interpreter(_inside(program, mounts) or str(program), mounts, list(dict.fromkeys(path)))


def of_the_system(path: Path) -> bool:
    """Vrai sous /usr, qui est monté tel quel ; faux pour ce que le dossier du cours ou de l'enseignant y aurait mis."""
    return path.is_relative_to("/usr") and not any(path.is_relative_to(place) for place in _private())


def _private() -> list[Path]:
    """Le dossier du cours et celui de l'enseignant (quand ce n'est pas la racine, comme pour un service)."""
    places = (paths.root().resolve(), Path(os.path.expanduser("~")).resolve())
    return [place for place in places if not Path("/usr").is_relative_to(place)]


def _inside(path: Path, mounts: dict[Path, str]) -> str | None:
    """Ce chemin, vu du scellé ; None s'il n'y est pas."""
    if of_the_system(path):
        return str(path)
    for source, target in mounts.items():
        if path.is_relative_to(source):
            return os.path.normpath(f"{target}/{path.relative_to(source)}")
    return None


def shown() -> Iterator[tuple[Path, str]]:
    """Ce qui est monté en lecture seule : (chemin ici, chemin dans le scellé)."""
    for name in SYSTEM:
        if Path(name).exists():
            yield Path(name), name
    yield from interpreter().mounts.items()
    yield Path(atelier.__file__).resolve().parent, f"{COURSE}/atelier"
    yield Path(inside.__file__).resolve().parent, f"{COURSE}/inside"
    yield (paths.root() / "course.toml").resolve(), f"{COURSE}/course.toml"
    assets = paths.root() / "assets"
    for path in sorted(assets.iterdir()) if assets.is_dir() else []:
        if path.name not in HIDDEN_ASSETS:
            yield path.resolve(), f"{COURSE}/assets/{path.name}"


def covered(mounts: Sequence[tuple[Path, str]]) -> list[str]:
    """Les dossiers du cours et de l'enseignant qu'un montage plus large montrerait : un dossier vide les y recouvre.

    Un atelier installé dans ce Python en est : celui des copies est celui du cours, sans ses paquets.
    """
    installed = [Path(p, "atelier").resolve() for p in sys.path if Path(p, "atelier", "assets").is_dir()]
    found = {
        os.path.normpath(f"{target}/{place.relative_to(source)}")
        for place in (*_private(), *installed)
        for source, target in mounts
        if place.is_relative_to(source) and place != source
    }
    return sorted(place for place in found if not found & {str(parent) for parent in Path(place).parents})


def command(arguments: list[str], cgroup: Path | None = None) -> list[str]:
    """La commande bubblewrap complète de `python -m inside.runner ARGUMENTS`. cgroup : le sien, s'il en a un."""
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
    mounts = list(shown())
    if cgroup is not None:
        line += ["--bind", str(cgroup), cgroups.INSIDE]
    parents = {str(p) for _, target in mounts for p in Path(target).parents} | {"/dev", "/dev/shm", "/tmp"}
    for folder in sorted(parents - {"/"}):  # sinon bubblewrap les crée fermés à qui n'est pas root
        line += ["--dir", folder]
    for source, target in mounts:
        line += ["--ro-bind", str(source), target]
    for folder in covered(mounts):
        line += ["--tmpfs", folder, "--remount-ro", folder]
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
    line += [interpreter().program, "-m", "inside.runner", *arguments]
    if cgroup is not None:  # le processus tiède naît dans un coin de son cgroup
        return ["/bin/sh", "-c", 'echo $$ > "$0"/tiede/cgroup.procs && exec "$@"', str(cgroup), *line]
    return line


def environment() -> dict[str, str]:
    """Les variables du processus scellé : rien de l'enseignant."""
    python = interpreter()
    libraries = [t for t in python.mounts.values() if t.startswith(f"{PYTHON}/lib")]
    shared = {"LD_LIBRARY_PATH": libraries[0]} if libraries and sysconfig.get_config_var("Py_ENABLE_SHARED") else {}
    return {
        **shared,  # la place de libpython est écrite en dur dans le programme
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([COURSE, *python.path]),
        "PYTHONNOUSERSITE": "1",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "copie",
        "LANG": "C.UTF-8",
    }
