"""One file a method: what trains a network of the pipeline, found by its name."""
