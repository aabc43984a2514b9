"""Networks that turn uint8 images into features: one file a family, one small contract."""
