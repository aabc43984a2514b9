"""Edits with a trained generator: holes, detail, another class, what lies between two."""
