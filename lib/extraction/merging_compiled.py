"""What merging makes of every token's own bytes: one compiled pass over a whole vocabulary.

`lib.extraction.merging` is the definition; here the same rule runs over all tokens of a rank file
at once, and a test holds the two together. Byte strings are found by a rolling hash, then compared,
so no collision can decide. A vocabulary with a list of merges goes the readable way.
"""

import numpy as np

from lib.kernels import compiled

NEVER = np.int64(1 << 60)
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: of the rolling hash, and to spread it over the slots


def pieces(tokens: tuple[bytes | None, ...], below: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Into how many parts merging cuts the bytes of each token, and where the first part ends.

    `tokens` by rank; None and empty ones have zero parts, and of equal ones the first has the rank.
    `below`: each token is cut while itself and all of higher rank are unknown. Returns two (n,)
    int64 arrays: the number of parts, and the length in bytes of the first.
    """
    sizes = np.array([len(token or b"") for token in tokens], np.int64)
    ends = np.cumsum(sizes)
    data = np.frombuffer(b"".join(token or b"" for token in tokens), np.uint8)
    bits = max(4, int(2 * len(tokens)).bit_length())
    slots = _table(data, ends - sizes, ends, bits)
    return _pieces(data, ends - sizes, ends, slots, bits, below)


@compiled
def _slot(code: np.uint64, bits: int) -> int:
    """Where in a table of 2^bits slots the search for a byte string of this hash begins."""
    return np.int64((code * FACTOR) >> np.uint64(64 - bits))


@compiled
def _find(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    slots: np.ndarray,
    bits: int,
    code: np.uint64,
    start: int,
    end: int,
) -> tuple[int, int]:
    """The rank of data[start:end], or -1; and the slot where it is or would be."""
    slot = _slot(code, bits)
    while slots[slot] >= 0:
        rank = slots[slot]
        at = starts[rank]
        if ends[rank] - at == end - start:
            same = True
            for i in range(end - start):
                if data[at + i] != data[start + i]:
                    same = False
                    break
            if same:
                return rank, slot
        slot = (slot + 1) & (slots.size - 1)
    return np.int64(-1), slot


@compiled
def _table(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, bits: int) -> np.ndarray:
    """(2^bits,) int64: ranks by hash, open addressing; -1 is a free slot."""
    slots = np.full(1 << bits, -1, np.int64)
    for rank in range(starts.size):
        if ends[rank] == starts[rank]:
            continue
        code = np.uint64(0)
        for i in range(starts[rank], ends[rank]):
            code = code * FACTOR + np.uint64(data[i]) + np.uint64(1)
        found, slot = _find(data, starts, ends, slots, bits, code, starts[rank], ends[rank])
        if found < 0:
            slots[slot] = rank
    return slots


@compiled
def _pieces(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    slots: np.ndarray,
    bits: int,
    below: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop of `merging.merge` for every token."""
    longest = 0
    for rank in range(starts.size):
        longest = max(longest, ends[rank] - starts[rank])
    cuts = np.empty(longest + 1, np.int64)  # where the parts begin, and the end
    codes = np.empty(longest + 1, np.uint64)  # hash of everything before each byte
    powers = np.ones(longest + 1, np.uint64)
    for i in range(longest):
        powers[i + 1] = powers[i] * FACTOR
    joined = np.empty(longest + 1, np.int64)  # rank of each part with its right neighbour
    count, first = np.zeros(starts.size, np.int64), np.zeros(starts.size, np.int64)
    for token in range(starts.size):
        origin, parts = starts[token], ends[token] - starts[token]
        limit = np.int64(token) if below else NEVER
        codes[0] = 0
        for i in range(parts + 1):
            cuts[i] = i
            if i:
                codes[i] = codes[i - 1] * FACTOR + np.uint64(data[origin + i - 1]) + np.uint64(1)
        stale, last = 0, parts - 1  # joins whose rank is not known
        while parts > 1:
            for i in range(max(stale, 0), min(last, parts - 1)):
                low, high = cuts[i], cuts[i + 2]
                code = codes[high] - codes[low] * powers[high - low]
                rank, _ = _find(data, starts, ends, slots, bits, code, origin + low, origin + high)
                joined[i] = rank if rank >= 0 else NEVER
            at = 0
            for i in range(1, parts - 1):
                if joined[i] < joined[at]:
                    at = i
            if joined[at] >= limit:
                break
            for i in range(at + 1, parts):
                cuts[i] = cuts[i + 1]
                joined[i - 1] = joined[i]
            parts -= 1
            stale, last = at - 1, at + 1
        count[token], first[token] = parts, cuts[1] if parts else 0
    return count, first
