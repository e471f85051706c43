"""Extraction: matrices, vocabularies and texts, as they are found in the world."""
