"""Filming a run: training that writes a movie, survives a kill, and ends bit for bit the same.

Frames gather in memory; each full segment becomes a small file in a folder beside the movie,
followed by a checkpoint. A run that was killed goes on from the last checkpoint; at the end the
segments are joined, unpacked nowhere, into one HDF5 file.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from lib import digests, files
from lib.training import arithmetic, loop, model, movie, optim
from lib.training.config import ConfigError, Run

MATRICES = ("W", "E")
MOMENTS = {"grad": "grads", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
VECTORS = ("mean_h",)  # mean last hidden state over the batch, float32 (dim,)
SCALARS = ("loss",)  # float32, NaN at frame 0
SOURCES = tuple(
    f"lib.training.{name}"
    for name in ("config", "arithmetic", "model", "backward", "optim", "loop", "movie", "recorder")
)
RATIO = 3  # least compression of a movie: what the disk is asked for


def streams_of(
    run: Run, record: Sequence[str], rows: int, few: int | None = None
) -> list[movie.Stream]:
    """The streams named in `record`, and `loss`. Raises ConfigError for an unknown name.

    Names: "W", "E", "mean_h", and a moment of a matrix such as "W.grad", "W.exp_avg",
    "E.exp_avg_sq"; with ":few" appended only the first `few` rows are kept. Gradients are stored as
    they are: they have no memory to code against.
    """
    streams = []
    for name in dict.fromkeys([*record, *SCALARS]):
        name, _, part = name.partition(":")
        if part not in ("", "few") or (part and few is None):
            raise ConfigError(f"cannot record {name}:{part}; only ':few' is known")
        kept = few if part else rows
        matrix, _, moment = name.partition(".")
        if name in SCALARS:
            streams.append(movie.Stream(name, (), "float32", delta=False))
        elif name in VECTORS:
            streams.append(movie.Stream(name, (run.dim,), "float32", delta=False))
        elif matrix in MATRICES and (not moment or moment in MOMENTS):
            if matrix == "E" and run.tied:
                raise ConfigError("a tied run has no E of its own: record W")
            kind = {"grad": run.grad_dtype, "": run.param_dtype}.get(moment, run.state_dtype)
            dtype = "uint16" if kind == "bfloat16" else "float32"
            streams.append(movie.Stream(name, (kept, run.dim), dtype, delta=moment != "grad"))
        else:
            known = [*MATRICES, *(f"W.{m}" for m in MOMENTS), *VECTORS, *SCALARS]
            raise ConfigError(f"cannot record {name!r}; there are {', '.join(known)}")
    return streams


def need(run: Run, streams: Sequence[movie.Stream]) -> tuple[int, int]:
    """Bytes of the movie as plain arrays, and bytes of disk that the run asks for."""
    raw = sum(stream.frame_bytes for stream in streams) * (run.steps + 1)
    return raw, raw // RATIO + 16 * model.count(run)


def film(
    path: Path,
    run: Run,
    stream: np.ndarray,
    *,
    record: Sequence[str] = ("W",),
    rows: np.ndarray | None = None,
    few: int | None = None,
    extras: dict[str, np.ndarray | str] | None = None,
    label: str = "filming",
) -> loop.Outcome:
    """Train `run` on `stream` and write its movie to `path`; see streams_of for `record`.

    `rows` (ids) are the rows kept, in the order in which they are stored (dead first makes dead
    rows cheap to read alone); default all. `few` is how many of them streams named ":few" keep.
    What an earlier, killed call left in the folder `<path>.parts` is taken up if it belongs to the
    same run. Raises files.FileError if the disk has no room, loop.Stopped if a signal stopped it.
    """
    rows = np.arange(run.vocab) if rows is None else np.asarray(rows, np.int64)
    streams = streams_of(run, record, len(rows), few)
    parts = path.with_name(path.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    announce(run, streams, parts)
    identity = {
        "run": run.as_dict(),
        "record": [[stream.name, *stream.shape] for stream in streams],
        "rows": digests.of_arrays({"rows": rows}),
        "stream": digests.of_arrays({"stream": stream}),
        "source": digests.of_source(SOURCES),
    }
    recorder = Recorder(parts, streams, rows, identity)
    resume = recorder.resume()
    outcome = loop.train(
        run,
        stream,
        observers=[recorder.observe],
        resume=resume,
        save=recorder.save,
        save_every=movie.KEY,
        label=label,
    )
    recorder.flush()
    kept = {"rows": rows, "run": json.dumps(run.as_dict(), sort_keys=True), **(extras or {})}
    kept["last_state"] = outcome.state.param.cpu().view(torch.uint8).numpy()
    movie.assemble(path, streams, recorder.segments(), kept)
    shutil.rmtree(parts)
    return outcome


def announce(run: Run, streams: Sequence[movie.Stream], folder: Path) -> None:
    """Print what the movie needs and raise files.FileError if the disk has less."""
    raw, wanted = need(run, streams)
    free = shutil.disk_usage(folder).free
    names = ", ".join(stream.name for stream in streams)
    place = arithmetic.device(run.device).type
    print(
        f"movie of {names} on {place}: {run.steps + 1:,} frames, {raw / 1e6:,.0f} MB plain, "
        f"at most {wanted / 1e6:,.0f} MB on disk ({free / 1e9:,.1f} GB free)"
    )
    if wanted > free:
        raise files.FileError(
            f"{folder.parent} has {free / 1e6:,.0f} MB free, the movie may need "
            f"{wanted / 1e6:,.0f} MB; free some space, or record fewer rows or steps"
        )


class Recorder:
    """Gathers frames, writes segments and checkpoints into `folder`."""

    def __init__(
        self, folder: Path, streams: Sequence[movie.Stream], rows: np.ndarray, identity: dict
    ):
        self.folder, self.streams, self.identity = folder, list(streams), identity
        self.rows = torch.from_numpy(rows)
        self.all_rows = np.array_equal(rows, np.arange(identity["run"]["vocab"])) and all(
            stream.shape[:1] in ((), (len(rows),)) for stream in streams if len(stream.shape) > 1
        )
        self.buffer = {s.name: np.zeros((movie.KEY, *s.shape), s.dtype) for s in streams}
        self.start, self.filled = 0, 0  # first frame in the buffer, frames in it

    def observe(self, moment: loop.Moment) -> None:
        """Keep the frame of this step; write the segment when it is full."""
        for stream in self.streams:
            self.buffer[stream.name][self.filled] = self._frame(moment, stream)
        self.filled += 1
        if self.filled == movie.KEY:
            self.flush()

    def flush(self) -> None:
        """Write what is in the buffer as the segment that starts at `start`."""
        if self.filled:
            frames = {name: array[: self.filled] for name, array in self.buffer.items()}
            files.write_atomically(
                self.folder / f"segment-{self.start:09d}.h5",
                lambda path: movie.write_segment(path, self.streams, frames),
            )
            if self.filled == movie.KEY:
                self.start, self.filled = self.start + movie.KEY, 0

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
        self.start = (step + 1) // movie.KEY * movie.KEY
        self.filled = (step + 1) % movie.KEY
        for file in self.segments():
            if int(file.stem.split("-")[1]) > step:
                file.unlink()  # written after the checkpoint: will be written again
        if self.filled:
            last = self.segments()[-1]
            for stream in self.streams:
                plain = movie.read(last, stream.name)
                self.buffer[stream.name][: self.filled] = plain[: self.filled]
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

    def _frame(self, moment: loop.Moment, stream: movie.Stream) -> np.ndarray | float:
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
