"""Kernels that start warm: forked from a process that has imported what every chapter imports.

An interpreter with torch, SciPy and matplotlib costs a kernel four seconds, more than most chapters
at smoke scale compute. Here a process that executes chapters keeps a fork server (Python's own),
which imports them once; each chapter still gets a process of its own, with nothing of the book's
library in it. Only on Linux: elsewhere a fork after such imports is not safe, and kernels start
cold.
"""

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

IMPORTED = [  # by nearly every chapter; none of them starts a thread or reads the book
    "ipykernel.kernelapp", "matplotlib.pyplot", "networkx", "numba", "numpy", "safetensors",
    "plotly.graph_objects", "scipy.stats", "torch", "yaml",
]  # fmt: skip
ASKED = {  # when Python starts and when matplotlib is imported, so a fork is too late for them
    "PYTHONWARNINGS": "ignore::UserWarning",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
forks = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None


def prepare() -> None:
    """Let the fork server start and import, in the background."""
    if forks:
        from multiprocessing import forkserver

        forks.set_forkserver_preload(IMPORTED)
        before = {name: os.environ.get(name) for name in ASKED}
        os.environ.update(ASKED)
        forkserver.ensure_running()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Manager(AsyncKernelManager):
    """Jupyter's manager of a kernel that is forked instead of started."""

    async def _async_pre_start_kernel(self, **settings: Any) -> tuple[list[str], dict[str, Any]]:
        spec = self.kernel_spec
        self.provisioner = Forked(kernel_id=self.kernel_id, kernel_spec=spec, parent=self)
        return await super()._async_pre_start_kernel(**settings)


class Forked(LocalProvisioner):
    """Jupyter's provisioner, with a fork where it has a command."""

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> dict[str, Any]:
        """Start the kernel; `cmd` as the kernel's specification has it, of which options count."""
        prepare()
        options = cmd[cmd.index("-f") :]
        folder = settings.get("cwd") or Path.cwd()
        child = forks.Process(target=_serve, args=(options, settings["env"], folder))
        child.start()
        self.process, self.pid, self.pgid = Child(child), child.pid, child.pid
        return self.connection_info


class Child:
    """A forked process, as the provisioner asks of subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess) -> None:
        self.process = process

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        return self.process.exitcode

    def wait(self) -> int | None:
        """Its exit status, when it has ended."""
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _serve(options: list[str], environment: dict[str, str], folder: str | Path) -> None:
    """Be a kernel, in a session and environment of its own, until whoever launched it ends."""
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    with suppress(OSError):  # a session is a scheduling group, which knows nothing of niceness
        Path("/proc/self/autogroup").write_text(str(os.nice(0)))
    threading.Thread(target=_end_with_its_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, "")  # as `python -m ipykernel_launcher` would have it
    launch_new_instance(options)


def _end_with_its_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
