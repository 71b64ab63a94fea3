"""Lignes de commande en français : argparse ne parle qu'anglais là où aucune traduction n'est installée."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

_MESSAGES = [
    (r"the following arguments are required: (.*)", "il manque : {}"),
    (r"unrecognized arguments: (.*)", "mots inconnus : {}"),
    (r"argument (.*): expected one argument", "{} demande une valeur"),
    (r"argument (.*): expected at least one argument", "{} demande au moins une valeur"),
    (r"argument (.*): invalid (?:\w+) value: (.*)", "{} : valeur refusée : {}"),
    (r"argument (.*): invalid choice: (.*) \(choose from (.*)\)", "{} : {} n'est pas un choix possible ({})"),
    (r"argument (.*): not allowed with argument (.*)", "{} et {} ne vont pas ensemble"),
    (r"one of the arguments (.*) is required", "il faut l'un de : {}"),
]


class _FrenchFormatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage, actions, groups, prefix=None):  # noqa: ANN001
        super().add_usage(usage, actions, groups, "Usage : " if prefix is None else prefix)


class FrenchParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` dont l'aide et les erreurs sont en français (code de sortie 2)."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, add_help=False, formatter_class=_FrenchFormatter
        )
        self._positionals.title = "Arguments\u00a0"
        self._optionals.title = "Options\u00a0"
        self.add_argument("-h", "--help", "--aide", action="help", help="montrer cette aide")

    def error(self, message: str) -> NoReturn:
        for pattern, french in _MESSAGES:
            if found := re.fullmatch(pattern, message):
                message = french.format(*found.groups())
                break
        self.exit(2, f"{self.format_usage()}{self.prog} : {message}. Aide : {self.prog} --help\n")
