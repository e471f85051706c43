"""Films: every step of chosen matrices on disk, small, exact, and readable as plain arrays.

A film is one HDF5 file. Each stream is a dataset (frames, ...) of uint16 bf16 patterns (or of
float32 for small extras). Frame t is the state after t optimiser steps; frame 0 is the start. Rows
of a matrix stream are stored dead ones first, so that they can be read alone; the dataset `rows`
holds their ids, a stream of n rows has the first n.

Coding of a stream that is not of gradients: patterns become ordinals on the number line (with -0
just below +0, so that the map is one to one); every KEY-th frame is kept as it is, the others as
the difference to the frame before, zigzag-folded so that small moves of either sign are small
numbers; the bytes are shuffled and compressed with Zstandard. A frozen row costs next to nothing.

Filming survives a kill and ends bit for bit the same. Frames gather in memory; each full segment
becomes a small file in a folder beside the film, followed by a checkpoint. A run that was killed
goes on from the last checkpoint; at the end the segments are joined, unpacked nowhere.
"""

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import safetensors
import safetensors.torch
import torch

from lib import digests, files
from lib.training import loop, model, optim
from lib.training.config import ConfigError, Run
from lib.training.worlds import World

KEY = 128  # frames from one key frame to the next: a segment, decoded as one
CHUNK_BYTES = 1 << 20  # of one compressed chunk before compression: stays in the processor's cache
LEVEL = 1  # of Zstandard, on shuffled bytes; Blosc2 around it was slower and no smaller (LOG.md)
PIECE = 16  # frames handed out at a time: what is computed of them should stay in the cache
RATIO = 3  # least compression of a film: what the disk is asked for

