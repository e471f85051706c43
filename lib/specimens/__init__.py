"""Specimens: one unembedding matrix each, with its tokenizer, dtype and provenance."""
