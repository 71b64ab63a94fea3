"""Ce qu'un étudiant malveillant pourrait rendre. Chaque attaque a un nom ; tests/test_attaques.py les corrige toutes.

Une attaque remplace la réponse à `spread` (3 points du cours d'essai), ajoute une cellule avant les réponses, ou abîme
le carnet, ses octets ou son fichier. `spread` dit ce que cette réponse mérite, `others` ce que les deux autres gardent
au moins : presque toujours tout. Dans les sources, @DEPOT@, @COURS@, @PORT@, @PRISE@ et @MARQUE@ sont remplacés par ce
que l'attaquant connaîtrait : le dépôt, le dossier de cours, un port et une prise ouverts dehors, une marque à laisser.
Une attaque qui trouve ce qu'elle ne devrait pas l'annonce par une erreur qui dit TROUVÉ.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from essai import cell_of
from nbformat import NotebookNode


@dataclass(frozen=True)
class Attack:
    """function : la réponse à `spread` ; cell : une cellule ajoutée ; le reste : voir l'en-tête du fichier."""

    family: str
    function: str = ""
    cell: str = ""
    change: Callable[[NotebookNode], NotebookNode] | None = None
    render: Callable[[bytes], bytes] | None = None
    place: Callable[[Path, bytes, Path], None] | None = None
    spread: float | None = None
    others: float = 3.0
    slow: bool = False

    @property
    def deserved(self) -> float:
        """Points que `spread` mérite."""
        return self.spread if self.spread is not None else 0.0 if self.function else 3.0


ATTACKS: dict[str, Attack] = {}


def function(name: str, family: str, source: str, **options: object) -> None:
    ATTACKS[name] = Attack(family, function=textwrap.dedent(source), **options)  # type: ignore[arg-type]


def cell(name: str, family: str, source: str, **options: object) -> None:
    ATTACKS[name] = Attack(family, cell=textwrap.dedent(source), **options)  # type: ignore[arg-type]


def notebook(name: str, family: str, **options: object) -> Callable:
    """Décorateur : la fonction abîme le carnet."""

    def keep(change: Callable[[NotebookNode], NotebookNode]) -> Callable:
        ATTACKS[name] = Attack(family, change=change, **options)  # type: ignore[arg-type]
        return change

    return keep


def octets(name: str, family: str, **options: object) -> Callable:
    """Décorateur : la fonction abîme les octets du fichier."""

    def keep(render: Callable[[bytes], bytes]) -> Callable:
        ATTACKS[name] = Attack(family, render=render, **options)  # type: ignore[arg-type]
        return render

    return keep


def fichier(name: str, family: str, **options: object) -> Callable:
    """Décorateur : la fonction écrit elle-même le fichier rendu (chemin, octets, dossier du cours)."""

    def keep(place: Callable[[Path, bytes, Path], None]) -> Callable:
        ATTACKS[name] = Attack(family, place=place, **options)  # type: ignore[arg-type]
        return place

    return keep


# ====================================================================================================== tricherie

CHEAT, LEAK, DENIAL, STAY, NETWORK, PARSER, PAGE = "triche", "fuite", "déni", "trace", "réseau", "lecture", "page"

