"""An experiment is a value: in which world, which run, and what is kept of it.

From a chapter's parameters cell to the artefact and the figure it is the same value: a generator
writes it down and keeps it (`generators.Generator.keep`), a reader finds it as `artefact.recipe`.
What is kept of a run is an `Observation`; the ones that need no analysis are here and in
`lib.training.films`, the others in `lib.analysis.observers`.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lib import artifacts, digests, paths, scale
from lib.extraction import specimens
from lib.training import films, loop, model, optim, worlds
from lib.training.config import Run, from_dict


@dataclass(frozen=True)
class Experiment(artifacts.Recipe):
    """One training run, and what is kept of it.

    The world enters the artefact's digest by its contents: a world that is made again and comes out
    the same asks for no new runs.
    """

    world: worlds.Recipe
    run: Run
    observe: loop.Observation

    @property
    def name(self) -> str:
        """Name of the artefact."""
        return self.observe.name

    @property
    def suffix(self) -> str:
        """Ending of the artefact's file."""
        return self.observe.suffix

    @property
    def resumable(self) -> bool:
        """Whether a killed run goes on where it was."""
        return self.observe.resumable

    def make(self, *path: Path) -> dict[str, Any] | None:
        """Train, and keep what the observation keeps."""
        return self.observe.watch(self.on_a_device, self.world.get(), *path)

    def parameters(self) -> dict[str, Any]:
        """World, contents of the world, run and observation as plain values."""
        return {
            "world": tagged(self.world),
            "contents": self.world.artefact().provenance["content"],
            "run": dataclasses.asdict(self.on_a_device),
            "observe": tagged(self.observe),
        }

    def makers(self) -> tuple[Any, ...]:
        """The observation's code, which reaches all of the training."""
        return (type(self.observe),)

    @property
    def on_a_device(self) -> Run:
        """The run with the device that is found here in place of "auto"."""
        if self.run.device != "auto":
            return self.run
        return self.run.replace(device=optim.device("auto").type)

    @classmethod
    def restored(cls, parameters: Mapping[str, Any]) -> "Experiment":
        """The experiment with these plain parameters."""
        world, observe = untagged(parameters["world"]), untagged(parameters["observe"])
        return cls(world, from_dict(parameters["run"]), observe)


def tagged(value: Any) -> dict[str, Any]:
    """A dataclass as plain values that say which class it is of."""
    return {"kind": artifacts.kind_of(value), **digests.plain(value)}


def untagged(plain: Mapping[str, Any]) -> Any:
    """The dataclass of the library that `tagged` made plain; lists become tuples."""
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
    return artifacts.class_of(fields.pop("kind"))(**fields)


# ----------------------------------------------------------------------------- observations


@dataclass(frozen=True)
class Probe(loop.Observation):
    """Everything about the unembedding's gradient at a few steps.

    For each step t: `h.t` (batch * seq, dim) float32 last hidden states, `targets.t`, `W.t` (vocab,
    dim) float32 as the forward pass saw it, `grad.t` (vocab, dim) float32 as the optimiser got it.
    """

    steps: tuple[int, ...]

    name = "probe"

    def watch(self, run: Run, world: worlds.World, *path: Path) -> dict[str, torch.Tensor]:
        """Train up to the last of the steps."""
        found: dict[str, torch.Tensor] = {}

        def observe(moment: loop.Moment) -> None:
            t = moment.step
            if t in self.steps:
                found[f"h.{t}"] = moment.h.flatten(0, 1).float()
                found[f"targets.{t}"] = moment.targets.flatten().int()
                found[f"W.{t}"] = moment.before["W"].float().clone()
                found[f"grad.{t}"] = moment.grads["W"].float().clone()

        short = run.replace(steps=max(self.steps))
        loop.train(short, world.stream, observers=[observe], label="probe")
        return found


@dataclass(frozen=True)
class Ends(loop.Observation):
    """First and last W: `first`, `last` (vocab, dim), `losses` (steps,) float32.

    W as the model sees it: uint16 patterns where it is bfloat16, else float32.
    """

    name = "ends"

    def watch(self, run: Run, world: worlds.World, *path: Path) -> dict[str, Any]:
        """Train."""
        start = optim.start(run, model.initialise(run))
        outcome = loop.train(run, world.stream, label=f"seed {run.seed}")
        first, last = (model.views(state.param, run)["W"] for state in (start, outcome.state))
        return {"first": first, "last": last, "losses": outcome.losses}


# ----------------------------------------------------------------------------- other recipes


@dataclass(frozen=True)
class Speed(artifacts.Recipe):
    """`seconds` (runs, repeats) float64 a step of each run, in turn, on uniformly random tokens.

    A property of the machine and of the moment, not of the model.
    """

    runs: tuple[Run, ...]
    repeats: int

    name: ClassVar[str] = "speed"

    def make(self) -> dict[str, np.ndarray]:
        """Time them."""
        seconds = np.zeros((len(self.runs), self.repeats))
        for repeat in range(self.repeats):
            for i, run in enumerate(self.runs):
                stream = np.random.default_rng(run.seed).integers(0, run.vocab, 10_000)
                loop.train(run.replace(steps=1), stream)
                start = time.perf_counter()
                loop.train(run, stream, label="timing")
                seconds[i, repeat] = (time.perf_counter() - start) / run.steps
        return {"seconds": seconds}

    @classmethod
    def restored(cls, parameters: Mapping[str, Any]) -> "Speed":
        """From plain parameters."""
        return cls(tuple(map(from_dict, parameters["runs"])), parameters["repeats"])


@dataclass(frozen=True)
class LastFrame(artifacts.Recipe):
    """A film's last matrix as a specimen that `specimens.open(id)` finds.

    W: (vocab, dim) uint16 bfloat16 patterns after the last step.
    """

    id: str  # of the catalogue
    film: str  # file name
    scale: str = dataclasses.field(default_factory=scale.current)

    name: ClassVar[str] = specimens.TRAINED

    def make(self) -> dict[str, np.ndarray]:
        """Read the frame."""
        return {"W": films.read(paths.ARTIFACTS / films.Film.name / self.film, "W", -1)}
