"""pagoda: a reproduction suite for PaGoDA (arXiv 2405.14822)."""

__version__ = "0.1.0"
