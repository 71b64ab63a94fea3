"""Chapitre 8, cinquième partie : des vers dont un programme compte les syllabes, et ce qu'en fait une récompense."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import comb
from statistics import mean
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.common.style import SERIES, canvas, french
from atelier.models import shared_tokenizer
from atelier.perplexity import extract
from atelier.text import number, percent, plural, spread

_WORDS = re.compile(r"[a-zàâäéèêëîïôöùûüçœæ]+")
_SOUNDS = re.compile(r"[éèêïëü]|[aeiouyàâîôöùûœæ]+")


def syllables(line: str) -> int:
    """Nombre approché de syllabes d'un vers français.

    Un groupe de voyelles en fait une ; é, è, ê, ë, ï et ü en commencent toujours une autre. Le e muet de la fin d'un
    mot ne compte ni au bout du vers, ni, sans s, devant une voyelle ou un h.
    Les diérèses et le pluriel muet des verbes lui échappent.
    """
    words = _WORDS.findall(line.lower())
    return sum(_syllables(word, after) for word, after in zip(words, [*words[1:], ""], strict=False))


def _syllables(word: str, after: str) -> int:
    """Syllabes d'un mot, selon celui qui le suit ("" au bout du vers)."""
    word = re.sub(r"(?<=q)u|(?<=g)u(?=[eéèêi])", "", word)
    word = re.sub(r"(?<=[aeou])y(?=[aeiouéèêâ])", "j", word)  # « voyage » : voi-iage
    count = len(_SOUNDS.findall(word))
    end = re.search(r"(.)(e|es)$", word)
    if count < 2 or end is None or end[1] in "aiouy":
        return count  # « le », et « vie », dont le e tient déjà à sa voyelle
    silent = not after or (end[2] == "e" and after[0] in "aeiouyhàâéèêîôùœæ")
    return count - 1 if silent or end[1] in "éèêëïü" else count


def share_of_twelve(text: str = "bprime_test") -> float:
    """La part des vers d'un extrait auxquels le programme trouve douze syllabes."""
    lines = [line for line in extract(text).splitlines() if line.strip()]
    return mean(syllables(line) == 12 for line in lines)


