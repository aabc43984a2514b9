"""Weights that others released, read safely and renamed to pagoda's networks."""
