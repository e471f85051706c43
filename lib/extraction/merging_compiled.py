"""What merging makes of every token's own bytes: one compiled pass over a whole vocabulary.

`lib.extraction.merging` is the definition; here the same rule runs over all tokens of a rank file
at once, and a test holds the two together. Byte strings are found by a rolling hash, then compared,
so no collision can decide. A vocabulary with a list of merges goes the readable way.
"""

import numpy as np

from lib.kernels import compiled

NEVER = np.int64(1 << 60)
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: of the rolling hash, and to spread it over the slots
ONE = np.uint64(1)
Array = np.ndarray


def pieces(tokens: tuple[bytes | None, ...]) -> Array:
    """(n,) int64: into how many parts merging cuts the bytes of each token.

    `tokens` by rank; None and empty ones have zero parts, and of equal ones the first has the rank.
    """
    sizes = np.array([len(token or b"") for token in tokens], np.int64)
    ends = np.cumsum(sizes)
    data = np.frombuffer(b"".join(token or b"" for token in tokens), np.uint8)
    slots = np.full(1 << max(4, int(2 * len(tokens)).bit_length()), -1, np.int64)
    _fill(data, ends - sizes, ends, slots)
    return _pieces(data, ends - sizes, ends, slots)


@compiled
def _find(
    data: Array, starts: Array, ends: Array, slots: Array, code: np.uint64, start: int, end: int
) -> tuple[int, int]:
    """The rank of data[start:end], whose hash is `code`, or -1; the slot where it is or would be.

    slots (2^k,) int64: ranks by hash, open addressing; -1 is a free slot.
    """
    slot = np.int64((code * FACTOR) >> np.uint64(32)) & (slots.size - 1)
    while slots[slot] >= 0:
        rank, same = slots[slot], 0
        size = ends[rank] - starts[rank]
        while size == end - start > same and data[starts[rank] + same] == data[start + same]:
            same += 1
        if same == size:
            return rank, slot
        slot = (slot + 1) & (slots.size - 1)
    return np.int64(-1), slot


@compiled
def _fill(data: Array, starts: Array, ends: Array, slots: Array) -> None:
    """Put the rank of every token into the slots."""
    for rank in range(starts.size):
        code = np.uint64(0)
        for i in range(starts[rank], ends[rank]):
            code = code * FACTOR + np.uint64(data[i]) + ONE
        found, slot = _find(data, starts, ends, slots, code, starts[rank], ends[rank])
        if found < 0 and starts[rank] < ends[rank]:
            slots[slot] = rank


@compiled
def _pieces(data: Array, starts: Array, ends: Array, slots: Array) -> Array:
    """The loop of `merging.merge` for every token."""
    longest = 0
    for rank in range(starts.size):
        longest = max(longest, ends[rank] - starts[rank])
    cuts = np.empty(longest + 1, np.int64)  # where the parts begin, and the end
    codes = np.zeros(longest + 1, np.uint64)  # hash of everything before each byte
    powers = np.ones(longest + 1, np.uint64)
    for i in range(longest):
        powers[i + 1] = powers[i] * FACTOR
    joined = np.empty(longest + 1, np.int64)  # rank of each part with its right neighbour
    count = np.zeros(starts.size, np.int64)
    for token in range(starts.size):
        origin, parts = starts[token], ends[token] - starts[token]
        for i in range(parts + 1):
            cuts[i] = i
            if i:
                codes[i] = codes[i - 1] * FACTOR + np.uint64(data[origin + i - 1]) + ONE
        stale, last = 0, parts - 1  # joins whose rank is not known
        while parts > 1:
            for i in range(max(stale, 0), min(last, parts - 1)):
                low, high = cuts[i], cuts[i + 2]
                code = codes[high] - codes[low] * powers[high - low]
                rank, _ = _find(data, starts, ends, slots, code, origin + low, origin + high)
                joined[i] = rank if rank >= 0 else NEVER
            at = 0
            for i in range(1, parts - 1):
                if joined[i] < joined[at]:
                    at = i
            if joined[at] >= NEVER:
                break
            for i in range(at + 1, parts):
                cuts[i] = cuts[i + 1]
                joined[i - 1] = joined[i]
            parts -= 1
            stale, last = at - 1, at + 1
        count[token] = parts
    return count
