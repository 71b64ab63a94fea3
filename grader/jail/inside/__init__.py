"""Tout ce qui est monté dans la prison, sous le nom `inside`. N'importe, du cours, que `atelier.judging`."""

from pathlib import Path

from atelier.judging import frames

frames.ignore(Path(__file__).resolve().parent)
