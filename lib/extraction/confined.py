"""A tokenizer file from outside is read in a process of its own, which has so much time and, on
Linux, memory.

Its expressions run in the `tokenizers` library and in `regex`, where some never end. Which ones,
their form does not say: `(a|aa)+$` runs away, `(\\d{3})+`, which sound files have, does not, and
`a{99999999}`, in which nothing is repeated twice, does. So nothing is refused by its form, and the
process that runs them is ended when its time is up. Whatever becomes of it, a defect in the library
included, is one line.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from lib import files, paths, processes, progress
from lib.extraction import emission, families, vocabulary
from lib.extraction.editions import EditionError
from lib.extraction.reachability import Reach, Record
from lib.extraction.vocabulary import VocabularyError

SECONDS = 120  # of processor, and
SECONDS_A_MEGABYTE = 60  # of the file: the largest sound ones take a tenth of it
MEMORY = 6 << 30  # bytes


def records(name: str | Path, rows: int = 0) -> list[Record]:
    """As `emission.records`; of a file from outside, in a process of its own.

    Raises VocabularyError, also where the file takes too much time or memory.
    """
    path = Path(name)
    if str(name) in vocabulary.catalogue() or not path.is_file():
        return emission.records(name, rows)
    size = min(path.stat().st_size, families.MOST)  # a GGUF file is mostly matrices
    seconds = int(SECONDS + SECONDS_A_MEGABYTE * size / 1e6)
    told = map(str, (path.resolve(), rows, seconds, MEMORY))
    command = [sys.executable, "-m", __name__, *told]
    environment = dict(os.environ)
    if sys.stderr.isatty():
        environment[progress.TERMINAL] = os.ttyname(sys.stderr.fileno())
    settings = {"cwd": paths.ROOT, "env": environment, "stdin": subprocess.DEVNULL}
    try:  # more time on the clock than of processor: others may be working too
        done = subprocess.run(command, **settings, capture_output=True, timeout=8 * seconds)
    except subprocess.TimeoutExpired:
        raise VocabularyError(_too_long(name, seconds)) from None
    if done.returncode == -signal.SIGXCPU:
        raise VocabularyError(_too_long(name, seconds))
    if done.returncode:
        why = f"more than {MEMORY >> 30} GiB of memory, or a defect of the tokenizers library"
        raise VocabularyError(f"{name}: the process that read it died: {why}")
    answer = json.loads(done.stdout)
    if isinstance(answer, str):
        raise VocabularyError(answer)
    return [Record(id, Reach(reach), bytes.fromhex(b), *rest) for id, reach, b, *rest in answer]


def _too_long(name: str | Path, seconds: int) -> str:
    why = "does an expression of its pre-tokenizer or normaliser run away?"
    return f"{name}: cannot be read within {seconds:,} s of processor; {why}"


def answer(name: str, rows: int) -> list[tuple] | str:
    """The records as plain values, or in one line why there are none; raises nothing."""
    try:
        found = emission.records(name, rows)
    except (VocabularyError, EditionError, files.FileError) as error:
        return str(error)
    except BaseException as error:  # a panic of the library is no Exception
        why = " ".join(str(error).split())[:200]
        return f"{name}: cannot be read as a tokenizer: {type(error).__name__}: {why}"
    return [(r.id, r.reach.value, r.bytes.hex(), *r[3:]) for r in found]


def _limited(seconds: int, memory: int) -> None:
    """Let this process end with its parent, or when it has had its time or memory."""
    processes.end_with_parent()
    for limit, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_DATA, memory)):
        with contextlib.suppress(ValueError, OSError):  # lower already, or not known here
            resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limited(int(sys.argv[3]), int(sys.argv[4]))
    json.dump(answer(sys.argv[1], int(sys.argv[2])), sys.stdout)
