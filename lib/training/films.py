"""Films and probes as artefacts: the same run at the same settings is made once.

Each is made in a world, given by its parameters and by the digest of its contents: a world that is
made again and comes out the same asks for no new films.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib import artifacts, progress
from lib.training import arithmetic, loop, model, recorder, worlds
from lib.training.config import from_dict

SOURCES = (*recorder.SOURCES, "lib.training.films")  # the world enters by its contents


def make_film(path: Path, *, world: dict, contents: str, run: dict, record: list) -> None:
    """Film `run` in `world`, dead rows first; ":few" in `record` means the dead rows only."""
    where = worlds.cached(**world, contents=contents)
    recorder.film(
        path,
        from_dict(run),
        where.stream,
        record=record,
        rows=np.concatenate([where.dead, where.live]),
        few=len(where.dead),
        extras={"counts": where.counts},
        label=f"film, seed {run['seed']}",
    )


def make_probe(*, world: dict, contents: str, run: dict, steps: list) -> dict[str, np.ndarray]:
    """Everything about the unembedding's gradient at a few steps of `run`.

    For each step t: `h.t` (batch * seq, dim) float32 last hidden states, `targets.t`, `W.t` (vocab,
    dim) float32 as the forward pass saw it, `grad.t` (vocab, dim) float32 as the optimiser got it.
    """
    where, found = worlds.cached(**world, contents=contents), {}

    def observe(moment: loop.Moment) -> None:
        if moment.step in steps:
            found[f"h.{moment.step}"] = moment.h.flatten(0, 1).float().numpy().copy()
            found[f"targets.{moment.step}"] = moment.targets.flatten().numpy().astype(np.int32)
            found[f"W.{moment.step}"] = moment.before["W"].float().numpy().copy()
            found[f"grad.{moment.step}"] = moment.grads["W"].float().numpy().copy()

    short = from_dict(run).replace(steps=max(steps))
    loop.train(short, where.stream, observers=[observe], label="probe")
    return found


def make_ends(*, world: dict, contents: str, run: dict) -> dict[str, np.ndarray]:
    """First and last W of a run: `first`, `last` (vocab, dim), `losses` (steps,) float32.

    W as the model sees it: uint16 patterns where it is bfloat16, else float32.
    """
    where, run, first = worlds.cached(**world, contents=contents), from_dict(run), []

    def observe(moment: loop.Moment) -> None:
        if moment.step == 0:
            first.append(patterns(moment.params["W"]))

    outcome = loop.train(run, where.stream, observers=[observe], label=f"seed {run.seed}")
    last = patterns(model.views(outcome.state.param, run)["W"])
    return {"first": first[0], "last": last, "losses": outcome.losses}


def patterns(tensor: torch.Tensor) -> np.ndarray:
    """A copy as NumPy; bfloat16 as uint16 patterns."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16).copy()
    return tensor.numpy().copy()


def make_speed(*, runs: list, repeats: int) -> dict[str, np.ndarray]:
    """`seconds` (runs, repeats) float64 a step of each run, in turn, on uniformly random tokens.

    A property of the machine and of the moment, not of the model.
    """
    runs = [from_dict(values) for values in runs]
    seconds = np.zeros((len(runs), repeats))
    for repeat in range(repeats):
        for i, run in enumerate(runs):
            stream = np.random.default_rng(run.seed).integers(0, run.vocab, 10_000)
            loop.train(run.replace(steps=1), stream)
            start = time.perf_counter()
            loop.train(run, stream, label="timing")
            seconds[i, repeat] = (time.perf_counter() - start) / run.steps
    return {"seconds": seconds}


FILM = artifacts.Recipe(
    "film", make_film, SOURCES, "dynamics/01-train", suffix=".h5", resumable=True
)
PROBE = artifacts.Recipe("probe", make_probe, SOURCES, "dynamics/01-train")
ENDS = artifacts.Recipe("ends", make_ends, SOURCES, "dynamics/01-train")
SPEED = artifacts.Recipe("speed", make_speed, SOURCES, "goldilocks/01-design")


def get(
    recipe: artifacts.Recipe, chapter: str, params: Mapping[str, Any], *, make: bool
) -> artifacts.Artifact:
    """The artefact of `recipe` that generator `chapter` makes: made if need be, or only loaded.

    If `params` name a world, the digest of its contents joins them; device "auto" becomes the one
    that was found, so that every artefact says where it was made.
    """
    recipe = dataclasses.replace(recipe, chapter=chapter)
    act = artifacts.cached if make else artifacts.load
    if recipe.name == worlds.RECIPE.name:
        return act(recipe, params, worlds.inputs(params))
    if "world" in params:
        world = get(worlds.RECIPE, chapter, params["world"], make=make)
        params = {**params, "contents": world.provenance["content"]}
    return act(recipe, _on_a_device(params))


@dataclasses.dataclass(frozen=True)
class Together:
    """Artefacts of one recipe, one a run: what was done of many runs survives a kill."""

    artefacts: tuple[artifacts.Artifact, ...]

    @functools.cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """Their arrays by name, stacked: run along the first axis."""
        each = [artefact.tensors for artefact in self.artefacts]
        return {name: np.stack([arrays[name] for arrays in each]) for name in each[0]}

    @property
    def summary(self) -> str:
        """One line for a chapter's load cell."""
        made = [artefact.provenance for artefact in self.artefacts]
        what = f"{len(made)} {made[0]['name']} artefact{'s' * (len(made) > 1)}"
        size = artifacts.size(artefact.path for artefact in self.artefacts)
        seconds = sum(one["seconds"] for one in made)
        return f"read {what} ({size}), made by {made[0]['chapter']} in {seconds:.1f} s"


def each(
    recipe: artifacts.Recipe,
    chapter: str,
    params: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    *,
    make: bool,
) -> Together:
    """As `get`, one artefact for each of `runs`: mappings that join `params`."""
    watched = progress.bar(runs, desc=recipe.name, unit="run") if make else runs
    return Together(tuple(get(recipe, chapter, {**params, **run}, make=make) for run in watched))


def _on_a_device(value: Any) -> Any:
    """Parameters with the device found here wherever one is "auto"."""
    if isinstance(value, Mapping):
        found = {name: _on_a_device(inner) for name, inner in value.items()}
        if found.get("device") == "auto":
            found["device"] = arithmetic.device("auto").type
        return found
    return [_on_a_device(inner) for inner in value] if isinstance(value, list | tuple) else value
