"""The press: the edition of the book for machines without Quarto. Nothing else knows it."""
