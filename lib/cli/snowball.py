"""`python -m lib snowball`: rows = bfloat16(centre + noise); how many holes?"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # simulators import slowly: the verbs that do without them should not wait
    import numpy as np

CENTRES = ("qwen3-holes", "qwen3-lattice", "qwen3-rebuilt", "qwen3-centred")  # as in the gallery
DISTRIBUTIONS = ("gaussian", "ball", "shell", "laplace")
KINDS = ("holes", "largest", "centred")  # of a matrix's own cluster, as in formation.measured
COLUMNS = ("unique", "holes", "tokens", "largest", "varying")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "snowball",
        help="draw snowballs round a centre and count their black holes",
        description="Draw snowballs: rows = bfloat16(centre + noise). Prints, per trial, distinct "
        "rows, holes, tokens in holes, the largest hole and the dimensions that vary, and the "
        "means. Monument Valley with n survivors is the same as --rows n (see the chapter).",
        epilog=f"Built-in centres: {', '.join(CENTRES)}; the chapters of Monument Valley make "
        "them from printed figures. A matrix that is here (`python -m lib specimens`) gives its "
        f"own: SPECIMEN:KIND, KIND being {', '.join(KINDS)}.",
    )
    parser.add_argument(
        "--centre",
        required=True,
        metavar="FILE.safetensors[:TENSOR]",
        help="a tensor with one row (float32, float16 or bfloat16), a built-in centre, or "
        f"SPECIMEN[:KIND] for the cluster of a whole matrix (KIND: {KINDS[0]} if left out)",
    )
    parser.add_argument(
        "--sigma", type=float, required=True, help="sigma, radius or b of the noise"
    )
    parser.add_argument("--rows", type=int, default=2221, help="rows a trial (%(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="trials (%(default)s)")
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default="gaussian")
    parser.add_argument("--seed", type=int, default=42, help="seed of all noise (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and print; returns 0. Raises SpecimenError on a wrong centre or setting."""
    import numpy as np

    from lib.formation import exact
    from lib.specimens.errors import SpecimenError

    row, source = centre(args.centre, seed=args.seed)
    began = time.perf_counter()
    try:
        found = exact.simulate(
            row,
            scale=args.sigma,
            rows=args.rows,
            trials=args.trials,
            distribution=args.distribution,
            seed=args.seed,
        )
    except (ValueError, TypeError) as error:
        raise SpecimenError(f"{source}: {error}") from None
    seconds = time.perf_counter() - began
    answer = {
        "centre": source,
        "norm": float(np.linalg.norm(row.astype(np.float64))),
        "dimensions": row.size,
        "sigma": args.sigma,
        "distribution": args.distribution,
        "rows": args.rows,
        "seed": args.seed,
        "trials": [
            {name: int(getattr(found, name)[i]) for name in COLUMNS} for i in range(len(found))
        ],
        "mean": {name: float(getattr(found, name).mean()) for name in COLUMNS},
        "std": {name: float(getattr(found, name).std()) for name in COLUMNS},
        "seconds": round(seconds, 4),
    }
    print(json.dumps(answer) if args.json else _text(answer))
    return 0


def centre(name: str, *, seed: int) -> "tuple[np.ndarray, str]":
    """(D,) float32 centre and its source, from any of the ways that the help names."""
    import numpy as np

    from lib import lattice
    from lib.formation import gallery
    from lib.specimens.errors import SpecimenError
    from lib.specimens.safetensors_file import open_tensor, read_header

    if name in gallery.NAMES:
        return gallery.named(name, seed=seed), gallery.NAMES[name]
    file, tensor = name, None
    if not Path(file).exists() and ":" in name:
        file, tensor = name.rsplit(":", 1)
    if not Path(file).exists():
        return _measured(name)
    entries = list(read_header(file).entries)
    if tensor is None and len(entries) == 1:
        tensor = entries[0]
    array, dtype = open_tensor(file, tensor)
    if array.size != max(array.shape, default=0):
        raise SpecimenError(
            f"{name}: a centre is one row, this tensor has shape {tuple(array.shape)}; "
            "name another tensor, or save the row you mean"
        )
    if dtype == "BF16":
        row = lattice.value(np.array(array).view(np.uint16))
    elif dtype in ("F32", "F16"):
        row = np.array(array, np.float32)
    else:
        raise SpecimenError(f"{name}: a centre is F32, F16 or BF16, this tensor is {dtype}")
    return row.ravel(), name


def _measured(name: str) -> "tuple[np.ndarray, str]":
    """(D,) float32 centre and its source, from SPECIMEN[:KIND]."""
    from lib.formation import gallery, measured
    from lib.specimens import catalogue, opening
    from lib.specimens.errors import SpecimenError

    id, _, kind = name.partition(":")
    if id not in {description.id for description in catalogue.CATALOGUE}:
        raise SpecimenError(
            f"{name}: no such file, no built-in centre and no specimen; check the path, or take "
            f"one of {', '.join(gallery.NAMES)}"
        )
    kind = kind or KINDS[0]
    if kind not in measured.KINDS:
        raise SpecimenError(f"{name}: no centre {kind!r}; there are {', '.join(KINDS)}")
    specimen = opening.open(id)
    return measured.of(specimen).centre(kind), f"{specimen.source}: {measured.KINDS[kind]}"


def _text(answer: dict) -> str:
    head = (
        f"{answer['centre']} (norm {answer['norm']:.6f}, {answer['dimensions']:,} dimensions)\n"
        f"{answer['distribution']} noise of {answer['sigma']:g}, {answer['rows']:,} rows, "
        f"{len(answer['trials']):,} trials, seed {answer['seed']}: {answer['seconds']:.3f} s"
    )
    lines = ["trial " + "".join(f"{name:>10}" for name in COLUMNS)]
    for i, trial in enumerate(answer["trials"]):
        lines.append(f"{i:>5} " + "".join(f"{trial[name]:>10,}" for name in COLUMNS))
    for key in ("mean", "std"):
        lines.append(f"{key:>5} " + "".join(f"{answer[key][name]:>10,.2f}" for name in COLUMNS))
    return head + "\n" + "\n".join(lines)
