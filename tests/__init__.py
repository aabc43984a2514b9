"""Tests; a package of their own, so that no installed package of that name is taken for it."""
