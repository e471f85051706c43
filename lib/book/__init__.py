"""The book's machinery: it knows no science, and no science knows it."""
