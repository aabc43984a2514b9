"""One thin file a DVC stage: read artifacts, call the library, write artifacts."""
