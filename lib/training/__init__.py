"""The training laboratory: models, arithmetic, optimisers, loops, movies."""
