"""The centres that the chapters and the command line know by name."""

import numpy as np

from lib.formation import centres, rebuilt

NAMES = {
    "qwen3-holes": "the population-weighted mean of Qwen3-4B's 13 holes, norm 0.3709",
    "qwen3-lattice": "its largest hole, a lattice point, norm 0.3709",
    "qwen3-rebuilt": "its mean-centred centre, rebuilt from printed tables, norm 0.1661",
    "qwen3-centred": "a random surrogate of the mean-centred centre, norm 0.1661",
}


def named(name: str, *, seed: int = 42) -> np.ndarray:
    """(2560,) float32 centre `name` of NAMES; `seed` draws what no notebook printed."""
    rng = np.random.default_rng(seed)
    if name == "qwen3-rebuilt":
        return rebuilt.centre(rng=rng)
    if name == "qwen3-centred":
        return centres.centred(rng=rng)
    if name not in NAMES:
        raise ValueError(f"no centre {name!r}; there are {', '.join(NAMES)}")
    point = centres.on_lattice(rng=rng)
    return centres.weighted_mean(point) if name == "qwen3-holes" else point
