"""Training: small models in bf16, every step of them visible."""
