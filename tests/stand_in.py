"""A stand-in for Qwen3-4B's matrix: its shape, dtype and printed cluster, made from a seed.

It rehearses what happens when the book's subject is fetched: a sharded repository for the loopback
hub, of full size or of fewer dimensions. Nothing of it is a fact about the model.
"""

import json
import sys
import threading
from pathlib import Path

import numpy as np

from lib import paths
from lib.extraction import planted
from tests import loopback_hub

ROWS = 151_936
REPO, TENSOR = "Qwen/Qwen3-4B-Instruct-2507", "model.embed_tokens.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
POPULATIONS = (814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2)
DIRECTIONS = 12  # in which the live rows differ most
BLOCK = 8_192  # rows made at a time


def printed_ids(name: str) -> np.ndarray:
    """Token ids that the original notebooks printed."""
    return np.array(json.loads((paths.QWEN3 / name).read_text(encoding="utf-8"))["token_ids"])


def dead_rows(dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(ids (n,), bits (n, dim) uint16): thirteen holes at the printed ids, and single rows."""
    everyone = printed_ids("qwen3_cluster_2212.json")
    holes = printed_ids("qwen3_black_hole_tokens_2100.json")
    singles = np.setdiff1d(everyone, holes)
    common = planted._round(rng.normal(0, 0.371 / np.sqrt(dim), dim))
    common = (common & 0xFF80) | rng.integers(40, 90, dim).astype(np.uint16)
    vectors = np.repeat(common[None], len(POPULATIONS), axis=0)
    for hole in range(1, len(vectors)):
        vectors[hole, rng.choice(20, 1 + hole // 2, replace=False)] += 1
    near = np.repeat(common[None], len(singles), axis=0)
    for single in range(len(singles)):
        near[single, rng.choice(dim, 5, replace=False)] += np.uint16(1 + single % 3)
    bits = np.concatenate([np.repeat(vectors, POPULATIONS, axis=0), near])
    return np.concatenate([rng.permutation(holes), singles]), bits


def write(folder: Path, dim: int, seed: int = 42) -> dict[str, Path]:
    """The files of the sharded repository, written into `folder`, by name."""
    rng = np.random.default_rng(seed)
    ids, dead = dead_rows(dim, rng)
    mean = rng.normal(0, 0.32 / np.sqrt(dim), dim).astype(np.float32)
    axes = np.linalg.qr(rng.normal(size=(dim, min(DIRECTIONS, dim // 4))))[0].T.astype(np.float32)
    header = {TENSOR: {"dtype": "BF16", "shape": [ROWS, dim], "data_offsets": [0, ROWS * dim * 2]}}
    raw = json.dumps(header).encode()
    with (folder / SHARDS[0]).open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for start in range(0, ROWS, BLOCK):
            n = min(BLOCK, ROWS - start)
            scale = rng.lognormal(0, 0.15, (n, 1)).astype(np.float32)
            rows = rng.standard_normal((n, dim), np.float32) * np.float32(0.95 / np.sqrt(dim))
            rows += (rng.standard_normal((n, len(axes)), np.float32) * np.float32(0.1)) @ axes
            bits = planted._round(rows * scale + mean)
            here = (ids >= start) & (ids < start + n)
            bits[ids[here] - start] = dead[here]
            file.write(bits.tobytes())
    other = {"lm.norm": {"dtype": "BF16", "shape": [dim], "data_offsets": [0, 2 * dim]}}
    raw = json.dumps(other).encode()
    (folder / SHARDS[1]).write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(2 * dim))
    index = {"metadata": {}, "weight_map": {TENSOR: SHARDS[0], "lm.norm": SHARDS[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return {path.name: path for path in sorted(folder.glob("model*"))}


def main(folder: str, dim: str) -> None:
    """Write the repository and serve it until interrupted."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    files = write(Path(folder), int(dim))
    with loopback_hub.serving(loopback_hub.Hub({REPO: files})) as hub:
        print(f"HF_ENDPOINT={hub.address}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":  # python -m tests.stand_in FOLDER DIM
    main(*sys.argv[1:])
