"""Work in a forked child: killed at a random moment, on a small disk, or as nobody.

A fork has everything imported: a kill costs milliseconds, not the seconds of a new interpreter.
"""

import importlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from lib import paths

# What the library imports late is imported now: nobody may not be allowed to read the interpreter.
for late in ("_strptime", "zoneinfo"):
    importlib.import_module(late)

NOBODY = 65_534
FORK = multiprocessing.get_context("fork")
Work = Callable[[], object]


def ended(work: Work, *, disk: int = 0, nobody: bool = False) -> str:
    """How `work` ended in a child: "" if well, else the error as "Type: text".

    `disk`: no file may grow over so many bytes, as on a disk that is full.
    """
    mine, its = FORK.Pipe(duplex=False)

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if nobody and os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        if disk:
            resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
        tell(work, its)

    process = FORK.Process(target=child)
    process.start()
    its.close()
    try:
        said = mine.recv()
    except EOFError:
        said = "it died"
    process.join()
    return said


def tell(work: Work, its: Connection) -> None:
    """Do the work, say through the pipe how it ended, and end the process."""
    said = ""
    try:
        work()
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    its.send(said)
    os._exit(0)


def killed(work: Work, times: int, seconds: float, seed: int) -> int:
    """Start `work` and kill it at a random moment of so many seconds, again and again.

    How often it was still at work.
    """
    rng, hits = random.Random(seed), 0
    for _ in range(times):
        process = FORK.Process(target=work)
        process.start()
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.join()
        hits += process.exitcode == -signal.SIGKILL
    return hits


def at_once(*works: Work) -> list[str]:
    """How works that start together ended, each as `ended` says it."""
    start = FORK.Barrier(len(works))
    pipes, processes = [], []
    for work in works:
        mine, its = FORK.Pipe(duplex=False)

        def child(work=work, its=its) -> None:
            start.wait()
            tell(work, its)

        process = FORK.Process(target=child)
        process.start()
        pipes.append(mine)
        processes.append(process)
    said = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return said


PRESS = """
import resource, signal, sys
from multiprocessing.connection import Connection
from pathlib import Path
from press import edition
from tests import made_book
root, out, disk, *formats = sys.argv[1:]
pairs = [(p, Path(root, "executed", f"{p.name}.ipynb")) for p in made_book.BOOK.pages]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if int(disk):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(disk), int(disk)))
try:
    edition.press(pairs, Path(out), formats, book=made_book.BOOK, root=Path(root))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def pressing(root: Path, out: Path, *formats: str, disk: int = 0) -> subprocess.Popen:
    """A process of its own that presses the made book: the threads of Typst outlive no fork."""
    command = [sys.executable, "-c", PRESS, root, out, disk, *formats]
    settings = {"cwd": paths.ROOT, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(word) for word in command], **settings)


def open_to_all(path: Path) -> None:
    """Let others pass through the private folders that pytest makes."""
    for folder in [path, *path.parents]:
        if folder.owner() == path.owner() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
