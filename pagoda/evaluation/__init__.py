"""Scoring images: streams of images -> features -> statistics -> rows of named numbers."""
