"""Le scellé : ce que le processus des copies voit, ce que le noyau lui refuse, et ce qu'il a le droit d'user."""

from __future__ import annotations

import os
import platform
import re
import socket
import textwrap
import time
from pathlib import Path

import pytest
from conftest import ROOT
from sealed import HONEST, INPUTS, ask, honest

from grader.jail.inside import kernel, syscalls
from grader.jail.outside import cgroups, seal
from grader.jail.outside.dialogue import CodeCell, Task
from grader.jail.outside.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        assert box.sealed
        yield box


# --- ce qu'une copie voit ---------------------------------------------------------------------------------------------


def test_it_sees_the_system_and_nothing_of_the_course(sandbox, monkeypatch):
    seen = ask(
        sandbox,
        """
        import os
        def f(x):
            return {d: sorted(os.listdir(d)) for d in ("/", "/tmp", "/dev", "/etc", "/cours", "/cours/assets")}
        """,
    )
    assert seen["/tmp"] == [] and "packs" not in seen["/cours/assets"]
    assert set(seen["/cours"]) <= {"atelier", "inside", "assets", "course.toml"}
    assert set(seen["/dev"]) == {"fd", "full", "null", "random", "shm", "urandom", "zero"}
    assert set(seen["/etc"]) <= {Path(p).name for p in seal.SYSTEM}
    system = {Path(p).name for p in seal.LINKS} | {"usr", "etc", "dev", "proc", "tmp", "cgroup"}
    assert set(seen["/"]) <= system | {"cours", "python"}, "ni /home, ni /root, ni /work, où que soit ce cours"
    paths = [str(ROOT / p) for p in ("grader", "solutions", "tests", "notebooks", ".git", "assets/packs")]
    paths += [str(Path.home() / p) for p in (".ssh", ".bashrc", ".jupyter", ".cache")]
    gone = ask(sandbox, f"import os\ndef f(x):\n    return [p for p in {paths!r} if os.path.exists(p)]")
    assert gone == []


