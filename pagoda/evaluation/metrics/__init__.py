"""One file a metric: features -> statistics -> number. Plain numpy in float64, no network here."""
