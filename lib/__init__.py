"""The book's library: numerics at the bottom, then artefacts, specimens, analyses, experiments."""