MATRICES = ("W", "E")
MOMENTS = {"grad": "grads", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
VECTORS = ("mean_h",)  # mean last hidden state over the batch, float32 (dim,)
SCALARS = ("loss",)  # float32, NaN at frame 0


class FilmError(RuntimeError):
    """A film cannot be read or written as asked."""


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


@dataclass(frozen=True)
class Film(loop.Observation):
    """The film of a run: streams of all rows, streams of the dead rows only, and the loss.

    Names: "W", "E", "mean_h", and a moment of a matrix such as "W.grad", "W.exp_avg",
    "E.exp_avg_sq". Gradients are stored as they are: they have no memory to code against.
    """

    streams: tuple[str, ...] = ("W",)  # of all rows
    dead: tuple[str, ...] = ()  # of the dead rows

    name = "film"
    suffix = ".h5"
    resumable = True

    def watch(self, run: Run, world: World, *path: Path) -> None:
        """Train `run` in `world` and write the film to `path`.

        What an earlier, killed call left in the folder `<path>.parts` is taken up if it belongs to
        the same run. Raises files.FileError if the disk has no room, loop.Stopped if a signal
        stopped it.
        """
        rows = np.concatenate([world.dead, world.live])
        streams = self.layout(run, len(rows), len(world.dead))
        parts = path[0].with_name(path[0].name + ".parts")
        parts.mkdir(parents=True, exist_ok=True)
        announce(run, streams, parts)
        identity = {
            "run": run.as_dict(),
            "streams": [[stream.name, *stream.shape] for stream in streams],
            "rows": digests.of_arrays({"rows": rows}),
            "stream": digests.of_arrays({"stream": world.stream}),
            "source": digests.of_maker(Film),
        }
        recorder = Recorder(parts, streams, rows, identity)
        resume = recorder.resume()
        outcome = loop.train(
            run,
            world.stream,
            observers=[recorder.observe],
            resume=resume,
            save=recorder.save,
            save_every=KEY,
            label=f"film, seed {run.seed}",
        )
        recorder.flush()
        extras = {
            "rows": rows,
            "run": json.dumps(run.as_dict(), sort_keys=True),
            "counts": world.counts,
            "last_state": outcome.state.param.cpu().view(torch.uint8).numpy(),
        }
        assemble(path[0], streams, recorder.segments(), extras)
        shutil.rmtree(parts)

    def layout(self, run: Run, rows: int, dead: int) -> list[Stream]:
        """The streams and their shapes. Raises ConfigError for a name that cannot be filmed."""
        named = dict.fromkeys([*self.streams, *SCALARS], rows) | dict.fromkeys(self.dead, dead)
        return [_stream(run, name, kept) for name, kept in named.items()]


def _stream(run: Run, name: str, rows: int) -> Stream:
    matrix, _, moment = name.partition(".")
    if name in SCALARS:
        return Stream(name, (), "float32", delta=False)
    if name in VECTORS:
        return Stream(name, (run.dim,), "float32", delta=False)
    if matrix in MATRICES and (not moment or moment in MOMENTS):
        if matrix == "E" and run.tied:
            raise ConfigError("a tied run has no E of its own: film W")
        kind = {"grad": run.grad_dtype, "": run.param_dtype}.get(moment, run.state_dtype)
        dtype = "uint16" if kind == "bfloat16" else "float32"
        return Stream(name, (rows, run.dim), dtype, delta=moment != "grad")
    known = [*MATRICES, *(f"W.{m}" for m in MOMENTS), *VECTORS, *SCALARS]
    raise ConfigError(f"cannot film {name!r}; there are {', '.join(known)}")


def need(run: Run, streams: Sequence[Stream]) -> tuple[int, int]:
    """Bytes of the film as plain arrays, and bytes of disk that the run asks for."""
    raw = sum(stream.frame_bytes for stream in streams) * (run.steps + 1)
    return raw, raw // RATIO + 16 * model.count(run)


def announce(run: Run, streams: Sequence[Stream], folder: Path) -> None:
    """Print what the film needs and raise files.FileError if the disk has less."""
    raw, wanted = need(run, streams)
    free = shutil.disk_usage(folder).free
    names = ", ".join(stream.name for stream in streams)
    print(
        f"film of {names} on {optim.device(run.device).type}: {run.steps + 1:,} frames, "
        f"{raw / 1e6:,.0f} MB plain, at most {wanted / 1e6:,.0f} MB on disk "
        f"({free / 1e9:,.1f} GB free)"
    )
    if wanted > free:
        raise files.FileError(
            f"{folder.parent} has {free / 1e6:,.0f} MB free, the film may need "
            f"{wanted / 1e6:,.0f} MB; free some space, or film fewer rows or steps"
        )


# ----------------------------------------------------------------------------- recording


class Recorder:
    """Gathers frames, writes segments and checkpoints into `folder`."""

    def __init__(self, folder: Path, streams: Sequence[Stream], rows: np.ndarray, identity: dict):
        self.folder, self.streams, self.identity = folder, list(streams), identity
        self.rows = torch.from_numpy(rows)
        self.all_rows = np.array_equal(rows, np.arange(identity["run"]["vocab"])) and all(
            stream.shape[:1] in ((), (len(rows),)) for stream in streams if len(stream.shape) > 1
        )
        self.buffer = {s.name: np.zeros((KEY, *s.shape), s.dtype) for s in streams}
        self.start, self.filled = 0, 0  # first frame in the buffer, frames in it

    def observe(self, moment: loop.Moment) -> None:
        """Keep the frame of this step; write the segment when it is full."""
        for stream in self.streams:
            self.buffer[stream.name][self.filled] = self._frame(moment, stream)
        self.filled += 1
        if self.filled == KEY:
            self.flush()

    def flush(self) -> None:
        """Write what is in the buffer as the segment that starts at `start`."""
        if self.filled:
            frames = {name: array[: self.filled] for name, array in self.buffer.items()}
            files.write_atomically(
                self.folder / f"segment-{self.start:09d}.h5",
                lambda path: write_segment(path, self.streams, frames),
            )
            if self.filled == KEY:
                self.start, self.filled = self.start + KEY, 0

    def segments(self) -> list[Path]:
        """The segment files in order of time."""
        return sorted(self.folder.glob("segment-*.h5"))

    def save(self, state: optim.State, losses: np.ndarray) -> None:
        """Checkpoint after a whole step; frames that fill no segment are kept beside it."""
        self.flush()
        tensors = {name: tensor.cpu() for name, tensor in state.tensors().items()}
        tensors["losses"] = torch.from_numpy(losses.copy())
        about = {"checkpoint": json.dumps({**self.identity, "step": state.step}, sort_keys=True)}
        files.write_atomically(
            self.folder / "checkpoint.safetensors",
            lambda path: safetensors.torch.save_file(tensors, path, metadata=about),
        )

    def resume(self) -> tuple[optim.State, np.ndarray] | None:
        """State and losses of the checkpoint in the folder, or None (and an empty folder)."""
        found = self._checkpoint()
        if found is None:
            for file in self.folder.iterdir():
                file.unlink()
            return None
        step, tensors = found
        losses = tensors.pop("losses").numpy()
        state = optim.State(step=step, **tensors)
        self.start, self.filled = (step + 1) // KEY * KEY, (step + 1) % KEY
        for file in self.segments():
            if int(file.stem.split("-")[1]) > step:
                file.unlink()  # written after the checkpoint: will be written again
        if self.filled:
            last = self.segments()[-1]
            for stream in self.streams:
                self.buffer[stream.name][: self.filled] = read(last, stream.name)[: self.filled]
        print(f"going on after step {step:,}")
        return state, losses

    def _checkpoint(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        path = self.folder / "checkpoint.safetensors"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, safetensors.SafetensorError):
            return None
        step = about.pop("step", None)
        return (step, tensors) if about == self.identity else None

    def _frame(self, moment: loop.Moment, stream: Stream) -> np.ndarray | float:
        name, _, kind = stream.name.partition(".")
        if stream.name == "loss":
            return moment.loss
        if stream.name == "mean_h":
            return 0.0 if moment.h is None else moment.h.float().mean((0, 1)).cpu().numpy()
        tensors = getattr(moment, MOMENTS[kind]) if kind else moment.params
        if moment.step == 0 and kind:
            return np.zeros((), stream.dtype)  # no gradient yet; moments start at zero
        tensor = tensors[name].detach()
        tensor = tensor.view(torch.int16) if stream.dtype == "uint16" else tensor
        kept = self.rows[: stream.shape[0]]
        tensor = tensor if self.all_rows else tensor[kept.to(tensor.device)]
        return tensor.cpu().numpy().view(stream.dtype)


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
    """Join segment files into one film at `path` without unpacking them.

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
    needed are read. Raises FilmError naming what there is.
    """
    with _open(path) as file:
        if name not in file:
            raise FilmError(f"{path.name} has no stream {name!r}; there are {', '.join(file)}")
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


def pieces(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first frame, frames (n, rows, dim) uint16), each overlapping the last by one.

    So every move of the film lies in exactly one piece; a piece leads over PIECE moves.
    """
    count = about(path)[stream][0] if stop is None else stop
    last = None
    for start in range(0, count, KEY):
        frames = read(path, stream, slice(start, min(start + KEY, count)), rows)
        if last is not None:
            frames, start = np.concatenate([last, frames]), start - 1
        for first in range(0, len(frames) - 1, PIECE):
            yield start + first, frames[first : first + PIECE + 1]
        last = frames[-1:]


def about(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every dataset of a film."""
    with _open(path) as file:
        return {name: dataset.shape for name, dataset in file.items()}


@dataclass(frozen=True)
class Size:
    """How large one stream of a film is."""

    frames: int
    plain: int  # bytes of all frames as plain arrays
    stored: np.ndarray  # (segments,) bytes on disk of each segment of `key` frames
    key: int  # frames a segment

    @property
    def ratio(self) -> float:
        """Plain bytes for each byte stored."""
        return self.plain / self.stored.sum()

    @property
    def per_frame(self) -> np.ndarray:
        """(segments,) mean bytes on disk of a frame; the last segment may be short."""
        lengths = np.full(len(self.stored), self.key)
        lengths[-1] = self.frames - self.key * (len(self.stored) - 1)
        return self.stored / lengths


def sizes(path: Path) -> dict[str, Size]:
    """Sizes of the streams of rows (three axes) in the film at `path`, by name."""
    found = {}
    with _open(path) as file:
        key = int(file.attrs["key"])
        for name, dataset in file.items():
            if dataset.ndim != 3:
                continue
            stored = np.zeros(-(-len(dataset) // key), np.int64)
            for n in range(dataset.id.get_num_chunks()):
                chunk = dataset.id.get_chunk_info(n)
                stored[chunk.chunk_offset[0] // key] += chunk.size
            plain = int(np.prod(dataset.shape)) * dataset.dtype.itemsize
            found[name] = Size(len(dataset), plain, stored, key)
    return found


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FilmError(f"{path} is no readable film ({error}); make it again") from error


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
        raise FilmError(f"{path.name}: {name} has frames 0..{count - 1}, asked for {frames}")
    return numbers, np.ndim(frames) == 0


def _row_places(
    file: h5py.File, dataset: h5py.Dataset, rows: Sequence[int] | None, path: Path, name: str
) -> np.ndarray | None:
    """Where the wanted rows lie in the dataset; None if the stream has no rows."""
    if dataset.ndim != 3 or "rows" not in file:
        if rows is not None:
            raise FilmError(f"{path.name}: {name} has no rows to choose from")
        return None
    stored = file["rows"][: dataset.shape[1]]
    order = np.argsort(stored)
    wanted = stored[order] if rows is None else np.asarray(rows, np.int64)
    at = np.searchsorted(stored[order], wanted)
    found = at < len(stored)
    found[found] = stored[order][at[found]] == wanted[found]
    if not found.all() or not len(wanted):
        missing = wanted[~found][:5].tolist()
        raise FilmError(f"{path.name}: {name} has no rows {missing} (it has {len(stored)} rows)")
    return order[at]
