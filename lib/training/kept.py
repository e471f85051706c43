"""Keep the last matrix of a film as a specimen that `specimens.open` finds by its id."""

import dataclasses

import numpy as np

from lib import artifacts, paths, scale
from lib.specimens import trained
from lib.training import movie


def last_frame(*, id: str, scale: str, film: str) -> dict[str, np.ndarray]:
    """W: (vocab, dim) uint16 bfloat16 patterns after the film's last step."""
    return {"W": movie.read(paths.ARTIFACTS / "film" / film, "W", -1)}


RECIPE = artifacts.Recipe(
    trained.RECIPE, last_frame, ("lib.training.kept", "lib.training.movie"), "dynamics/01-train"
)


def keep(id: str, film: artifacts.Artifact) -> artifacts.Artifact:
    """The specimen `id` of the catalogue out of a film, made once for each film and scale."""
    recipe = dataclasses.replace(RECIPE, chapter=film.provenance["chapter"])
    params = {"id": id, "scale": scale.current(), "film": film.path.name}
    return artifacts.cached(recipe, params)
