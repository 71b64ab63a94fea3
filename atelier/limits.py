"""Une limite de temps pour du code qui tourne dans le carnet, sur tous les systèmes.

Un minuteur interrompt le fil principal comme le ferait Ctrl-C : cela marche aussi sous Windows, où il n'y a pas
d'alarme. Dans un autre fil, rien ne peut être interrompu : aucune limite n'y est posée.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AGAIN = 0.5
"""Secondes avant d'insister, si le code interrompu a avalé l'interruption (`except:`)."""


class _Limit:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.fired = False
        self.delivered = 0
        self.asked = 0
        self._lock = threading.Lock()
        self._over = False
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """Sonne dans `seconds`. Le gestionnaire de SIGINT doit déjà être en place."""
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        with self._lock:
            if self._over:
                return
            self.fired = True
            self.asked += 1
            self.start(AGAIN)
            _interrupt_main_thread()

    def handle(self, signum: int, frame: object) -> None:
        """Gestionnaire de SIGINT pendant la limite : la nôtre, ou celle de qui appuie sur « Interrompre »."""
        ours, self.delivered = self.delivered < self.asked, self.asked
        if not ours:
            raise KeyboardInterrupt
        if not self._over:
            raise self.error

    def close(self) -> None:
        """Plus aucune interruption ne viendra ; celle qui serait déjà en route est attendue et absorbée."""
        while not self._over:
            try:
                with self._lock:
                    self._over = True
            except self.error:
                continue
        if self._timer:
            self._timer.cancel()
        deadline = time.monotonic() + 0.2
        while self.delivered < self.asked and time.monotonic() < deadline:
            time.sleep(0.001)


def _interrupt_main_thread() -> None:
    """Un vrai signal là où il y en a, pour réveiller aussi un appel système ; sinon (Windows) le drapeau de Python."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def time_limit(seconds: float, error: type[BaseException]) -> Iterator[Callable[[], bool]]:
    """Interrompt le bloc après `seconds` par `error` ; rend une fonction qui dit si la limite a été atteinte."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield lambda: False
        return
    limit = _Limit(error)
    signal.signal(signal.SIGINT, limit.handle)
    try:
        limit.start(seconds)
        yield lambda: limit.fired
    finally:
        try:
            limit.close()
        finally:
            signal.signal(signal.SIGINT, previous)
