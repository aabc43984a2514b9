"""Images: the embedded set, sources of real ones, and how they are cut to size."""
