"""Text-to-image models that others released, in the folder layout of the library diffusers."""
