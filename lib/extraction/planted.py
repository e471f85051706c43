"""The planted specimen: a matrix with known answers, to calibrate every finder of the book.

Live rows are Gaussian. Round one off-lattice point lie black holes of given populations and single
rows at chosen lattice offsets, so that every rule of the cluster chapter has an answer known
beforehand. Offsets are in lattice steps within one binade: no exponent changes unless it is asked.
"""

import numpy as np

POPULATIONS = (407, 352, 153, 114, 11, 10, 6, 5, 4, 4, 3, 3, 2)  # half of Qwen3-4B's large ones
NEAR = 40  # single rows one or two steps off in some dimensions, exponents unchanged
SHIFTED = 30  # single rows with one tiny component in another binade (exponent off by one)
FAR = 9  # single rows at a distance well inside the void, outside the L2 graph
TWINS = 3  # pairs of identical rows among the live ones: holes that are no members
LIVE_SIGMA = 0.07
CENTRE_SIGMA = 0.012
FAR_DISTANCE = 0.009  # L2


class Answers:
    """What the finders must say about the planted matrix."""

    populations = POPULATIONS  # of the cluster's black holes
    holes = len(POPULATIONS) + TWINS  # black holes of the whole matrix, the live twins included
    hole_rows = sum(POPULATIONS)  # rows in the cluster's black holes
    exact_exponents = hole_rows + NEAR
    within_one = exact_exponents + SHIFTED
    graph = within_one
    void = graph + FAR


def matrix(*, rows: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """((rows, dim) uint16 bfloat16 bits, (cluster,) ids of the planted rows in plan order)."""
    rng = np.random.default_rng(seed)
    bits = _round(rng.normal(0, LIVE_SIGMA, (rows, dim)))
    centre = _centre(rng, dim)
    groups = [_holes(centre), _near(centre, rng), _shifted(centre), _far(centre, rng)]
    planted = np.concatenate(groups)
    ids = rng.choice(rows, len(planted) + 2 * TWINS, replace=False)
    cluster, twins = ids[: len(planted)], ids[len(planted) :]
    bits[cluster] = planted
    bits[twins[TWINS:]] = bits[twins[:TWINS]]
    return bits, cluster


def _round(values: np.ndarray) -> np.ndarray:
    """Nearest bfloat16, ties to even, as uint16 bits (finite values)."""
    word = values.astype(np.float32).view(np.uint32)
    return ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype(np.uint16)


def _centre(rng: np.random.Generator, dim: int) -> np.ndarray:
    """(dim,) bits: components about CENTRE_SIGMA in size, mantissas amid their binade."""
    bits = _round(rng.normal(0, CENTRE_SIGMA, dim))
    bits[:SHIFTED] = _round(rng.choice([-1, 1], SHIFTED) * 2.0**-18)  # tiny: a binade costs nothing
    return (bits & 0xFF80) | rng.integers(48, 80, dim).astype(np.uint16)


def _holes(centre: np.ndarray) -> np.ndarray:
    """The black holes: each one step off the centre in a dimension of its own."""
    hole = np.arange(len(POPULATIONS))
    vectors = np.repeat(centre[None], len(hole), axis=0)
    vectors[hole, SHIFTED + hole] += 1
    return np.repeat(vectors, POPULATIONS, axis=0)


def _near(centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows one or two steps off in three dimensions each."""
    dimensions = np.arange(3 * NEAR).reshape(NEAR, 3) + SHIFTED + len(POPULATIONS)
    vectors = np.repeat(centre[None], NEAR, axis=0)
    vectors[np.arange(NEAR)[:, None], dimensions] += rng.integers(1, 3, (NEAR, 3)).astype(np.uint16)
    return vectors


def _shifted(centre: np.ndarray) -> np.ndarray:
    """Distinct rows with one tiny component one binade up: exponents differ by exactly one."""
    vectors = np.repeat(centre[None], SHIFTED, axis=0)
    vectors[np.arange(SHIFTED), np.arange(SHIFTED)] += 0x80
    return vectors


def _far(centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows in the void's inside but beyond the graph's edge, in all directions."""
    direction = rng.normal(size=(FAR, len(centre)))
    direction *= FAR_DISTANCE / np.linalg.norm(direction, axis=1, keepdims=True)
    value = (centre.astype(np.uint32) << 16).view(np.float32)
    return _round(value + direction)
