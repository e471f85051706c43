"""Movies: every step of chosen matrices on disk, small, exact, and readable as plain arrays.

A movie is one HDF5 file. Each stream is a dataset (frames, ...) of uint16 bf16 patterns (or of
float32 for small extras). Frame t is the state after t optimiser steps; frame 0 is the start. Rows
of a matrix stream may be stored in another order than in the matrix (dead rows first, say, so that
they can be read alone); the dataset `rows` holds their ids, a stream of n rows has the first n.

Coding of a DELTA stream: patterns become ordinals on the number line (with -0 just below +0, so
that the map is one to one); every KEY-th frame is kept as it is, the others as the difference to
the frame before, zigzag-folded so that small moves of either sign are small numbers; the bytes are
shuffled and compressed with Zstandard. A frozen row costs next to nothing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

KEY = 128  # frames from one key frame to the next: a segment, decoded as one
CHUNK_BYTES = 1 << 20  # of one compressed chunk before compression: stays in the processor's cache
LEVEL = 1  # of Zstandard, on shuffled bytes; Blosc2 around it was slower and no smaller (LOG.md)


class MovieError(RuntimeError):
    """A movie cannot be read or written as asked."""


@dataclass(frozen=True)
class Stream:
    """One recorded quantity."""

    name: str
    shape: tuple[int, ...]  # of one frame
    dtype: str = "uint16"  # "uint16" (bf16 patterns) or "float32"
    delta: bool = True  # code as ordinal differences (uint16 only)

    @property
    def frame_bytes(self) -> int:
        """Size of one frame as a plain array."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a compressed chunk: KEY frames of a block of rows."""
        if not self.shape:
            return (KEY,)
        row = KEY * self.frame_bytes // max(1, self.shape[0])
        return (KEY, int(np.clip(CHUNK_BYTES // max(1, row), 1, self.shape[0])), *self.shape[1:])


# ----------------------------------------------------------------------------- coding
def fold(patterns: np.ndarray) -> np.ndarray:
    """bf16 patterns (uint16) <-> their place on the number line (int16): its own inverse, a copy.

    As lib.lattice.ordinal, but -0 is -1: nothing is lost, not even the sign of zero or a NaN.
    """
    signed = patterns.view(np.int16)
    line = signed >> 15
    line &= 0x7FFF
    line ^= signed
    return line


def encode(frames: np.ndarray) -> np.ndarray:
    """Frames (t, ...) uint16 -> codes (t, ...) uint16; frame 0 is the key frame."""
    line = fold(frames)
    codes = np.empty_like(line)
    codes[0] = line[0]
    moves = codes[1:]
    np.subtract(line[1:], line[:-1], out=moves)  # modulo 2^16
    sign = moves >> 15
    moves <<= 1
    moves ^= sign
    return codes.view(np.uint16)


def decode(codes: np.ndarray) -> np.ndarray:
    """Codes (t, ...) uint16 -> frames (t, ...) uint16: the inverse of `encode`."""
    line = (codes & 1).view(np.int16)
    np.negative(line, out=line)
    line ^= (codes >> 1).view(np.int16)
    line[0] = codes[0].view(np.int16)
    for before, after in itertools.pairwise(line):  # np.cumsum takes longer
        after += before
    return fold(line).view(np.uint16)


# ----------------------------------------------------------------------------- writing
def create(file: h5py.File, stream: Stream, frames: int) -> h5py.Dataset:
    """An empty dataset for `frames` frames of `stream`."""
    dataset = file.create_dataset(
        stream.name,
        shape=(frames, *stream.shape),
        maxshape=(None, *stream.shape),  # a short last segment keeps the whole chunk shape
        chunks=stream.chunk,
        dtype=stream.dtype,
        shuffle=True,
        compression=hdf5plugin.Zstd(clevel=LEVEL),
    )
    dataset.attrs["delta"] = stream.delta and stream.dtype == "uint16"
    return dataset


def write_segment(path: Path, streams: Sequence[Stream], frames: dict[str, np.ndarray]) -> None:
    """One segment file: `frames` maps stream name -> (up to KEY, ...) plain frames."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["key"] = KEY
        for stream in streams:
            plain = frames[stream.name]
            dataset = create(file, stream, len(plain))
            rows = stream.chunk[1] if stream.shape else 1
            for start in range(0, stream.shape[0] if stream.shape else 1, rows):
                block = plain[:, start : start + rows] if stream.shape else plain
                codes = encode(block) if dataset.attrs["delta"] else block
                if stream.shape:
                    dataset[:, start : start + rows] = codes
                else:
                    dataset[:] = codes


def assemble(path: Path, streams: Sequence[Stream], segments: Sequence[Path], extras: dict) -> None:
    """Join segment files into one movie at `path` without unpacking them.

    `extras` maps names to arrays (kept as small datasets) or texts (kept as attributes).
    """
    with h5py.File(path, "w", libver="latest") as file:
        for name, value in extras.items():
            if isinstance(value, str):
                file.attrs[name] = value
            else:
                file.create_dataset(name, data=value)
        file.attrs["key"] = KEY
        lengths = []
        for segment in segments:
            with h5py.File(segment, "r") as part:
                lengths.append(len(part[streams[0].name]))
        for stream in streams:
            target = create(file, stream, sum(lengths))
            for i, segment in enumerate(segments):
                with h5py.File(segment, "r") as part:
                    source = part[stream.name].id
                    for n in range(source.get_num_chunks()):
                        place = source.get_chunk_info(n).chunk_offset
                        mask, packed = source.read_direct_chunk(place)
                        target.id.write_direct_chunk((place[0] + i * KEY, *place[1:]), packed, mask)


# ----------------------------------------------------------------------------- reading
def read(
    path: Path,
    name: str,
    frames: slice | Sequence[int] | int | None = None,
    rows: Sequence[int] | None = None,
) -> np.ndarray:
    """Frames of stream `name` as a plain array (frames, rows, ...), uint16 patterns or float32.

    `frames`: a slice, a list of frame numbers, one number (gives no frame axis), or all. `rows`:
    ids, in the order wanted; by default all, ascending. Only the segments and row blocks that are
    needed are read. Raises MovieError naming what there is.
    """
    with _open(path) as file:
        if name not in file:
            raise MovieError(f"{path.name} has no stream {name!r}; there are {', '.join(file)}")
        dataset = file[name]
        wanted, single = _frame_numbers(frames, len(dataset), path, name)
        places = _row_places(file, dataset, rows, path, name)
        shape = dataset.shape[1:] if places is None else (len(places), *dataset.shape[2:])
        result = np.empty((len(wanted), *shape), dataset.dtype)
        key = int(file.attrs["key"])
        low, high = (None, None) if places is None else (places.min(), places.max() + 1)
        for segment in np.unique(wanted // key):
            inside = np.flatnonzero(wanted // key == segment)
            offsets = wanted[inside] - segment * key
            until = segment * key + offsets.max() + 1
            start = segment * key if dataset.attrs["delta"] else segment * key + offsets.min()
            window = slice(start, until)
            block = dataset[window] if places is None else dataset[window, low:high]
            if dataset.attrs["delta"]:
                block = decode(block)
            block = block[offsets - (start - segment * key)]
            result[inside] = block if places is None else block[:, places - low]
        return result[0] if single else result


def about(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every dataset of a movie."""
    with _open(path) as file:
        return {name: dataset.shape for name, dataset in file.items()}


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise MovieError(f"{path} is no readable movie ({error}); make it again") from error


def _frame_numbers(
    frames: slice | Sequence[int] | int | None, count: int, path: Path, name: str
) -> tuple[np.ndarray, bool]:
    if frames is None:
        return np.arange(count), False
    if isinstance(frames, slice):
        return np.arange(count)[frames], False
    numbers = np.atleast_1d(np.asarray(frames, np.int64))
    numbers = np.where(numbers < 0, numbers + count, numbers)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        raise MovieError(f"{path.name}: {name} has frames 0..{count - 1}, asked for {frames}")
    return numbers, np.ndim(frames) == 0


def _row_places(
    file: h5py.File, dataset: h5py.Dataset, rows: Sequence[int] | None, path: Path, name: str
) -> np.ndarray | None:
    """Where the wanted rows lie in the dataset; None if the stream has no rows."""
    if dataset.ndim != 3 or "rows" not in file:
        if rows is not None:
            raise MovieError(f"{path.name}: {name} has no rows to choose from")
        return None
    stored = file["rows"][: dataset.shape[1]]
    order = np.argsort(stored)
    wanted = stored[order] if rows is None else np.asarray(rows, np.int64)
    at = np.searchsorted(stored[order], wanted)
    found = at < len(stored)
    found[found] = stored[order][at[found]] == wanted[found]
    if not found.all() or not len(wanted):
        missing = wanted[~found][:5].tolist()
        raise MovieError(f"{path.name}: {name} has no rows {missing} (it has {len(stored)} rows)")
    return order[at]
