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

import io
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

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
MOMENTS = {"": "params", "grad": "grads", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
EXTRAS = ("mean_h", "loss")  # last hidden states' mean over the batch (dim,), a number: float32


class FilmError(RuntimeError):
    """A film cannot be read or written as asked."""


@dataclass(frozen=True)
class Stream:
    """One recorded quantity."""

    name: str
    shape: tuple[int, ...]  # of one frame
    dtype: str = "uint16"  # "uint16" (bf16 patterns) or "float32"
    delta: bool = True  # coded as ordinal differences (uint16 only)

    @property
    def frame_bytes(self) -> int:
        """Size of one frame as a plain array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a compressed chunk: KEY frames of a block of rows."""
        if not self.shape:
            return (KEY,)
        rows = CHUNK_BYTES * self.shape[0] // (KEY * self.frame_bytes)
        return (KEY, min(max(rows, 1), self.shape[0]), *self.shape[1:])


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
        the same run, and a film at `path` is whole. Raises ConfigError for a name that cannot be
        filmed, files.FileError if the disk has no room, loop.Stopped if a signal stopped it.
        """
        kept = dict.fromkeys([*self.streams, "loss"], world.vocab)
        kept |= dict.fromkeys(self.dead, len(world.dead))
        streams = [_stream(run, name, rows) for name, rows in kept.items()]
        parts = path[0].with_name(path[0].name + ".parts")
        if path[0].exists():
            return shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True, exist_ok=True)
        announce(run, streams, parts)
        recorder = Recorder(parts, streams, run, world)
        outcome = loop.train(
            run,
            world.stream,
            observers=[recorder.observe],
            resume=recorder.resume(),
            save=recorder.save,
            save_every=KEY,
            label=f"film, seed {run.seed}",
        )
        if (run.steps + 1) % KEY:
            recorder.flush(run.steps)
        extras = {
            "rows": recorder.rows.numpy(),
            "run": json.dumps(asdict(run), sort_keys=True),
            "counts": world.counts,
            "last_state": outcome.state.param.cpu().view(torch.uint8).numpy(),
        }
        segments = recorder.segments()
        files.write_atomically(path[0], lambda film: assemble(film, streams, segments, extras))
        shutil.rmtree(parts)


def _stream(run: Run, name: str, rows: int) -> Stream:
    if name in EXTRAS:
        return Stream(name, (run.dim,) if name == "mean_h" else (), "float32", delta=False)
    matrix, dot, moment = name.partition(".")
    if matrix not in MATRICES or moment not in MOMENTS or (dot and not moment):
        known = [*MATRICES, *(f"W.{moment}" for moment in MOMENTS if moment), *EXTRAS]
        raise ConfigError(f"cannot film {name!r}; there are {', '.join(known)}")
    if matrix == "E" and run.tied:
        raise ConfigError("a tied run has no E of its own: film W")
    lattice = {"": run.param_dtype, "grad": run.grad_dtype}.get(moment, run.state_dtype)
    if lattice == "float32":
        return Stream(name, (rows, run.dim), "float32", delta=False)
    return Stream(name, (rows, run.dim), delta=moment != "grad")


def announce(run: Run, streams: Sequence[Stream], folder: Path) -> None:
    """Print what the film needs and raise files.FileError if the disk has less.

    Segments and film lie side by side in the end, two checkpoints while one takes the other's
    place.
    """
    plain = sum(stream.frame_bytes for stream in streams) * (run.steps + 1)
    wanted = 2 * (plain // RATIO + 16 * model.count(run))
    wanted -= sum(file.stat().st_size for file in folder.iterdir())  # of an earlier attempt
    free = shutil.disk_usage(folder).free
    names = ", ".join(stream.name for stream in streams)
    print(
        f"film of {names} on {optim.device(run.device).type}: {run.steps + 1:,} frames, "
        f"{plain / 1e6:,.0f} MB plain, at most {wanted / 1e6:,.0f} MB on disk "
        f"({free / 1e9:,.1f} GB free)"
    )
    if wanted > free:
        raise files.FileError(
            f"{folder.parent} has {free / 1e6:,.0f} MB free, the film may need "
            f"{wanted / 1e6:,.0f} MB; free some space, or film fewer rows or steps"
        )


# ----------------------------------------------------------------------------- recording


class Recorder:
    """Gathers frames in memory and writes segments and checkpoints into `folder`.

    A checkpoint is this recorder's if streams, run, token stream and code are the same.
    """

    def __init__(self, folder: Path, streams: Sequence[Stream], run: Run, world: World):
        self.folder, self.streams = folder, streams
        self.rows = torch.from_numpy(np.concatenate([world.dead, world.live]))
        self.device = str(optim.device(run.device))
        about = {
            "streams": [[stream.name, *stream.shape] for stream in streams],
            "run": asdict(run),
            "tokens": digests.of_arrays({"stream": world.stream, "counts": world.counts}),
            "source": digests.of_maker(Film),
        }
        self.identity = digests.of_value(about)
        self.buffer = {s.name: np.zeros((KEY, *s.shape), s.dtype) for s in streams}

    def observe(self, moment: loop.Moment) -> None:
        """Keep the frame of this step."""
        for stream in self.streams:
            self.buffer[stream.name][moment.step % KEY] = frame(moment, stream, self.rows)

    def flush(self, step: int) -> None:
        """Write the segment of frame `step` up to this frame."""
        start = step // KEY * KEY
        frames = {name: array[: step - start + 1] for name, array in self.buffer.items()}
        files.write_atomically(
            self.folder / f"segment-{start:09d}.h5",
            lambda path: write_segment(path, self.streams, frames),
        )

    def segments(self) -> list[Path]:
        """The segment files in order of time."""
        return sorted(self.folder.glob("segment-*.h5"))

    def save(self, reached: loop.Outcome) -> None:
        """Write the frames so far, then a checkpoint."""
        state = reached.state
        self.flush(state.step)
        tensors = {name: tensor.cpu() for name, tensor in state.tensors().items()}
        tensors |= {"step": torch.tensor(state.step), "losses": torch.from_numpy(reached.losses)}
        files.write_atomically(
            self.folder / "checkpoint.safetensors",
            lambda path: safetensors.torch.save_file(tensors, path, {"identity": self.identity}),
        )

    def resume(self) -> loop.Outcome | None:
        """What the checkpoint in the folder holds, or None (and an empty folder)."""
        path = self.folder / "checkpoint.safetensors"
        try:
            with safetensors.safe_open(path, framework="pt", device=self.device) as file:
                known = (file.metadata() or {}).get("identity") == self.identity
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, safetensors.SafetensorError):
            known = False
        if not known:
            for file in self.folder.iterdir():
                file.unlink()
            return None
        step, losses = tensors.pop("step").item(), tensors.pop("losses").cpu().numpy()
        for file in self.segments():
            if int(file.stem.split("-")[1]) > step:
                file.unlink()  # written after the checkpoint: will be written again
        if filled := (step + 1) % KEY:
            for name, array in self.buffer.items():
                array[:filled] = read(self.segments()[-1], name)[:filled]
        print(f"going on after step {step:,}")
        return loop.Outcome(losses, optim.State(step, **tensors))


def frame(moment: loop.Moment, stream: Stream, rows: torch.Tensor) -> np.ndarray | float:
    """The frame of `stream` at one moment, of the first of `rows` (ids)."""
    if stream.name == "loss":
        return moment.loss
    if stream.name == "mean_h":
        return 0.0 if moment.h is None else moment.h.float().mean((0, 1)).cpu().numpy()
    name, _, kind = stream.name.partition(".")
    tensor = getattr(moment, MOMENTS[kind])[name].detach()
    tensor = tensor.view(torch.int16) if stream.dtype == "uint16" else tensor
    kept = tensor[rows[: stream.shape[0]].to(tensor.device)]
    return kept.cpu().numpy().view(stream.dtype)


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
    dataset.attrs["delta"] = stream.delta
    return dataset


def write_segment(path: Path, streams: Sequence[Stream], frames: dict[str, np.ndarray]) -> None:
    """One segment file: `frames` maps stream name -> (up to KEY, ...) plain frames.

    Put together in memory: after a write that a full disk refused, the HDF5 library crashes.
    """
    whole = io.BytesIO()
    with h5py.File(whole, "w", libver="latest") as file:
        file.attrs["key"] = KEY
        for stream in streams:
            plain = frames[stream.name]
            dataset = create(file, stream, len(plain))
            for place in dataset.iter_chunks():
                dataset[place] = encode(plain[place]) if stream.delta else plain[place]
    path.write_bytes(whole.getbuffer())


def assemble(path: Path, streams: Sequence[Stream], segments: Sequence[Path], extras: dict) -> None:
    """Join segment files into one film at `path` without unpacking them.

    `extras` maps names to arrays (kept as small datasets) or texts (kept as attributes). Raises
    OSError if the disk has no room.
    """
    parts = sum(file.stat().st_size for file in segments)
    files.reserve(path, parts + sum(getattr(value, "nbytes", 0) for value in extras.values()))
    with h5py.File(path, "w", libver="latest") as file:
        for name, value in extras.items():
            if isinstance(value, str):
                file.attrs[name] = value
            else:
                file.create_dataset(name, data=value)
        file.attrs["key"] = KEY
        with h5py.File(segments[-1]) as last:
            frames = KEY * (len(segments) - 1) + len(last[streams[0].name])
        for stream in streams:
            target = create(file, stream, frames).id
            for i, segment in enumerate(segments):
                with h5py.File(segment) as part:
                    source = part[stream.name].id
                    for n in range(source.get_num_chunks()):
                        place = source.get_chunk_info(n).chunk_offset
                        mask, packed = source.read_direct_chunk(place)
                        target.write_direct_chunk((place[0] + i * KEY, *place[1:]), packed, mask)


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
        dataset, key = file[name], int(file.attrs["key"])
        every = np.arange(len(dataset))
        try:
            wanted = every if frames is None else every[frames]
        except IndexError as error:
            known = f"{path.name}: {name} has frames 0..{every[-1]}"
            raise FilmError(f"{known}, asked for {frames}") from error
        numbers = np.atleast_1d(wanted)
        places = _row_places(file, name, rows)
        low, high = (0, 0) if places is None else (places.min(), places.max() + 1)
        shape = dataset.shape[1:] if places is None else (len(places), *dataset.shape[2:])
        result = np.empty((len(numbers), *shape), dataset.dtype)
        for start in np.unique(numbers // key) * key:
            inside = np.flatnonzero(numbers // key == start // key)
            offsets = numbers[inside] - start
            window = slice(start, start + offsets.max() + 1)
            block = dataset[window] if places is None else dataset[window, low:high]
            block = (decode(block) if dataset.attrs["delta"] else block)[offsets]
            result[inside] = block if places is None else block[:, places - low]
        return result if wanted.ndim else result[0]


def _row_places(file: h5py.File, name: str, rows: Sequence[int] | None) -> np.ndarray | None:
    """Where the wanted rows lie in the stream `name`; None if it has no rows."""
    dataset, film = file[name], Path(file.filename).name
    if dataset.ndim != 3 or "rows" not in file:
        if rows is not None:
            raise FilmError(f"{film}: {name} has no rows to choose from")
        return None
    stored = file["rows"][: dataset.shape[1]]
    order = np.argsort(stored)
    wanted = stored[order] if rows is None else np.asarray(rows, np.int64)
    missing = np.setdiff1d(wanted, stored)[:5].tolist()
    if missing or not len(wanted):
        raise FilmError(f"{film}: {name} has no rows {missing} (it has {len(stored)} rows)")
    return order[np.searchsorted(stored, wanted, sorter=order)]


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


class Size(NamedTuple):
    """How large one stream of a film is: bytes of each segment of KEY frames, (segments,) int64."""

    plain: np.ndarray  # as arrays
    stored: np.ndarray  # on disk


def sizes(path: Path) -> dict[str, Size]:
    """Sizes of the streams of rows (three axes) in the film at `path`, by name."""
    found = {}
    with _open(path) as file:
        key = int(file.attrs["key"])
        for name, dataset in file.items():
            if dataset.ndim != 3:
                continue
            lengths = np.diff([*range(0, len(dataset), key), len(dataset)])
            stored = np.zeros(len(lengths), np.int64)
            for n in range(dataset.id.get_num_chunks()):
                chunk = dataset.id.get_chunk_info(n)
                stored[chunk.chunk_offset[0] // key] += chunk.size
            found[name] = Size(lengths * (dataset.nbytes // len(dataset)), stored)
    return found


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FilmError(f"{path} is no readable film ({error}); make it again") from error
