"""Noter sur une grappe `dask.distributed` : `grade --dask tcp://machine:8786`.

Chaque travailleur de la grappe a le dépôt du cours à la même version et lance son propre bac à sable ; les copies
voyagent comme des octets, les carnets corrigés reviennent, et seul le processus qui a lancé `grade` écrit dans la base.
Un travailleur qui meurt : dask redonne sa copie à un autre. Les machines d'une grappe se font confiance (dask échange
du pickle) : gardez-la sur un réseau fermé, ou avec TLS. Le code des étudiants reste scellé sur chacune, quoi qu'en dise
`--unsealed` ici. Un fil par travailleur :

    dask scheduler
    dask worker tcp://machine:8786 --nworkers 8 --nthreads 1
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import Any

from grader import UserError, retries
from grader.classroom.jobs import Failed, Fatal, Graded, Job, Setup, checked, grade_apart

CONNECT_SECONDS = 15
AHEAD = 2
"""Copies confiées à la grappe d'avance, par fil : de quoi l'occuper sans charger toute la classe en mémoire."""


class Cluster:
    """La grappe à cette adresse. Lève `UserError` si dask manque ou si personne n'y répond."""

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise UserError(
                "--dask demande le paquet distributed, absent d'ici. Installez-le\u00a0: "
                "python -m pip install -c constraints.txt -e .[grappe]"
            ) from None
        if not re.match(r"[a-z]+://", address):
            address = f"tcp://{address}"
        self.address = address
        self.dask: Any = distributed

    def connect(self) -> Any:
        """Un client de la grappe, et au moins un travailleur."""
        try:
            client = self.dask.Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"Aucune grappe dask ne répond à {self.address} ({error}).") from None
        if not client.nthreads():
            client.close()
            raise UserError(
                f"La grappe de {self.address} n'a aucun travailleur. Lancez-en\u00a0: dask worker {self.address}"
            )
        return client

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Generator[Graded | Failed]:
        """Note les copies sur la grappe, quelques-unes d'avance, dans l'ordre où elles finissent."""
        source = iter(jobs)
        with self.connect() as client:
            students: dict[str, str] = {}
            waiting = self.dask.as_completed(loop=client.loop, raise_errors=False)

            def more(count: int) -> None:
                for _ in range(count):
                    if (job := next(source, None)) is not None:
                        future = client.submit(grade_apart, setup, job, pure=False, retries=retries.CLUSTER.tries - 1)
                        students[future.key] = job.student
                        waiting.add(future)

            more(AHEAD * max(1, sum(client.nthreads().values())))
            for future in waiting:
                yield checked(self.outcome(future, students.pop(future.key)))
                more(1)

    def outcome(self, future: Any, student: str) -> Graded | Failed | Fatal:
        """Ce que la grappe a rendu pour cette copie."""
        try:
            return future.result()
        except self.dask.KilledWorker:
            return Failed(
                student, "les travailleurs qui l'ont reçue sont morts l'un après l'autre (mémoire épuisée\u202f?)"
            )
        except ModuleNotFoundError as error:
            return Fatal(f"Un travailleur de la grappe n'a pas le dépôt du cours ({error}).")
        except Exception as error:
            if future.status in ("cancelled", "lost"):
                return Fatal(
                    f"La grappe de {self.address} ne répond plus. Les copies corrigées sont enregistrées\u00a0: "
                    "relancez la même commande pour finir."
                )
            return Failed(student, f"{type(error).__name__}\u00a0: {error}")
        finally:
            future.release()
