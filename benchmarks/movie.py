"""Movies against plain HDF5 with gzip: `python -m benchmarks.movie [STEPS]`.

Films a small Goldilocks (real text, real gradients), then writes the same frames as one would:
uint16, gzip level 4, a chunk a frame. Prints milliseconds a frame, share of the step, sizes of all
rows and of the dead rows alone (processor time), and checks that both give back the same frames. The first steps
are the dearest: everything moves. `python -m benchmarks.movie FILE.h5` weighs a finished film.
"""

import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from lib.training import loop, movie, worlds
from lib.training.config import GOLDILOCKS

WORLD = {"half": 2048, "english_in_thai": 0.02, "tokenizer_characters": 2_000_000,
         "characters": 2_000_000}  # fmt: skip


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 255
    torch.set_num_threads(1)
    world = worlds.cached("goldilocks", **WORLD)
    rows = np.concatenate([world.dead, world.live])
    keep, segments = torch.from_numpy(rows), []
    run = GOLDILOCKS.replace(vocab=world.vocab, steps=steps)
    frames: list[np.ndarray] = []
    spent = {"ours": 0.0, "gzip": 0.0, "all": 0.0}
    sizes = {"ours": 0, "gzip": 0, "dead": 0}

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        stream = movie.Stream("W", (len(rows), run.dim))
        dead = movie.Stream("W", (len(world.dead), run.dim))

        def finish() -> None:
            plain = np.stack(frames)
            path = place / f"{len(segments):04d}.h5"
            start = time.process_time()
            movie.write_segment(path, [stream], {"W": plain})
            spent["ours"] += time.process_time() - start
            start = time.process_time()
            with h5py.File(place / "gzip.h5", "w") as file:
                file.create_dataset("W", data=plain, chunks=(1, *plain.shape[1:]),
                                    compression="gzip", compression_opts=4)  # fmt: skip
            spent["gzip"] += time.process_time() - start
            sizes["ours"] += path.stat().st_size
            sizes["gzip"] += (place / "gzip.h5").stat().st_size
            alone = place / "dead.h5"
            movie.write_segment(alone, [dead], {"W": plain[:, : len(world.dead)]})
            sizes["dead"] += alone.stat().st_size
            assert np.array_equal(movie.read(path, "W"), plain), "ours is not lossless"
            segments.append(path)
            frames.clear()

        def observe(moment: loop.Moment) -> None:
            start = time.process_time()
            frames.append(moment.params["W"].view(torch.int16)[keep].numpy().view(np.uint16))
            spent["ours"] += time.process_time() - start
            if len(frames) == movie.KEY:
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
