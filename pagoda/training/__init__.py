"""The training loop, weight averages, checkpoints and history."""
