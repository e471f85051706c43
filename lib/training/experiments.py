"""What each generator chapter makes, from its parameters.

A generator and the analysers that read it call the same function here with the same settings, so
they cannot disagree about which artefact is meant.
"""

from collections.abc import Mapping
from typing import Any

from lib import artifacts, scale
from lib.training import films, worlds
from lib.training.config import FLANNEL, GOLDILOCKS, Run


def settings(chapter: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of generator `chapter` at the current scale, changed by `given`.

    Raises ValueError if `given` names a parameter that the chapter does not have.
    """
    values = {**scale.literals(chapter), **scale.overrides(chapter, scale.current())}
    unknown = sorted(set(given or {}) - set(values))
    if unknown:
        raise ValueError(f"{chapter} has no parameter {unknown}; it has {sorted(values)}")
    return {**values, **(given or {})}


def taken(chapter: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the running generator `chapter`, as they stand in its namespace."""
    return {name: namespace[name] for name in scale.literals(chapter)}


def pick(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Some of the settings."""
    return {name: settings[name] for name in names}


# ----------------------------------------------------------------------------- dynamics/01-train
_FLANNEL_WORLD = ("vocab", "thai_share", "tokenizer_characters", "characters", "english", "thai")
_SIZES = ("dim", "layers", "heads", "ff", "seq", "batch", "steps", "lr", "init_std", "seed")


def train_world(s: Mapping[str, Any]) -> dict[str, Any]:
    """World of the small model: parameters of `worlds.cached`."""
    return {"name": "flannel", **pick(s, *_FLANNEL_WORLD)}


def train_run(s: Mapping[str, Any]) -> Run:
    """The small model's run."""
    return FLANNEL.replace(vocab=s["vocab"], **pick(s, *_SIZES))


def train_film(s: Mapping[str, Any]) -> dict[str, Any]:
    """Its film: W of every row; gradient and moments of the dead rows; mean h; loss."""
    record = ["W", "W.grad:few", "W.exp_avg:few", "W.exp_avg_sq:few", "mean_h"]
    return {"world": train_world(s), "run": train_run(s).as_dict(), "record": record}


def train_probe(s: Mapping[str, Any]) -> dict[str, Any]:
    """Its gradients in full, at a few steps."""
    return {
        "world": train_world(s),
        "run": train_run(s).as_dict(),
        "steps": [step for step in s["probe_steps"] if step <= s["steps"]],
    }


_FLANNEL_1 = {
    "vocab": 10_000, "seq": 128, "batch": 32, "steps": 1_000,
    "english": "fineweb", "thai": "fineweb2",
}  # fmt: skip


def flannel_setting(s: Mapping[str, Any], steps: int) -> tuple[str, bool]:
    """Size of a Flannel run of `steps` steps in words, and whether all is as in Flannel 1 ([P])."""
    size = f"{s['vocab']:,} tokens, {steps:,} steps of {s['batch']} x {s['seq']}"
    return size, all({**s, "steps": steps}[name] == value for name, value in _FLANNEL_1.items())


# ----------------------------------------------------------------------------- goldilocks
BASELINE_SIZES = (
    "seq", "batch", "steps", "lr", "init_std", "positions_std", "hidden_std", "seed",
)  # fmt: skip
_GOLDILOCKS_WORLD = (
    "half", "english_in_thai", "tokenizer_characters", "characters", "english", "thai",
)  # fmt: skip


def goldilocks_world(s: Mapping[str, Any]) -> dict[str, Any]:
    """World of the reference model: parameters of `worlds.cached`."""
    return {"name": "goldilocks", **pick(s, *_GOLDILOCKS_WORLD)}


def design(s: Mapping[str, Any], vocab: int) -> dict[str, Any]:
    """The design search: candidates (dim, layers) timed for a few steps each."""
    candidates = [
        GOLDILOCKS.replace(vocab=vocab, dim=dim, layers=layers, ff=2 * dim, steps=s["timed_steps"])
        for dim, layers in s["candidates"]
    ]
    return {"runs": [run.as_dict() for run in candidates], "repeats": s["repeats"]}


def baseline_run(s: Mapping[str, Any], vocab: int) -> Run:
    """The reference model's run."""
    return GOLDILOCKS.replace(vocab=vocab, **pick(s, *BASELINE_SIZES))


def baseline_film(s: Mapping[str, Any], vocab: int) -> dict[str, Any]:
    """Its film: W of every row, mean h, loss."""
    return {
        "world": goldilocks_world(s),
        "run": baseline_run(s, vocab).as_dict(),
        "record": ["W", "mean_h"],
    }


# ----------------------------------------------------------------------------- making or loading
def film(chapter: str, params: Mapping[str, Any], *, make: bool) -> artifacts.Artifact:
    """The film with these parameters: made if need be, or only loaded."""
    return films.get(films.FILM, chapter, params, make=make)


def probe(chapter: str, params: Mapping[str, Any], *, make: bool) -> artifacts.Artifact:
    """The probe with these parameters: made if need be, or only loaded."""
    return films.get(films.PROBE, chapter, params, make=make)


def ends(chapter: str, params: Mapping[str, Any], *, make: bool) -> films.Together:
    """First and last matrices of `runs`, each with these parameters: made if need be, or loaded."""
    runs = [{"run": run} for run in params["runs"]]
    return films.each(films.ENDS, chapter, {"world": params["world"]}, runs, make=make)


def speed(chapter: str, params: Mapping[str, Any], *, make: bool) -> artifacts.Artifact:
    """Timings with these parameters: made if need be, or only loaded."""
    return films.get(films.SPEED, chapter, params, make=make)


def world(chapter: str, params: Mapping[str, Any], *, make: bool) -> worlds.World:
    """The world with these parameters: made if need be, or only loaded."""
    return worlds.unpack(films.get(worlds.RECIPE, chapter, params, make=make).tensors)
