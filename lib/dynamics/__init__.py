"""Analyses of motion and freezing in recorded training runs."""
