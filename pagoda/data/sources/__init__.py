"""One file a source of images; its name is what ``data.source`` takes (:mod:`.registry`)."""
