"""Rows made in float32 and cast to bf16, against rows whose noise was added in bf16.

Source: seed document 001, hypothesis 3, and the notebooks 13.4a, 13.5a, 15.1a-c. All rows are one
random unit vector plus noise of 1e-6 to 1e-4. Cast from float32, the vector stands anywhere in its
cell, so borders are near; added in bf16, it stands on the lattice, and most noise is rounded away.
"""

import enum
from collections.abc import Sequence

import numpy as np
import torch

from lib import artifacts, lattice, progress
from lib.formation import snowball
from lib.survey import census
from lib.training import loop, worlds
from lib.training.config import GATSBY, Init


class Way(enum.StrEnum):
    """Where the noise is added."""

    FLOAT32 = "float32"  # bf16(c + sigma z)
    BF16 = "bf16"  # bf16(c) + bf16(sigma bf16(z)), added in bf16

    @property
    def init(self) -> Init:
        """The same as an initialisation of the training engine."""
        return Init.POINT_NOISE if self is Way.FLOAT32 else Init.POINT_NOISE_CAST


def unit_vector(dim: int, *, rng: np.random.Generator) -> np.ndarray:
    """(dim,) float32, uniform on the sphere of radius 1."""
    c = rng.standard_normal(dim, dtype=np.float32)
    return c / np.linalg.norm(c)


def rows(
    centre: np.ndarray, sigma: float, count: int, way: Way, *, rng: np.random.Generator
) -> np.ndarray:
    """(count, D) uint16: rows round (D,) float32 centre, noise added the given way."""
    if way is Way.FLOAT32:
        return snowball.sample(centre, scale=sigma, rows=count, rng=rng)
    z = torch.from_numpy(rng.standard_normal((count, centre.size), dtype=np.float32))
    noise = z.to(torch.bfloat16) * sigma
    return lattice.bits(torch.from_numpy(centre).to(torch.bfloat16) + noise).numpy()


def make_cast(
    *, sigmas: int, smallest: float, largest: float, counts: Sequence[int], dim: int, seeds: int
) -> dict[str, np.ndarray]:
    """sigma (S,), and `<way>_<rows>` (S, seeds, 3) int32: distinct rows, holes, largest."""
    scales = np.geomspace(smallest, largest, sigmas)
    tensors = {"sigma": scales}
    for way in Way:
        for count in counts:
            table = np.zeros((sigmas, seeds, 3), np.int32)
            for i, sigma in enumerate(progress.bar(scales, desc=f"{way}, {count} rows")):
                for seed in range(seeds):
                    rng = np.random.default_rng([seed, i])
                    centre = unit_vector(dim, rng=np.random.default_rng(seed))
                    found = snowball.census(rows(centre, sigma, count, way, rng=rng))
                    table[i, seed] = found.unique, found.holes, found.largest
            tensors[f"{way}_{count}"] = table
    return tensors


def make_trained(
    *, sigma: float, seeds: int, steps: int, batch: int, characters: int, weight_decay: float
) -> dict[str, np.ndarray]:
    """`<way>` (seeds, steps + 1) int32: distinct dead rows of a Gatsby-sized model, step by step.

    Also `<way>_loss` (seeds, steps) float32. 128 characters, those not in the text are dead.
    """
    world = worlds.gatsby(characters)
    dead = np.flatnonzero(world["counts"] == 0)
    tensors: dict[str, np.ndarray] = {"dead": dead}
    for way in Way:
        counts = np.zeros((seeds, steps + 1), np.int32)
        losses = np.zeros((seeds, steps), np.float32)
        for seed in range(seeds):
            run = GATSBY.replace(
                init=str(way.init),
                init_std=1 / np.sqrt(GATSBY.dim),  # a vector of length about 1
                init_noise=sigma,
                steps=steps,
                batch=batch,
                weight_decay=weight_decay,
                seed=42 + seed,
            )

            def see(moment, counts=counts, seed=seed):
                bits = lattice.bits(moment.params["W"])[dead].numpy()
                counts[seed, moment.step] = census.duplicates(bits).unique

            outcome = loop.train(run, world["stream"], observers=[see], label=f"{way}, seed {seed}")
            losses[seed] = outcome.losses
        tensors[str(way)], tensors[f"{way}_loss"] = counts, losses
    return tensors


CAST = artifacts.Recipe(
    "cast-rows",
    make_cast,
    ("lib.formation.casting", "lib.formation.snowball"),
    "monument-valley/06-casting",
)
TRAINED = artifacts.Recipe(
    "cast-trained",
    make_trained,
    ("lib.formation.casting", "lib.training"),
    "monument-valley/06-casting",
)
