"""``pagoda plan``: what an experiment costs in compute, time and disk, without running it."""
