"""Models of how black holes form: snowballs, inference, coalescence."""
