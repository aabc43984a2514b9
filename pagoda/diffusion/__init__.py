"""EDM preconditioning, noise schedule and the probability-flow ODE in both directions."""
