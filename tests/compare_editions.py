"""Two editions side by side: are the artefacts' arrays the same, and the numbers on every page?

    python tests/compare_editions.py BEFORE AFTER [--scale book] [--chapter dynamics/01-train]

BEFORE and AFTER are folders of artefacts (data/artifacts). Arrays are compared by their bytes,
whatever the files are called; numbers as they stand in text and tables, whatever the sentences say.
Prints what only one of the two has; exit status 1 if the first has something that the second lacks.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 (films are compressed with it)
import numpy as np
import safetensors.numpy

NUMBER = re.compile(r"[−-]?\d[\d,]*(?:\.\d+)?(?:\s×\s10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|e[-+]\d+)?")
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
TIMED = ("speed",)  # artefacts that are a property of the moment
CLOCK = re.compile(r"made (?:by|in)|steps? (?:a|per) second|with torch| s\b.*artefact|\d s \|")
NAMES = re.compile(r"`[^`]*`|@[\w-]+|\]\([^)]*\)|https?://\S+|\$[^$]*\$")


def arrays(folder: Path, scale: str) -> dict[str, set[str]]:
    """Digest of an array -> the artefacts of this scale that hold it."""
    found: dict[str, set[str]] = {}

    def note(name: str, array: np.ndarray, where: str) -> None:
        data = np.ascontiguousarray(array)
        text = f"{name}|{data.dtype.str}|{data.shape}|".encode()
        digest = hashlib.sha256(text + data.tobytes()).hexdigest()
        found.setdefault(digest, set()).add(f"{where} {name} {data.dtype} {data.shape}")

    for file in sorted(folder.rglob("*.safetensors")):
        with safetensors.safe_open(file, framework="numpy") as opened:
            about = json.loads((opened.metadata() or {}).get("provenance", "{}"))
        if about.get("scale", "").split(",")[0] == scale and about["name"] not in TIMED:
            for name, array in safetensors.numpy.load_file(file).items():
                note(name, array, f"{about['chapter']} {about['name']}")
    for file in sorted(folder.rglob("*.h5")):
        about = json.loads(file.with_name(file.name + ".json").read_text())
        if about.get("scale", "").split(",")[0] == scale:
            with h5py.File(file, "r") as opened:
                for name, dataset in opened.items():
                    note(name, dataset[()], f"{about['chapter']} {about['name']}")
    return found


def value(shown: str) -> str:
    """A number in one form, however the page wrote it."""
    plain = shown.replace(",", "").replace("−", "-").replace(" × 10", "e").translate(RAISED)
    return f"{float(plain):.9g}"


def numbers(notebook: Path) -> tuple[Counter, dict[str, str]]:
    """How often each number stands on a page, and the words round it."""
    counts: Counter = Counter()
    context: dict[str, str] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        texts = ["".join(cell["source"])] if cell["cell_type"] == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = output.get("text") or data.get("text/markdown") or ""
            texts.append("".join(shown))
        for text in texts:
            for line in text.split("\n"):
                if CLOCK.search(line):
                    continue
                line = re.sub(r"\\(?=[-.])", "", line.replace("\u00a0", " "))
                line = NAMES.sub(" ", line)
                for match in NUMBER.finditer(line):
                    number = value(match.group(0))
                    counts[number] += 1
                    near = line[max(0, match.start() - 40) : match.end() + 30]
                    context.setdefault(number, " ".join(near.split()))
    return counts, context


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--scale", default="book")
    parser.add_argument("--chapter", help="only the numbers of this chapter")
    args = parser.parse_args()
    lost = 0
    if not args.chapter:
        old, new = arrays(args.before, args.scale), arrays(args.after, args.scale)
        gone = sorted(where for digest in old.keys() - new.keys() for where in old[digest])
        lost += len(gone)
        print(f"{len(old)} arrays before, {len(old.keys() & new.keys())} of them after")
        for where in gone:
            print(f"  lost: {where}")
    folder = args.before / "executed" / args.scale
    for page in sorted(folder.rglob("*.ipynb")):
        name = page.relative_to(folder).with_suffix("").as_posix()
        other = args.after / "executed" / args.scale / f"{name}.ipynb"
        if (args.chapter and name != args.chapter) or not other.exists():
            continue
        (mine, near), (its, its_near) = numbers(page), numbers(other)
        gone, fresh = sorted(mine.keys() - its.keys()), sorted(its.keys() - mine.keys())
        lost += len(gone)
        print(f"{name}: {len(mine)} numbers, {len(gone)} lost, {len(fresh)} new")
        for number in gone:
            print(f"  lost {number}: … {near[number]} …")
        for number in fresh if args.chapter else ():
            print(f"  new  {number}: … {its_near[number]} …")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
