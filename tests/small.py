"""What tests have in common: a small run, its worlds, a matrix in memory as a specimen."""

import numpy as np
from tokenizers import Tokenizer, models

from lib.extraction.catalogue import Description
from lib.extraction.specimens import Specimen
from lib.training.config import Run
from lib.training.worlds import World

TINY = Run(vocab=50, dim=16, layers=2, heads=2, ff=32, seq=16, batch=4, steps=6)
LIVE = 30  # ids of TINY's world that occur; the others are dead


def world_of(stream: np.ndarray, run: Run, live: int) -> World:
    """The world of a stream: its tokenizer has `live` tokens, the rows above them are phantoms."""
    tokenizer = Tokenizer(models.BPE(vocab={chr(0x100 + i): i for i in range(live)}, merges=[]))
    return World(tokenizer, stream, np.bincount(stream, minlength=run.vocab))


def tiny_world() -> World:
    """The world of TINY."""
    stream = np.random.default_rng(0).integers(0, LIVE, 2000).astype(np.uint16)
    return world_of(stream, TINY, LIVE)


FILMED = Run(  # its dead rows come to rest one after another, but for one
    vocab=60, dim=8, layers=1, heads=1, ff=16, seq=8, batch=4, steps=160, lr=1e-3,
    schedule="linear", lr_end=0.05,
)  # fmt: skip
DEAD = np.arange(40, 60)  # of FILMED's world
MOMENTS = ("W.grad", "W.exp_avg", "W.exp_avg_sq")


def filmed_world() -> World:
    """The world of FILMED."""
    stream = np.random.default_rng(0).integers(0, 40, 1000).astype(np.uint16)
    return world_of(stream, FILMED, 40)


def specimen_of(id: str, bits: np.ndarray, *, source: str) -> Specimen:
    """The specimen of (rows, dim) uint16 bfloat16 bits in memory."""
    return Specimen(Description(id, id, "W", *bits.shape, "BF16"), source, "BF16", bits)
