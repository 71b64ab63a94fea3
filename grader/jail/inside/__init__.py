"""Tout ce qui est monté dans la prison. N'importe, du cours, que `atelier.judging`."""
