"""The checker: what can be known of the book without running it, one module a group of rules."""