def test_it_is_nobody_alone_and_without_privilege(sandbox):
    seen = ask(
        sandbox,
        """
        import os
        def f(x):
            status = dict(line.split(":\\t") for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
            pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
            links = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) < 1000
                     and os.path.lexists(f"/proc/self/fd/{n}")]
            return {"status": status, "uid": os.getuid(), "pids": pids, "links": links, "env": dict(os.environ)}
        """,
    )
    status = seen["status"]
    assert [status[k] for k in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == ["0" * 16] * 4
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and status["Threads"] == "1"
    assert max(seen["pids"]) < 10, "les processus des autres se voient"
    if os.geteuid() == 0:
        assert seen["uid"] == seal.UID
    assert not [x for x in seen["links"] if not re.match(r"/dev/null|pipe:|socket:|/proc/\d+/fd", x)]
    assert sum("socket:" in x for x in seen["links"]) <= 1
    allowed = {"PWD", "OMP_WAIT_POLICY", "TORCHINDUCTOR_CACHE_DIR", "COURS_ETAT", "LC_CTYPE", "KMP_DUPLICATE_LIB_OK"}
    allowed |= {"KMP_INIT_AT_FORK", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCH_FR_BUFFER_SIZE", "KMP_BLOCKTIME"}
    assert set(seen["env"]) <= set(sandbox.environment()) | allowed
    assert str(Path.home()) not in {v for k, v in seen["env"].items() if k != "PATH"}


def test_nothing_can_be_written_but_the_private_disk(sandbox):
    seen = ask(
        sandbox,
        """
        import os
        def f(x):
            done = []
            for folder, _, files in os.walk("/"):
                if folder.startswith(("/proc", "/tmp", "/dev/shm")):
                    continue
                if os.access(folder, os.W_OK):
                    done.append(folder)
                if folder.count("/") > 3:
                    continue
                for name in files[:50]:
                    path = os.path.join(folder, name)
                    if os.path.isfile(path) and not path.startswith("/dev/") and os.access(path, os.W_OK):
                        done.append(path)
            return done
        """,
        30.0,
    )
    assert seen == []


def test_the_private_disk_is_bounded_and_forgotten(sandbox):
    fill = """
        import os
        def f(x):
            total = 0
            for place in ("/tmp", "/dev/shm"):
                try:
                    for i in range(100):
                        with open(f"{place}/plein{i}", "wb") as out:
                            for _ in range(8):
                                out.write(bytes(1 << 20)); total += 1
                except OSError:
                    pass
            return total
        """
    assert ask(sandbox, fill) <= 130
    assert ask(sandbox, "import os\ndef f(x):\n    return os.listdir('/tmp') + os.listdir('/dev/shm')") == []


# --- ce que le noyau refuse -------------------------------------------------------------------------------------------

CALLS = """
    import ctypes, platform
    libc = ctypes.CDLL(None, use_errno=True)
    def f(x):
        found = {{}}
        for name, number in {calls!r}.items():
            answer = libc.syscall(number, 0, 0, 0, 0, 0, 0)
            found[name] = ctypes.get_errno() if answer == -1 else 0
        return found
    """


def test_every_denied_call_is_denied(sandbox):
    column = syscalls.MACHINES[platform.machine()][1]
    calls = {name: pair[column] for name, pair in syscalls.DENIED.items()}
    found = ask(sandbox, CALLS.format(calls=calls))
    assert {name for name, error in found.items() if error != 1} == set()


def test_no_new_namespace_whatever_the_door(sandbox):
    found = ask(
        sandbox,
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        clone, clone3 = {"x86_64": (56, 435), "aarch64": (220, 435)}[os.uname().machine]
        def f(x):
            errors = []
            for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
                answer = libc.syscall(clone, flag | 17, 0, 0, 0, 0)
                if answer == 0:
                    os._exit(0)
                errors.append(ctypes.get_errno() if answer == -1 else 0)
            libc.syscall(clone3, 0, 0)
            return errors + [ctypes.get_errno()]
        """,
    )
    assert found == [1] * 7 + [38]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="les numéros x32 n'existent que sur x86_64")
def test_the_other_numbering_of_calls_kills(sandbox):
    seen = ask(sandbox, "import ctypes\ndef f(x):\n    return ctypes.CDLL(None).syscall(0x40000000 + 39)")
    assert seen["status"] == "raised" and seen["error"] == "arrêt du processus"


@pytest.mark.parametrize(
    ("machine", "header", "column"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h", 0), ("aarch64", "asm-generic/unistd.h", 1)],
)
def test_call_numbers_are_those_of_the_kernel_headers(machine, header, column):
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip(f"les en-têtes du noyau ({path}) ne sont pas installés")
    pattern = re.compile(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)")
    known = {name: int(number) for name, number in pattern.findall(path.read_text())}
    ours = {name: pair[column] for name, pair in syscalls.DENIED.items()}
    if column == 0:
        ours |= syscalls.DENIED_X86
    assert {n: v for n, v in ours.items() if known.get(n, v) != v} == {}
    assert {n for n in ours if n not in known} <= {"quotactl_fd", "memfd_secret", "process_madvise", "mount_setattr"}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_does_what_its_table_says(machine):
    """Le filtre est interprété ici, instruction par instruction, pour les deux machines."""
    arch, column = syscalls.MACHINES[machine]
    for name, pair in syscalls.DENIED.items():
        assert simulate(machine, arch, pair[column]) == 0x00050001, name
    clone, socket_, ioctl = (pair[column] for pair in (syscalls._CLONE, syscalls._SOCKET, syscalls._IOCTL))
    assert simulate(machine, arch, clone, 0x00010000 | 17) == 0x7FFF0000
    assert simulate(machine, arch, clone, 0x10000000 | 17) == 0x00050001
    assert simulate(machine, arch, socket_, 1) == 0x7FFF0000
    assert {simulate(machine, arch, socket_, domain) for domain in (2, 10, 16, 17, 38, 40)} == {0x0005000D}
    assert simulate(machine, arch, ioctl, 0, 0x5412) == 0x00050001
    assert simulate(machine, arch, ioctl, 0, 0x5413) == 0x7FFF0000
    assert simulate(machine, arch, syscalls._CLONE3[column]) == 0x00050026
    assert simulate(machine, 0x40000003, 1) == 0x80000000  # i386
    read, write = {"x86_64": (0, 1), "aarch64": (63, 64)}[machine]
    assert {simulate(machine, arch, read), simulate(machine, arch, write)} == {0x7FFF0000}


def simulate(machine: str, arch: int, number: int, first: int = 0, second: int = 0) -> int:
    """Ce que le filtre décide d'un appel."""
    import struct

    code = syscalls.seccomp_program(machine)
    program = [struct.unpack_from("<HBBI", code, 8 * i) for i in range(len(code) // 8)]
    data = {0: number, 4: arch, 16: first, 24: second}
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            accumulator = data[value]
            continue
        test = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
        at += if_true if test else if_false


def test_an_unknown_machine_is_refused():
    with pytest.raises(kernel.ConfineError, match="riscv64"):
        syscalls.seccomp_program("riscv64")


# --- réseau -----------------------------------------------------------------------------------------------------------


def test_no_network_of_any_kind(sandbox):
    with socket.socket() as outside, socket.socket(socket.AF_UNIX) as abstract:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        abstract.bind(f"\0cours-{os.getpid()}")
        abstract.listen()
        port, name = outside.getsockname()[1], f"cours-{os.getpid()}"
        seen = ask(
            sandbox,
            f"""
            import socket
            def f(x):
                found = {{}}
                for family in range(2, 46):
                    try:
                        socket.socket(family, socket.SOCK_STREAM).close()
                        found["famille " + str(family)] = "ouverte"
                    except OSError:
                        pass
                tries = {{
                    "loopback": lambda: socket.create_connection(("127.0.0.1", {port}), 2),
                    "dns": lambda: socket.getaddrinfo("example.org", 80),
                    "abstract": lambda: socket.socket(socket.AF_UNIX).connect("\\0{name}"),
                }}
                for key, act in tries.items():
                    try:
                        act()
                        found[key] = "joint"
                    except OSError:
                        pass
                return found
            """,
        )
    assert seen == {}


# --- plafonds ---------------------------------------------------------------------------------------------------------

BOMBS = {
    "processus": """
        import os, time
        def f(x):
            made = 0
            try:
                while made < 500:
                    if os.fork() == 0:
                        time.sleep(30)
                        os._exit(0)
                    made += 1
            except OSError:
                pass
            return made
        """,
    "fils": """
        import threading, time
        def f(x):
            made = 0
            try:
                while made < 500:
                    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
                    made += 1
            except RuntimeError:
                pass
            return made
        """,
    "fichiers": """
        def f(x):
            kept = []
            try:
                while len(kept) < 5000:
                    kept.append(open("/dev/null"))
            except OSError:
                pass
            return len(kept)
        """,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_bounded_and_leave_nothing(sandbox, bomb):
    assert 0 < ask(sandbox, BOMBS[bomb]) < 130


def test_a_process_that_flees_dies_with_its_copy(sandbox):
    mark = f"{time.time():.6f}"
    ask(
        sandbox,
        f"""
        import os, subprocess, sys
        def f(x):
            for _ in range(2):
                if os.fork():
                    return 1
                try:
                    os.setsid()
                except OSError:
                    pass
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60) # {mark}"])
        """,
    )
    deadline = time.monotonic() + 5
    while commands_with(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not commands_with(mark)


def commands_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_memory_of_all_processes_together_is_bounded(sandbox):
    cells = [
        CodeCell(
            "a",
            textwrap.dedent("""
            import os, time
            def f(x):
                for _ in range(6):
                    if os.fork() == 0:
                        block = bytearray(900 * 1024 * 1024)
                        time.sleep(20)
                        os._exit(0)
                time.sleep(20)
            """),
            "solution",
            "f",
        ),
        HONEST,
    ]
    report = sandbox.run(cells, [Task("h", "call", 2.0, INPUTS), Task("f", "call", 15.0, INPUTS)])
    assert honest(report) and report.tasks["f"].status == "died", "tuée avant sa limite de temps"


def test_a_whole_copy_has_an_end(sandbox, monkeypatch):
    assert ask(sandbox, "def f(x):\n    return 1") == 1
    monkeypatch.setattr("grader.jail.outside.sandbox.COPY_SECONDS", 6.0)
    names = [f"f{i}" for i in range(20)]
    cells = [HONEST, *(CodeCell(n, f"def {n}(x):\n    while True: pass", "solution", n) for n in names)]
    launches, launch = [], sandbox._launch
    monkeypatch.setattr(sandbox, "_launch", lambda folder: launches.append(folder) or launch(folder))
    report = sandbox.run(cells, [Task("h", "call", 2.0, INPUTS), *(Task(n, "call", 2.0, INPUTS * 3) for n in names)])
    assert honest(report) and {report.tasks[n].status for n in names} == {"timeout"}
    assert len(launches) < len(names), "chaque exercice qui boucle en demanderait un autre"


def test_waiting_for_a_core_is_not_the_student_s_time_but_sleeping_is(monkeypatch):
    from grader.jail.inside import cells

    lost, read = [0.0], []
    monkeypatch.setattr(cells, "waited", lambda pid="self": read.append(pid) or lost[0])
    with pytest.raises(cells.TimeUp), cells.interrupt_after(0.2, patience=5.0):
        time.sleep(5)
    assert len(read) == 2, "lue au début, puis à la limite, qui n'a pas été repoussée"
    with cells.interrupt_after(0.2, patience=5.0) as fired:
        lost[0] = 0.6
        time.sleep(0.5)
    assert not fired()
    with pytest.raises(cells.TimeUp), cells.interrupt_after(0.1, patience=2.0):
        lost[0] = 100.0
        time.sleep(5)


def test_without_cgroups_everything_holds_on_limits_alone(monkeypatch):
    monkeypatch.setattr(cgroups, "mount_point", lambda: None)
    with Sandbox() as box:
        assert ask(box, "import os\ndef f(x):\n    return os.path.exists('/cgroup')") is False
        assert box._cgroup is None


def test_each_copy_has_its_own_cgroup_where_the_machine_allows(monkeypatch):
    """Sans contrôleurs de version 2 sur cette machine, la mécanique est éprouvée avec un cgroup sans plafonds."""
    mount = cgroups.mount_point()
    if mount is None or not list(cgroups.candidates(mount)):
        pytest.skip("cette machine n'accorde pas de cgroup de version 2 à cet utilisateur")
    real = cgroups.create(None)
    if real is None:
        create = cgroups.create
        monkeypatch.setattr(cgroups, "create", lambda uid: create(uid, frozenset()))
    else:
        cgroups.remove(real)
    with Sandbox() as box:
        seen = ask(
            box,
            """
            import os
            def f(x):
                return [open("/proc/self/cgroup").read(), os.listdir("/cgroup"), os.access("/cgroup", os.W_OK)]
            """,
        )
        assert "0::/\n" in seen[0] and seen[1:] == [[], False]
        folder = box._cgroup
        assert folder is not None
        for _ in range(3):
            time.sleep(0.2)
            assert ask(box, "def f(x):\n    return 1") == 1
        assert len(list(folder.glob("copie-*"))) <= 2, "les cgroups des copies mortes sont effacés"
        assert (folder / "tiede" / "cgroup.procs").read_text().split()
        if real is not None:
            bomb = "def f(x):\n    kept = [bytearray(2**28) for _ in range(9)]\n    return 1"
            assert ask(box, bomb)["status"] in ("raised", "timeout")
    assert not folder.exists()


def test_the_warm_process_dies_with_kill_9_and_comes_back(sandbox):
    assert ask(sandbox, "def f(x):\n    return 1") == 1
    assert sandbox._server is not None
    for pid in members(sandbox._server.pid):
        if pid != str(sandbox._server.pid):
            os.kill(int(pid), 9)
    assert ask(sandbox, "def f(x):\n    return 2") == 2


def test_closing_leaves_no_process():
    with Sandbox() as box:
        ask(box, "def f(x):\n    return 1")
        session = box._server.pid
        assert len(members(session)) >= 2
    deadline = time.monotonic() + 5
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(session) == []


def members(session: int) -> list[str]:
    """Les processus de cette session, c'est-à-dire d'un bubblewrap lancé par un bac à sable."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(path.parent.name)
    return found
