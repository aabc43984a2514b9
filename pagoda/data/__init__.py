"""Images: where they come from, how they are cut, and the embedded set."""
