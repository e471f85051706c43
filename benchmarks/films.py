"""Films against plain HDF5 with gzip: `python -m benchmarks.films [STEPS | FILM.h5]`.

Films a small Goldilocks (real text, real gradients), then writes the same frames as one would:
uint16, gzip level 4, a chunk a frame. Prints milliseconds of processor time a frame, share of the
step, sizes of all rows and of the dead rows alone, and checks that both give back the same frames.
The first steps are the dearest, since everything moves. Given a finished film of this model, dead
rows first, it weighs that: how much of the file is the dead rows', how much the others'.
"""

import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from lib.training import films, loop, worlds
from lib.training.config import GOLDILOCKS

WORLD = worlds.Goldilocks(2048, 0.02, tokenizer_characters=2_000_000, characters=2_000_000)


def weigh(path: Path, dead: int) -> None:
    """Print how many times smaller than plain frames the stored chunks of a film are."""
    with h5py.File(path) as file:
        data, stored = file["W"], np.zeros(2)
        for n in range(data.id.get_num_chunks()):
            chunk = data.id.get_chunk_info(n)
            first = chunk.chunk_offset[1]
            rows = min(data.chunks[1], data.shape[1] - first)
            share = np.clip((dead - first) / rows, 0, 1)  # of the one chunk that holds both kinds
            stored += chunk.size * np.array([share, 1 - share])
        row = 2 * data.shape[0] * data.shape[2]
        live = data.shape[1] - dead
        ratio = row * data.shape[1] / stored.sum(), row * dead / stored[0], row * live / stored[1]
        print(f"{data.shape[0]:,} frames of {data.shape[1]:,} x {data.shape[2]}: "
              f"{ratio[0]:.1f} x smaller than raw; "
              f"{dead:,} dead rows {ratio[1]:.1f} x, {live:,} live {ratio[2]:.1f} x")  # fmt: skip


def main() -> None:
    if sys.argv[1:] and sys.argv[1].endswith(".h5"):
        return weigh(Path(sys.argv[1]), len(WORLD.get().dead))
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 255
    torch.set_num_threads(1)
    world = WORLD.get()
    rows = np.concatenate([world.dead, world.live])
    keep, segments = torch.from_numpy(rows), []
    run = GOLDILOCKS.replace(vocab=world.vocab, steps=steps)
    frames: list[np.ndarray] = []
    spent = {"ours": 0.0, "gzip": 0.0, "all": 0.0}
    sizes = {"ours": 0, "gzip": 0, "dead": 0}

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        stream = films.Stream("W", (len(rows), run.dim))
        dead = films.Stream("W", (len(world.dead), run.dim))

        def finish() -> None:
            plain = np.stack(frames)
            path = place / f"{len(segments):04d}.h5"
            start = time.process_time()
            films.write_segment(path, [stream], {"W": plain})
            spent["ours"] += time.process_time() - start
            start = time.process_time()
            with h5py.File(place / "gzip.h5", "w") as file:
                file.create_dataset("W", data=plain, chunks=(1, *plain.shape[1:]),
                                    compression="gzip", compression_opts=4)  # fmt: skip
            spent["gzip"] += time.process_time() - start
            sizes["ours"] += path.stat().st_size
            sizes["gzip"] += (place / "gzip.h5").stat().st_size
            alone = place / "dead.h5"
            films.write_segment(alone, [dead], {"W": plain[:, : len(world.dead)]})
            sizes["dead"] += alone.stat().st_size
            assert np.array_equal(films.read(path, "W"), plain), "ours is not lossless"
            segments.append(path)
            frames.clear()

        def observe(moment: loop.Moment) -> None:
            start = time.process_time()
            frames.append(moment.params["W"].view(torch.int16)[keep].numpy().view(np.uint16))
            spent["ours"] += time.process_time() - start
            if len(frames) == films.KEY:
                finish()

        start = time.process_time()
        loop.train(run, world.stream, observers=[observe])
        if frames:
            finish()
        spent["all"] = time.process_time() - start

    count = steps + 1
    raw, raw_dead = count * stream.frame_bytes, count * dead.frame_bytes
    step = (spent["all"] - spent["gzip"] - spent["ours"]) / steps
    print(f"Goldilocks, {len(rows):,} x {run.dim}, {count:,} frames, step {step * 1e3:.0f} ms")
    for name in ("ours", "gzip"):
        cost = spent[name] / count
        print(f"  {name:5s} {cost * 1e3:6.1f} ms a frame = {cost / step:5.1%} of a step, "
              f"{raw / sizes[name]:5.1f} x smaller than raw")  # fmt: skip
    print(f"  dead rows alone, ours: {raw_dead / sizes['dead']:.1f} x smaller than raw")


if __name__ == "__main__":
    main()
