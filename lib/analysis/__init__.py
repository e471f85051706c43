"""Analysis: what a matrix or a film says, and models of how it came about."""
