"""La classe : recueillir les copies, les lire, les juger, tenir les notes."""
