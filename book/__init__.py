"""The book's machinery: it reads, runs, checks and renders chapters, and knows no science."""