@cache
def openings(text: str, n: int, tokens: int = 18) -> torch.Tensor:
    """n premiers vers d'un extrait, suivis d'un retour à la ligne → (n, tokens) ; tous de même longueur, sans bourrage.

    Pris à intervalles réguliers parmi les strophes d'au moins deux vers dont le premier a cette longueur.
    """
    tokenizer, found = shared_tokenizer(), []
    for stanza in extract(text).split("\n\n"):
        first, _, more = stanza.partition("\n")
        if more:
            ids = tokenizer.encode(f"<|endoftext|>{first}\n")
            found += [ids] if len(ids) == tokens else []
    return torch.tensor(found[:: len(found) // n][:n])


def say_syllables(lines: Sequence[str]) -> None:
    """Ce que le programme compte, sur quelques vers, et sur tout un extrait."""
    told = " ; ".join(f"« {line} » : {syllables(line)}" for line in lines)
    note(f"{told}. Sur les vers de B′, il en trouve douze à {percent(share_of_twelve())}.")


# --- Le meilleur de n -------------------------------------------------------------------------------------------------

Hits = Sequence[Sequence[float]]
"""Par amorce, 1 ou 0 pour chaque vers tiré."""


def at_least_one(hits: Sequence[float], n: int) -> float:
    """La chance que n vers, pris parmi ceux-là, en contiennent un bon (estimateur sans biais de Chen et al., 2021)."""
    return 1 - comb(len(hits) - round(sum(hits)), n) / comb(len(hits), n)


def shares(found: Hits, n: int) -> list[float]:
    """Cette chance, amorce par amorce."""
    return [at_least_one(hits, n) for hits in found]


def best_of_n_table(found: Mapping[str, Hits]) -> float:
    """Le meilleur de n. found : qui écrit → par amorce, les notes de ses vers. Rend le dernier pourcentage."""
    drawn = len(next(iter(found.values()))[0])
    rows = []
    for n in (k for k in (1, 2, 4, 8, 16) if k <= drawn):
        cells = []
        for hits in found.values():
            each = shares(hits, n)
            cells.append(percent(mean(each), decimals=1))
            if len(each) >= 5:
                gap = paired(each, [0.0] * len(each))
                cells[-1] += f" [{number(100 * gap.low, decimals=1)} ; {number(100 * gap.high, decimals=1)}]"
        last = list(found.values())[-1]
        cells.append(percent(1 - (1 - mean(shares(last, 1))) ** n, decimals=1))
        rows.append([n, *cells])
    count = len(next(iter(found.values())))
    table(
        rows,
        header=["n", *(f"{who} [95 %]" for who in found), "si toutes les amorces se valaient"],
        caption=f"Un vers au moins de douze syllabes parmi n : part des {count} amorces neuves",
    )
    return 100 * mean(shares(list(found.values())[-1], drawn))


# --- Apprendre d'une récompense ---------------------------------------------------------------------------------------


def reward_rates(lessons: Sequence[Mapping[str, Any]], when: str) -> list[float]:
    """La récompense moyenne, « avant » ou « après », graine par graine."""
    return [mean(lesson[when]["récompense"]) for lesson in lessons]


def reward_table(here: Mapping[str, Any], author: Mapping[str, Any] | None) -> None:
    """Une récompense apprise. here, author : « B′ avant », et « leçons », une par graine."""
    kept = (author or here)["leçons"]
    fig, ax = canvas(6.4, 3.0)
    for k, lesson in enumerate(kept):
        ax.plot(range(1, len(lesson["pas"]) + 1), lesson["pas"], color=SERIES[0]["color"], lw=0.9,
                alpha=0.6, label="une graine" if not k else None)  # fmt: skip
    average = [mean(values) for values in zip(*(lesson["pas"] for lesson in kept), strict=True)]
    ax.plot(range(1, len(average) + 1), average, label="moyenne", **SERIES[1])
    ax.set(xlabel="pas", ylabel="récompense graduée du lot")
    ax.set_ylim(bottom=0)
    french(ax)
    ax.legend(fontsize=9)
    show(
        fig,
        alt=f"Récompense graduée, pas à pas, de {number(average[0], 2)} à {number(average[-1], 2)}, moyenne "
        f"de {plural(len(kept), 'graine')}.",
    )
    rows = []
    for label, found in (("auteur", author), ("ici", None if here is author else here)):
        if found is not None:
            lessons = found["leçons"]
            before, after = ([100 * v for v in reward_rates(lessons, when)] for when in ("avant", "après"))
            gap = "—"
            if len(after) >= 5:
                told = paired(after, before)
                gap = f"{number(told.mean, 2, signed=True)} [{number(told.low, 2)} ; {number(told.high, 2)}]"
            rows.append(
                [
                    f"{label}, {plural(len(lessons), 'graine')}",
                    spread(before, 2, unit="%"),
                    spread(after, 2, unit="%"),
                    gap,
                    spread([lesson["après"]["KL"] for lesson in lessons], 2),
                    number(perplexity_of(found["B′ avant"]), 3),
                    spread([perplexity_of(lesson["B′"]) for lesson in lessons], 3),
                ]
            )
    table(
        rows,
        header=[
            "",
            "avant",
            "après",
            "écart (points) [95 %]",
            "KL (nats par jeton)",
            "perplexité sur B′, avant",
            "après",
        ],
        caption="Vers de douze syllabes, sur des amorces neuves",
    )
    one = kept[0]
    table(
        [list(pair) for pair in zip(one["avant"]["vers"], one["après"]["vers"], strict=True)],
        header=["avant", "après"],
        caption="Six vers, même amorce et même tirage, une graine",
    )
