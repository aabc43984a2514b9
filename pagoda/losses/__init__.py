"""One file a loss that trains something."""