function(
    "egal-a-tout",
    CHEAT,
    """
    class Same:
        def __eq__(self, other): return True
        def __sub__(self, other): return 0
        __rsub__ = __sub__
        def __abs__(self): return 0
        def __le__(self, other): return True
        def __float__(self): return 0.0
        def __hash__(self): return 0
    def spread(x):
        return Same()
    """,
)
function(
    "tenseur-egal-a-tout",
    CHEAT,
    """
    import torch
    class Same(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return torch.tensor(True)
    def spread(x):
        return torch.zeros(()).as_subclass(Same)
    """,
)
function(
    "liste-qui-ment-sur-sa-longueur",
    CHEAT,
    """
    class Liar(list):
        def __len__(self): return 10**9
        def __iter__(self): return iter(int, 1)
        def __getitem__(self, i): return 0
    def spread(x):
        return Liar()
    """,
)
function(
    "dictionnaire-menteur",
    CHEAT,
    """
    class Liar(dict):
        def keys(self): return {"status", "value"}
        def items(self): return [("status", "value"), ("ok", True)]
    def spread(x):
        return Liar(status="value", ok=True)
    """,
)
function(
    "flottant-menteur",
    CHEAT,
    """
    class Liar(float):
        def __eq__(self, other): return True
        def __abs__(self): return Liar(0)
        def __sub__(self, other): return Liar(0)
        def __float__(self): raise SystemExit
    def spread(x):
        return Liar(1)
    """,
)
function(
    "comparaison-remplacee",
    CHEAT,
    """
    import atelier.judging.compare as c
    yes = c.Verdict(True, "ok")
    c.compare = c._compare = lambda *a, **k: yes
    c.different = lambda a, b, t: a.new_zeros(a.shape, dtype=bool)
    def spread(x): return x
    """,
)
function(
    "torch-remplace",
    CHEAT,
    """
    import torch
    for name in ("equal", "allclose", "isclose", "eq"):
        setattr(torch, name, lambda *a, **k: torch.tensor(True))
    torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda a, b: torch.ones(a.shape, dtype=torch.bool)
    torch.Tensor.__ne__ = lambda a, b: torch.zeros(a.shape, dtype=torch.bool)
    def spread(x):
        return x * 0
    """,
)
function(
    "sonde-remplacee",
    CHEAT,
    """
    import atelier.judging.probes as probes, inside.runner as runner, atelier.judging.codec as codec
    fake = {"status": "value", "value": "ok", "modified": [], "ok": True, "score": 3, "verdict": "correct"}
    probes.run_case = lambda *a, **k: fake
    runner.run_one_case = lambda *a, **k: codec.dumps(fake)
    def spread(x):
        probes.run_case = lambda *a, **k: fake
        return fake
    """,
)
function(
    "codec-remplace",
    CHEAT,
    """
    import json, atelier.judging.codec as codec
    codec.encode = lambda v: ({"$": "dict", "v": {"status": "correct", "score": 3.0}}, {})
    json.dumps = lambda *a, **k: '{"status": "correct"}'
    def spread(x):
        return x
    """,
)
function(
    "paquets-de-check",
    CHEAT,
    """
    from pathlib import Path
    def spread(x):
        from atelier import paths
        found = [p for root in (paths.root(), Path("@DEPOT@")) for p in root.glob("assets/packs/*")]
        raise RuntimeError(f"fuite {found[0].read_bytes()[:200]!r}") if found else ValueError("rien")
    """,
)
function(
    "correction-importee",
    CHEAT,
    """
    import sys
    sys.path[:0] = ["@DEPOT@", "/work", "..", "/cours"]
    def spread(x):
        from grader.authoring.chapters import load_chapter
        return load_chapter("ch1_essai").reference("spread")(x)
    """,
)
function(
    "solution-lue",
    CHEAT,
    """
    def spread(x):
        space = {}
        exec(open("@DEPOT@/solutions/ch1_essai/chapter.py").read().split('exercise="spread"')[1], space)
        return space["spread"](x)
    """,
)
function(
    "carnet-resolu-lu",
    CHEAT,
    """
    import json
    def spread(x):
        cells = json.load(open("@COURS@/source/ch1_essai/ch1_essai.ipynb"))["cells"]
        space = {}
        for c in cells:
            if "def spread" in "".join(c["source"]):
                exec("".join(c["source"]), space)
        return space["spread"](x)
    """,
)
function(
    "cadres-d-appel",
    CHEAT,
    """
    import sys
    def spread(x):
        frame = sys._getframe()
        while frame:
            for space in (frame.f_locals, frame.f_globals):
                for name in ("expected", "reference", "answers", "solution"):
                    if name in space:
                        return space[name](x) if callable(space[name]) else space[name]
            frame = frame.f_back
        raise ValueError("rien")
    """,
)
function(
    "ramasse-miettes",
    CHEAT,
    """
    import gc, types
    def spread(x):
        for o in gc.get_objects():
            if isinstance(o, types.FunctionType) and o.__name__ == "spread" and o is not spread:
                return o(x)
            if type(o) is dict and type(o.get("expected")) is dict and "status" in o["expected"]:
                return o["expected"].get("value")
        raise ValueError("rien")
    """,
)
FRAMES = """
import json, os, struct
def frame(body):
    return struct.pack("<Q", len(body)) + body
def message(tree):
    head = json.dumps({"$": "dict", "v": tree}).encode()
    return frame(struct.pack("<Q", len(head)) + head)
def forge():
    good = message({"status": "value", "value": 3.0, "modified": [], "ok": True})
    good += frame(b"") + message({"event": "exercise_end", "exercise": "spread", "status": "done", "score": 3.0})
    good += message({"event": "end"})
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
            os.write(fd, good)
        except OSError:
            pass
"""
function("messages-forges", CHEAT, FRAMES + "def spread(x):\n    forge()\n    return x\n")
function("messages-forges-par-la-cellule", CHEAT, FRAMES + "forge()\ndef spread(x):\n    return x\n", others=0.0)
function(
    "messages-forges-par-un-frere",
    CHEAT,
    FRAMES + "if os.fork() == 0:\n    import time\n    for _ in range(50):\n        forge()\n        time.sleep(0.01)\n"
    "    os._exit(0)\ndef spread(x):\n    return x\n",
    others=0.0,
)
function(
    "descripteur-garde-d-un-exercice-a-l-autre",
    CHEAT,
    FRAMES + "kept = [os.dup(fd) for fd in range(3, 20) if not os.set_inheritable(fd, True)] if False else []\n"
    "for fd in range(3, 20):\n    try:\n        kept.append(os.dup(fd))\n    except OSError:\n        pass\n"
    "def spread(x):\n    forge()\n    os._exit(0)\n",
    others=0.0,
)
function("refuse-tout", CHEAT, "def spread(x):\n    raise ValueError('non')\n")
function("constante", CHEAT, "def spread(x):\n    return x.new_tensor(2.5)\n")
function("pas-un-nombre", CHEAT, "def spread(x):\n    return x.sum() * float('nan')\n")
function("infini", CHEAT, "def spread(x):\n    return x.sum() * 0 + float('inf')\n")
function(
    "devine-la-graine",
    CHEAT,
    """
    import random, torch
    def spread(x):
        torch.manual_seed(0); random.seed(0)
        y = torch.randn(6) + 5
        return y.max() - y.min()
    """,
)
function(
    "entree-abimee",
    CHEAT,
    "def spread(x):\n    x.zero_()\n    return x.max() - x.min()\n",
)
function(
    "entree-rendue-minuscule",
    CHEAT,
    "def spread(x):\n    x.set_(x.new_zeros(1).storage())\n    return x[0] - x[0]\n",
)
TENSORS = {
    "creux": "torch.zeros(1).to_sparse()",
    "sans-donnees": "torch.zeros(1, device='meta')",
    "quantifie": "torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8)",
    "imbrique": "torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])",
    "complexe": "torch.zeros((), dtype=torch.complex64)",
    "sans-fin": "torch.zeros(1).expand(10**13)",
    "conjugue": "torch.zeros((), dtype=torch.complex64).conj().imag",
    "hors-memoire": "torch.zeros(4).as_strided((10**6,), (1,))",
    "booleen-menteur": "torch.full((), 7, dtype=torch.uint8).view(torch.bool)",
    "float8": "torch.zeros((), dtype=torch.float8_e4m3fn)",
    "dans-un-parametre": "torch.nn.Parameter(torch.zeros(()))",
    "paresseux": "torch.nn.parameter.UninitializedParameter()",
}
for _name, _source in TENSORS.items():
    function(f"tenseur-{_name}", CHEAT, f"import torch\ndef spread(x):\n    return {_source}\n")
