"""How large films are: as plain arrays, and as they lie on disk."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lib.training.config import Run


@dataclass(frozen=True)
class Size:
    """One stream of a film."""

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
    with h5py.File(path, "r") as file:
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


def frame_bytes(run: Run, matrices: int = 1) -> int:
    """Plain bytes of `matrices` matrices of the size of W, on the bf16 lattice, for one frame."""
    return run.vocab * run.dim * 2 * matrices
