"""EDM preconditioning, noise law and the probability-flow ODE in both directions."""