function(
    "structure-cyclique",
    CHEAT,
    "def spread(x):\n    a = []\n    a.append(a)\n    return a\n",
)
function(
    "structure-en-arbre-geant",
    CHEAT,
    "def spread(x):\n    a = [0]\n    for _ in range(18):\n        a = [a, a, a, a, a]\n    return a\n",
)


@notebook("sorties-forgees", CHEAT, spread=0.0)
def forged_outputs(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    for name in ("spread", "test_spread"):
        data = {"text/plain": "3.0"}
        cell_of(nb, name).outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
    return nb


@notebook("points-forges", CHEAT, spread=0.0)
def forged_points(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    for c in nb.cells:
        if "nbgrader" in c.metadata:
            c.metadata["nbgrader"] |= {"points": 1e9, "grade": True, "solution": True, "locked": False}
            c.metadata["nbgrader"] |= {"checksum": "0" * 32, "schema_version": 3, "cell_type": "code"}
    return nb


@notebook("notes-forgees", CHEAT, spread=0.0)
def forged_results(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    result = {"exercise": "spread", "score": 3.0, "max_score": 3.0, "verdict": "correct", "message": "", "groups": []}
    nb.metadata["atelier"] = {"results": [result], "notes": {}, "source": "0" * 64, "chapter": "0" * 16}
    return nb


@notebook("verification-modifiee", CHEAT, spread=0.0)
def edited_test(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    cell_of(nb, "test_spread").source = "def check(*a): return True\ncheck(1)\n3.0"
    return nb


@notebook("verification-en-double", CHEAT, spread=0.0)
def doubled_test(nb: NotebookNode) -> NotebookNode:
    cell_of(nb, "spread").source = "def spread(x):\n    return x.max()"
    twin = nbformat.from_dict(json.loads(json.dumps(cell_of(nb, "test_spread"))))
    twin.metadata["nbgrader"] |= {"points": 100}
    twin.source = "100"
    nb.cells += [twin, json.loads(json.dumps(twin))]
    return nb


@notebook("cellule-deguisee", CHEAT, spread=0.0)
def disguised(nb: NotebookNode) -> NotebookNode:
    """La cellule de vérification déclarée réponse, et la réponse déclarée vérification."""
    answer, test = cell_of(nb, "spread"), cell_of(nb, "test_spread")
    answer.source = "def spread(x):\n    return x.max()"
    answer.metadata["nbgrader"]["grade_id"], test.metadata["nbgrader"]["grade_id"] = "test_spread", "spread"
    return nb


@notebook("identifiants-confondus", CHEAT, spread=0.0)
def confusable(nb: NotebookNode) -> NotebookNode:
    """Des identifiants et des noms qui se ressemblent : cyrilliques, pleine largeur, caractères invisibles."""
    cell_of(nb, "spread").source = "def ѕpread(x):\n    return x.max() - x.min()\n"
    for grade_id in ("ѕpread", "spread\u200b", "ｓｐｒｅａｄ", "spread ", "../spread", "test_spread\n"):
        meta = {"nbgrader": {"grade_id": grade_id, "grade": True, "points": 50, "solution": True}}
        nb.cells.append(nbformat.v4.new_code_cell("50", metadata=meta))
    return nb


@notebook("prise-pour-refusee", CHEAT, spread=3.0)
def self_refused(nb: NotebookNode) -> NotebookNode:
    """Un mot réservé de la correction dans les métadonnées, et un carnet que nbformat refuserait."""
    nb.metadata["titre"] = {"a": ["atelier_refus", "b"]}
    nb["nbformat_minor"] = 0
    return nb


# ====================================================================================================== fuite

function(
    "environnement",
    LEAK,
    """
    import os
    def spread(x):
        text = str(dict(os.environ))
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    text += open(f"/proc/{pid}/environ").read()
                except OSError:
                    pass
        raise RuntimeError("fuite " + text[-400:] + ("TROUVÉ" if "SECRET" in text else ""))
    """,
)
function(
    "fichiers-de-l-enseignant",
    LEAK,
    """
    import os
    def spread(x):
        found = ""
        for top in ("@COURS@", "@DEPOT@", "/root", "/home", "/etc/shadow", "/var", "/run", "/sys", "/mnt"):
            try:
                found += top + str(os.listdir(top))
            except NotADirectoryError:
                found += open(top).read()
            except OSError:
                pass
        for path in ("@COURS@/gradebook.db", "@COURS@/secret.txt", "@COURS@/nbgrader_config.py", "/etc/passwd"):
            try:
                found += open(path, errors="replace").read()
            except OSError:
                pass
        raise RuntimeError("fuite " + found)
    """,
)
function(
    "copie-du-voisin",
    LEAK,
    """
    import glob
    def spread(x):
        found = "".join(open(p).read() for p in glob.glob("@COURS@/submitted/*/*/*.ipynb"))
        found += "".join(glob.glob("/tmp/**", recursive=True)) + "".join(glob.glob("/dev/shm/*"))
        raise RuntimeError("fuite " + found[:400])
    """,
)
function(
    "proc",
    LEAK,
    """
    import os
    def spread(x):
        found = ""
        for pid in [p for p in os.listdir("/proc") if p.isdigit()] + [str(os.getppid()), "1", "2", "10", "100"]:
            for name in ("cmdline", "maps", "cwd/secret.txt", "root/etc/shadow", "fd/0", "fd/3", "mem"):
                try:
                    with open(f"/proc/{pid}/{name}", "rb") as f:
                        found += repr(f.read(3000) if name != "mem" else b"")
                except (OSError, ValueError):
                    pass
        raise RuntimeError("fuite " + ("TROUVÉ" if "grader" in found.replace("correction", "") else "") + found[:100])
    """,
)
function(
    "memoire-du-parent",
    LEAK,
    """
    import ctypes, os, re
    def spread(x):
        libc = ctypes.CDLL(None, use_errno=True)
        answers = [libc.ptrace(16, ctypes.c_long(pid), 0, 0) for pid in (os.getppid(), 1)]
        kept = ctypes.create_string_buffer(64)
        class Iov(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
        local, remote = Iov(ctypes.addressof(kept), 64), Iov(id(x), 64)
        answers += [libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
                    for pid in (os.getppid(), 1)]
        raise RuntimeError("TROUVÉ") if max(answers) >= 0 else ValueError("rien")
    """,
)
function(
    "fichiers-core",
    LEAK,
    """
    import ctypes, glob, os, resource
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (10**9, 10**9))
    except (ValueError, OSError):
        pass
    def spread(x):
        if os.fork() == 0:
            ctypes.string_at(0)
        os.wait()
        raise RuntimeError("TROUVÉ") if glob.glob("core*") + glob.glob("/tmp/core*") else ValueError("rien")
    """,
)
function(
    "descripteurs-herites",
    LEAK,
    """
    import os, stat
    def spread(x):
        seen = []
        for fd in range(3, 4096):
            try:
                mode = os.fstat(fd).st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                seen.append(os.readlink(f"/proc/self/fd/{fd}"))
        raise RuntimeError(f"TROUVÉ {seen}") if seen else ValueError("rien")
    """,
)
function(
    "liens-symboliques",
    LEAK,
    """
    import os
    def spread(x):
        found = ""
        for i, target in enumerate(("@COURS@/secret.txt", "/proc/1/root/@COURS@/secret.txt", "@DEPOT@/solutions")):
            os.symlink(target, f"lien{i}")
            try:
                found += open(f"lien{i}").read()
            except OSError:
                pass
        raise RuntimeError("fuite " + found)
    """,
)
function(
    "noyau",
    LEAK,
    """
    import ctypes
    def spread(x):
        libc = ctypes.CDLL(None, use_errno=True)
        kept = ctypes.create_string_buffer(4096)
        log = libc.klogctl(3, kept, 4096)
        keys = libc.syscall(250, 0, -3, 0)
        raise RuntimeError("TROUVÉ") if log > 0 or keys >= 0 else ValueError("rien")
    """,
)
function(
    "prises-du-systeme",
    LEAK,
    """
    import socket
    def spread(x):
        joined = []
        for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
                     "/tmp/.X11-unix/X0", "\\0/tmp/.X11-unix/X0"):
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                joined.append(path)
            except OSError:
                pass
        raise RuntimeError(f"TROUVÉ {joined}") if joined else ValueError("rien")
    """,
)
cell(
    "boite-aux-lettres-depot",
    LEAK,
    """
    import ctypes, multiprocessing.shared_memory as shm, os, socket
    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")):
        try:
            open(folder + "/lettre", "w").write("@MARQUE@")
        except OSError:
            pass
    try:
        kept = shm.SharedMemory("lettre", create=True, size=64)
        kept.buf[:6] = b"lettre"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("\\0lettre")
        listening.listen()
    except OSError:
        pass
    ctypes.CDLL(None).shmget(4242, 64, 0o1666)
    """,
)
function(
    "boite-aux-lettres-relevee",
    LEAK,
    """
    import ctypes, os, socket
    def spread(x):
        found = [f for f in ("/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")) if os.path.exists(f + "/lettre")]
        try:
            socket.socket(socket.AF_UNIX).connect("\\0lettre")
            found.append("prise")
        except OSError:
            pass
        if ctypes.CDLL(None).shmget(4242, 64, 0) >= 0:
            found.append("shmget")
        raise RuntimeError(f"TROUVÉ {found}") if found else ValueError("rien")
    """,
)


@fichier("lien-symbolique-rendu", LEAK, spread=0.0, others=0.0)
def submitted_symlink(path: Path, data: bytes, course: Path) -> None:
    path.symlink_to(course / "submitted" / "honnete-0" / path.parent.name / path.name)


@fichier("lien-vers-la-base", LEAK, spread=0.0, others=0.0)
def submitted_gradebook(path: Path, data: bytes, course: Path) -> None:
    os.link(course / "gradebook.db", path)


@fichier("tube-rendu", DENIAL, spread=0.0, others=0.0)
def submitted_fifo(path: Path, data: bytes, course: Path) -> None:
    os.mkfifo(path)


@fichier("dossier-rendu", PARSER, spread=0.0, others=0.0)
def submitted_folder(path: Path, data: bytes, course: Path) -> None:
    path.mkdir()


# ====================================================================================================== déni

function("bombe-a-processus", DENIAL, "import os\ndef spread(x):\n    while True:\n        os.fork()\n", slow=True)
function(
    "bombe-a-fils",
    DENIAL,
    """
    import threading, time
    def spread(x):
        while True:
            threading.Thread(target=time.sleep, args=(60,)).start()
    """,
)
function("bombe-a-memoire", DENIAL, "def spread(x):\n    a = []\n    while True:\n        a.append(bytearray(10**8))\n")
function(
    "bombe-a-memoire-a-plusieurs",
    DENIAL,
    """
    import os, time
    def spread(x):
        for _ in range(8):
            if os.fork() == 0:
                kept = bytearray(800 * 2**20)
                time.sleep(30)
        time.sleep(30)
    """,
    slow=True,
)
function(
    "disque-plein",
    DENIAL,
    """
    def spread(x):
        for i in range(10**6):
            with open(f"plein{i}", "wb") as f:
                f.write(bytes(2**22))
    """,
)
function("fichier-a-trous", DENIAL, "def spread(x):\n    open('trou', 'wb').truncate(2**40)\n")
function("sortie-sans-fin", DENIAL, "def spread(x):\n    while True:\n        print('a' * 10**6)\n", slow=True)
function("reponse-geante", DENIAL, "import torch\ndef spread(x):\n    return torch.zeros(200_000_000)\n")
function("reponse-geante-en-texte", DENIAL, "def spread(x):\n    return 'a' * 10**8\n")
function("reponse-geante-en-liste", DENIAL, "def spread(x):\n    return [0] * 10**7\n")
function("reponse-en-cent-mille-listes", DENIAL, "def spread(x):\n    return [[]] * 100_000\n")
function(
    "mille-reponses-geantes",
    DENIAL,
    "import torch\ndef spread(x):\n    return [torch.zeros(1) for _ in range(50_000)]\n",
    slow=True,
)
function(
    "descripteurs-epuises",
    DENIAL,
    "def spread(x):\n    kept = []\n    while True:\n        kept.append(open('/dev/null'))\n",
)
function("boucle-sans-fin", DENIAL, "def spread(x):\n    while True:\n        pass\n", slow=True)
function(
    "boucle-en-c",
    DENIAL,
    "import itertools\ndef spread(x):\n    return max(itertools.repeat(1))\n",
    slow=True,
)
function(
    "signaux-ignores",
    DENIAL,
    """
    import signal
    def spread(x):
        signal.setitimer(signal.ITIMER_REAL, 0)
        for n in range(1, 64):
            try:
                signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
    slow=True,
)
function(
    "horloge-arretee",
    DENIAL,
    """
    import time
    time.monotonic = time.time = time.perf_counter = lambda: 0.0
    def spread(x):
        time.monotonic = lambda: 0.0
        while True:
            pass
    """,
    slow=True,
)
function("s-arrete", DENIAL, "import os, signal\ndef spread(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n", slow=True)
function("dort", DENIAL, "import time\ndef spread(x):\n    time.sleep(1000)\n", slow=True)
function(
    "etreinte-fatale",
    DENIAL,
    "import threading\ndef spread(x):\n    lock = threading.Lock()\n    lock.acquire()\n    lock.acquire()\n",
    slow=True,
)
function(
    "zombies",
    DENIAL,
    """
    import os
    def spread(x):
        for _ in range(1000):
            if os.fork() == 0:
                os._exit(0)
    """,
)
function("recursion", DENIAL, "import sys\nsys.setrecursionlimit(10**9)\ndef spread(x):\n    return spread(x) + 1\n")
function("entier-geant", DENIAL, "def spread(x):\n    return 10 ** 10 ** 8\n", slow=True)
function("entier-de-mille-chiffres", DENIAL, "def spread(x):\n    return 7 ** 5000\n")
function(
    "expression-reguliere",
    DENIAL,
    "import re\ndef spread(x):\n    return re.match('(a|aa)+$', 'a' * 60 + 'b')\n",
    slow=True,
)
function("faute-de-segmentation", DENIAL, "import ctypes\ndef spread(x):\n    return ctypes.string_at(0)\n")
function("abandon", DENIAL, "import os\ndef spread(x):\n    os.abort()\n")
function("sortie-de-python", DENIAL, "import os\ndef spread(x):\n    os._exit(0)\n")
function("tue-tout-le-monde", DENIAL, "import os\ndef spread(x):\n    os.kill(-1, 9)\n")
function(
    "tue-son-gardien",
    DENIAL,
    """
    import os
    def spread(x):
        for pid in [os.getppid(), *range(1, 400)]:
            if pid != os.getpid():
                try:
                    os.kill(pid, 9)
                except OSError:
                    pass
        return x
    """,
)
function("ferme-tout", DENIAL, "import os\ndef spread(x):\n    os.closerange(0, 65536)\n")
function(
    "priorite",
    DENIAL,
    """
    import os
    def spread(x):
        try:
            os.nice(-20)
        except OSError:
            pass
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    """,
)
cell("sort-dans-une-cellule", DENIAL, "import os\nos._exit(1)\n")
cell("boucle-dans-une-cellule", DENIAL, "while True:\n    pass\n", slow=True)
cell("leve-systemexit", DENIAL, "raise SystemExit\n")
cell(
    "leve-au-fond-d-une-classe",
    DENIAL,
    "class Boom:\n    def __init_subclass__(cls): raise KeyboardInterrupt\nclass B(Boom): pass\n",
)
cell("remplace-builtins", DENIAL, "import builtins\nbuiltins.len = builtins.isinstance = None\n")
cell(
    "type-par-defaut-et-graine",
    DENIAL,
    """
    import random, torch
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1); random.seed(1)
    torch.set_grad_enabled(False)
    torch.Tensor.__mul__ = torch.Tensor.__sub__ = torch.Tensor.max = None
    torch.nn.functional.softmax = None
    """,
)
cell(
    "fils-qui-restent",
    DENIAL,
    """
    import threading
    def spin():
        while True:
            pass
    for _ in range(6):
        threading.Thread(target=spin, daemon=True).start()
    """,
    slow=True,
)


@notebook("trois-cents-cellules-lentes", DENIAL, slow=True)
def slow_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells[1:1] = [nbformat.v4.new_code_cell(f"import time\ntime.sleep(4)  # {i}") for i in range(300)]
    return nb


# ====================================================================================================== trace

cell(
    "fichiers-laisses",
    STAY,
    """
    import os, site, sys, torch, atelier
    places = [*site.getsitepackages(), os.path.dirname(atelier.__file__), os.path.dirname(torch.__file__), "/cours",
              "@COURS@", "@DEPOT@", "/tmp", "/dev/shm", "/usr/lib", "/etc", "/root", os.path.expanduser("~"), "/", "."]
    for place in places:
        for name in ("sitecustomize.py", "usercustomize.py", "@MARQUE@.pth", "torch.py", "conftest.py"):
            try:
                os.makedirs(place, exist_ok=True)
                with open(os.path.join(place, name), "w") as f:
                    f.write("import os; os.environ['EMPOISONNE'] = '@MARQUE@'  # @MARQUE@")
            except OSError:
                pass
    """,
)
cell(
    "cache-empoisonne",
    STAY,
    """
    import glob, importlib.util, marshal, os, atelier
    code = compile("raise SystemExit  # @MARQUE@", "probes.py", "exec")
    body = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
    for folder in {os.path.dirname(atelier.__file__), "@DEPOT@/atelier", "@DEPOT@/grader"}:
        for path in [*glob.glob(folder + "/__pycache__/*"), folder + "/__pycache__/probes.cpython-311.pyc"]:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, "wb").write(body)
            except OSError:
                pass
    """,
)
cell(
    "processus-survivant",
    STAY,
    """
    import os, sys
    if os.fork() == 0:
        try:
            os.setsid()
        except OSError:
            pass
        if os.fork() == 0:
            os.closerange(0, 256)
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(300)  # @MARQUE@"])
        os._exit(0)
    """,
)
cell(
    "processus-tiede-altere",
    STAY,
    """
    import ctypes, gc, sys, types, torch, atelier, atelier.judging.probes, atelier.judging.codec
    torch.Tensor.max = lambda self: self.sum()
    atelier.judging.probes.run_case = lambda *a: {"status": "todo", "message": "@MARQUE@"}
    sys.modules["torch"].__dict__["tensor"] = None
    true = ctypes.cast(id(1) + 24, ctypes.POINTER(ctypes.c_uint32))
    for module in list(sys.modules.values()):
        if isinstance(module, types.ModuleType) and getattr(module, "__name__", "").startswith(("atelier.", "inside.")):
            module.__dict__["alteree"] = "@MARQUE@"
    """,
)
cell(
    "bibliotheque-recrite-en-memoire",
    STAY,
    """
    import ctypes, re
    libc = ctypes.CDLL(None, use_errno=True)
    for line in open("/proc/self/maps").read().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp .*libtorch_cpu", line)
        if found:
            start = int(found[1], 16)
            if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(4096), 7) == 0:
                ctypes.memset(start, 0xC3, 64)
            break
    """,
)

# ====================================================================================================== réseau

function(
    "boucle-locale",
    NETWORK,
    "import socket\ndef spread(x):\n    socket.create_connection(('127.0.0.1', @PORT@), 2)\n    return x\n",
)
function(
    "noms-de-domaine",
    NETWORK,
    "import socket\ndef spread(x):\n    found = socket.getaddrinfo('example.org', 80)\n    raise OSError('TROUVÉ')\n",
)
function(
    "prise-abstraite",
    NETWORK,
    "import socket\ndef spread(x):\n    socket.socket(socket.AF_UNIX).connect('\\0@PRISE@')\n    return x\n",
)
function(
    "adresse-des-nuages",
    NETWORK,
    "import urllib.request\ndef spread(x):\n    urllib.request.urlopen('http://169.254.169.254/latest', timeout=2)\n",
)
function(
    "toutes-les-familles",
    NETWORK,
    """
    import socket
    def spread(x):
        opened = []
        for family in range(2, 46):
            for kind in (1, 2, 3, 5):
                try:
                    socket.socket(family, kind)
                    opened.append((family, kind))
                except OSError:
                    pass
        raise RuntimeError(f"TROUVÉ {opened}") if opened else ValueError("rien")
    """,
)
function(
    "descripteurs-envoyes",
    NETWORK,
    """
    import array, os, socket
    def spread(x):
        for fd in range(3, 64):
            try:
                s = socket.socket(fileno=os.dup(fd))
                s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 8))])
            except OSError:
                pass
        return x
    """,
)

# ====================================================================================================== lecture


@octets("json-profond", PARSER, spread=0.0, others=0.0)
def deep_json(data: bytes) -> bytes:
    return b'{"cells": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"


@octets("json-en-objets-profonds", PARSER, spread=0.0, others=0.0)
def deep_objects(data: bytes) -> bytes:
    return b'{"cells": [' + b'{"source":' * 200_000


@octets("millions-de-valeurs", PARSER, spread=0.0, others=0.0)
def many_values(data: bytes) -> bytes:
    return b'{"cells": [' + b"[]," * 12_000_000 + b"[]]}"


@octets("chaine-jamais-refermee", PARSER, spread=0.0, others=0.0)
def open_string(data: bytes) -> bytes:
    return b'{"cells": ["' + b'\\"' * 1_250_000


@octets("figure-coupee", PARSER, spread=0.0, others=0.0)
def cut_figure(data: bytes) -> bytes:
    figure = json.dumps({"application/vnd.plotly.v1+json": {"data": [i / 7 for i in range(600_000)], "name": 'a "b"'}})
    return data[:-200] + b', {"outputs": [{"data": ' + figure.encode()


@octets("fichier-demesure", PARSER, spread=0.0, others=0.0, slow=True)
def huge(data: bytes) -> bytes:
    return b'{"cells": [{"cell_type": "code", "source": "' + b"a" * 105_000_000 + b'"}]}'


@octets("nombre-de-mille-chiffres", PARSER, spread=0.0, others=0.0)
def huge_number(data: bytes) -> bytes:
    return data.replace(b'"nbformat": 4', b'"nbformat": ' + b"9" * 100_000)


@octets("formes-de-carnet-absurdes", PARSER, spread=0.0, others=0.0)
def absurd(data: bytes) -> bytes:
    cells = [None, 3, [], {}, {"cell_type": []}, {"cell_type": "code", "source": {"a": 1}, "outputs": 5}]
    cells += [{"cell_type": "code", "source": [1, None, "x"], "metadata": {"nbgrader": {"grade_id": {}}}}]
    return json.dumps({"nbformat": "quatre", "metadata": 7, "cells": cells, "worksheets": [{"cells": 5}]}).encode()


@octets("feuilles-absurdes", PARSER, spread=0.0, others=0.0)
def absurd_sheets(data: bytes) -> bytes:
    return b'{"nbformat": 3, "worksheets": [{"cells": 5}, 7, {"cells": {"a": 1}}, {"cells": [{"cell_type": "code"}]}]}'


@octets("moities-de-caracteres", PARSER, spread=0.0)
def surrogates(data: bytes) -> bytes:
    tree = json.loads(data)
    for c in tree["cells"]:
        if c["metadata"].get("nbgrader", {}).get("grade_id") == "spread":
            c["source"] = "def spread(x):\n    raise ValueError('\ud800 \udfff \ud83d')\n    # \ud800"
    return json.dumps(tree).encode()


@octets("utf-16-tronque", PARSER, spread=0.0, others=0.0)
def cut_utf16(data: bytes) -> bytes:
    return data.decode().encode("utf-16")[:-501]


@notebook("dix-mille-cellules", PARSER, spread=0.0, others=0.0)
def many_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells += [{"cell_type": "markdown", "metadata": {}, "source": ""}] * 10_000
    return nb


function("parentheses-sans-fin", PARSER, "spread = " + "(" * 60_000 + ")" * 60_000)
function("somme-sans-fin", PARSER, "spread = " + "1+" * 90_000 + "1")
function("moins-sans-fin", PARSER, "spread = " + "-" * 150_000 + "1")
function("points-sans-fin", PARSER, "x = spread" + ".a" * 90_000)
function("octets-nuls", PARSER, "def spread(x):\n    return '\0'\n")
function("litteral-geant", PARSER, "def spread(x):\n    return " + "9" * 150_000 + "\n")
function("points-virgules-sans-fin", PARSER, "a;" * 90_000)
function("accolades-sans-fin", PARSER, "a = 0\nf'" + "{a}" * 60_000 + "'\n")
function("indentation-sans-fin", PARSER, "\n".join(" " * i + "if 1:" for i in range(150)))

# ====================================================================================================== page

HTML = "<script>alert('@MARQUE@')</script><img src=x onerror=alert(1)><iframe src='javascript:alert(1)'></iframe>"


@notebook("script-dans-une-sortie", PAGE)
def script_output(nb: NotebookNode) -> NotebookNode:
    data = {"text/html": HTML, "image/svg+xml": f"<svg onload='alert(1)'>{HTML}</svg>", "text/plain": HTML}
    data |= {
        "application/javascript": "alert(1)",
        "text/markdown": HTML,
        "text/latex": r"\href{javascript:alert(1)}{x}",
    }
    data |= {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "image/png": "'\"><script>alert(1)</script>",
    }
    cell_of(nb, "spread").outputs = [nbformat.v4.new_output("display_data", data=data)]
    return nb


@notebook("script-dans-le-texte", PAGE)
def script_markdown(nb: NotebookNode) -> NotebookNode:
    texts = [HTML, f"# Titre {HTML}", f"`{HTML}`", "<svg/onload=alert(1)>", "<a href='javascript:alert(1)'>x</a>"]
    texts += ["<div style='position:fixed;top:0;left:0'>3 / 3</div>", "<style>*{display:none}</style>", "<!-- x -->"]
    texts += ["$$ \\href{javascript:alert(1)}{x} $$", "<math><mtext><script>alert(1)</script></mtext></math>"]
    nb.cells += [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nb


@notebook("liens-a-script", PAGE)
def script_links(nb: NotebookNode) -> NotebookNode:
    texts = ["[x](javascript:alert(1))", "[x]( javascript:alert(1))", "[x](\njavascript:alert(1))", "[x](JaVaScRiPt:a)"]
    texts += ["[x](java&#115;cript:alert(1))", "[x](javascript&colon;alert(1))", "[x](data:text/html,<script>)"]
    texts += [
        "[x][r]\n\n[r]: javascript:alert(1)",
        "[r]:\n  javascript:alert(1)\n\n[x][r] [r]",
        "<javascript:alert(1)>",
    ]
    texts += [
        "![x](http://ailleurs.example/pixel.png)",
        "[x](vbscript:a)",
        "[x](<javascript:alert(1)>)",
        "[x](\\javascript:a)",
    ]
    nb.cells += [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nb


@notebook("cellule-brute", PAGE)
def raw_cells(nb: NotebookNode) -> NotebookNode:
    nb.cells += [nbformat.v4.new_raw_cell(HTML), nbformat.v4.new_raw_cell(HTML, metadata={"raw_mimetype": "text/html"})]
    return nb


@notebook("pieces-jointes-et-metadonnees", PAGE)
def attachments(nb: NotebookNode) -> NotebookNode:
    c = nbformat.v4.new_markdown_cell("![x](attachment:x.svg)")
    c["attachments"] = {"x.svg": {"image/svg+xml": HTML}}
    c.metadata["slideshow"] = {"slide_type": HTML}
    nb.metadata["title"] = nb.metadata["kernelspec"] = {"name": HTML, "display_name": HTML, "language": HTML}
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"x": {"model_module": HTML}}}}
    nb.cells.append(c)
    return nb


@notebook("script-dans-le-code", PAGE)
def script_code(nb: NotebookNode) -> NotebookNode:
    nb.cells.insert(1, nbformat.v4.new_code_cell(f'texte = """{HTML}"""'))
    return nb


function("script-dans-une-erreur", PAGE, f"def spread(x):\n    print({HTML!r})\n    raise ValueError({HTML!r})\n")
function("script-dans-une-valeur", PAGE, f"def spread(x):\n    return {{{HTML!r}: [{HTML!r}]}}\n")
function(
    "script-dans-un-nom",
    PAGE,
    f"E = type({HTML!r}, (Exception,), {{}})\ndef spread(x):\n    raise E({HTML!r})\n",
)
function(
    "retour-mis-en-scene",
    PAGE,
    """
    def spread(x):
        fake = "\\n✔ spread : 3 / 3\\n  Tous les cas cachés passent.\\n\\x1b[2J\\x1b[1;32m\\u202e3 / 3\\r"
        print(fake)
        return fake
    """,
)
function(
    "nom-sur-plusieurs-lignes",
    PAGE,
    """
    def spread(x):
        raise type("E\\n✔ spread : 3 / 3\\n\\x1b[2J\\u202e", (Exception,), {})("a\\n✔ spread : 3 / 3")
    """,
)
