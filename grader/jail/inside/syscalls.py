"""Les appels système qu'une copie n'a pas : leur table, et le filtre (seccomp) qui les refuse."""

from __future__ import annotations

import ctypes
import platform
import struct
from functools import cache

from .kernel import NEW_ALL, SET_NO_NEW_PRIVS, SET_SECCOMP, ConfineError, call

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
MACHINES = {"x86_64": (_X86_64, 0), "aarch64": (_AARCH64, 1), "arm64": (_AARCH64, 1)}
"""Machine → (nom du noyau dans seccomp, colonne de `DENIED`)."""

DENIED: dict[str, tuple[int, int]] = {
    # lire ou piloter un autre processus
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # trousseaux de clés, programmes dans le noyau, compteurs, entrées et sorties asynchrones
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # espaces de noms et montages
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # la machine elle-même
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "personality": (135, 92),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    # mémoire qui échappe aux plafonds d'un processus, et placement sur la machine
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy": (238, 237),
    # ordonnancement : une copie reste dans sa session, sur sa part de la machine
    "setsid": (112, 157),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
}
"""Appels refusés (EPERM) : numéro sur x86_64, numéro sur aarch64."""

DENIED_X86 = {
    **{"modify_ldt": 154, "iopl": 172, "ioperm": 173, "create_module": 174, "get_kernel_syms": 177},
    **{"query_module": 178, "uselib": 134, "ustat": 136, "sysfs": 139, "_sysctl": 156},
}
"""Ceux qui n'existent que sur x86_64."""

_CLONE, _CLONE3, _SOCKET, _IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24
"""Où sont, dans ce que le noyau donne à lire, le numéro de l'appel, la machine et ses deux premiers arguments."""


@cache
def seccomp_program(machine: str) -> bytes:
    """Le filtre, en instructions BPF classiques (`struct sock_filter`). Lève `ConfineError` sur une autre machine."""
    if machine not in MACHINES:
        raise ConfineError(f"filtre d'appels système : machine {machine} inconnue (x86_64 et aarch64 le sont)")
    arch, column = MACHINES[machine]
    program: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        program.append((code, if_true, if_false, value))

    def refuse(number: int, error: int) -> None:
        add(_EQUAL, number, 0, 1)
        add(_RETURN, _ERRNO | error)

    def refuse_when(number: int, argument: int, test: int, values: tuple[int, ...], error: int) -> None:
        """Refuse l'appel si son argument passe le test avec une des valeurs."""
        add(_EQUAL, number, 0, 2 + 2 * len(values))
        add(_LOAD, argument)
        for value in values:
            add(test, value, 0, 1)
            add(_RETURN, _ERRNO | error)
        add(_LOAD, _NUMBER)

    add(_LOAD, _ARCH)
    add(_EQUAL, arch, 1, 0)
    add(_RETURN, _KILL)
    add(_LOAD, _NUMBER)
    if arch == _X86_64:  # les appels « x32 » auraient d'autres numéros
        add(_AT_LEAST, 0x40000000, 0, 1)
        add(_RETURN, _KILL)
    for pair in DENIED.values():
        refuse(pair[column], _EPERM)
    if arch == _X86_64:
        for number in DENIED_X86.values():
            refuse(number, _EPERM)
    refuse(_CLONE3[column], _ENOSYS)  # la libc se rabat sur clone, dont les options se lisent ici
    refuse_when(_CLONE[column], _FIRST, _ANY_BIT, (NEW_ALL,), _EPERM)
    refuse_when(_IOCTL[column], _SECOND, _EQUAL, (_TIOCSTI, _TIOCLINUX), _EPERM)
    # socket : AF_UNIX (1) seulement ; le reste n'a rien à joindre, et ouvre trop de code du noyau
    add(_EQUAL, _SOCKET[column], 0, 3)
    add(_LOAD, _FIRST)
    add(_EQUAL, 1, 1, 0)
    add(_RETURN, _ERRNO | _EACCES)
    add(_RETURN, _ALLOW)
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


class _Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def filter_calls() -> None:
    """Pose le filtre sur ce processus et tous ceux qui en naîtront. Définitif."""
    code = seccomp_program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    call("no_new_privs", "prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("filtre d'appels système", "prctl", SET_SECCOMP, 2, ctypes.byref(program), 0, 0)
