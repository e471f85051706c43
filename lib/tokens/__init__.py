"""Tokens: vocabularies, reachability, corpora, and the training of tokenizers."""
