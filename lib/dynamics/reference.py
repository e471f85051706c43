"""The sources' training experiments, each printed result beside what this book measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib import claims, files, fullruns, paths, plots

FILE = paths.DATA / "reference_experiments.yml"


class ExperimentError(ValueError):
    """The file of experiments is malformed or names a claim that the ledger has not."""


@dataclass(frozen=True)
class Experiment:
    """One experiment as its authors set it."""

    name: str
    setting: str
    claims: tuple[str, ...]  # ids in the ledger, in the order of the table
    why: str = ""  # what stands in the way of a comparison


@dataclass(frozen=True)
class Result:
    """One printed result and ours, as texts for a table."""

    experiment: str
    id: str
    claim: str
    ours: str
    setting: str
    full: str  # measured at full size, or a dash
    best: claims.Verdict  # of the full-size run if there is one, else of this edition


def experiments(path: Path = FILE) -> list[Experiment]:
    """All experiments, in the order of the file. Raises ExperimentError naming what is wrong."""
    try:
        entries = files.read_yaml(path)
        found = [Experiment(**{**e, "claims": tuple(e["claims"])}) for e in entries]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ExperimentError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    known = claims.ledger()
    missing = [id for experiment in found for id in experiment.claims if id not in known]
    if missing:
        raise ExperimentError(f"{path.name} names claims that the ledger has not: {missing}")
    return found


def results(
    wanted: Sequence[Experiment], kept: Mapping[str, fullruns.Kept] | None = None
) -> list[Result]:
    """Every result of the experiments: this edition's verdict, and that of a kept full run."""
    ledger, records = claims.ledger(), claims.verdicts()
    blank = {"measured": None, "setting": "", "verdict": claims.Verdict.OPEN.value}
    found = []
    for experiment in wanted:
        for id in experiment.claims:
            ours = records.get(id, blank)
            full = fullruns.measured(id, dict(kept or {}))
            found.append(
                Result(
                    experiment=experiment.name,
                    id=id,
                    claim=ledger[id].claim,
                    ours=_short(ours["measured"]),
                    setting=ours["setting"],
                    full="–" if full is None else _short(full["measured"]),
                    best=claims.Verdict((full or ours)["verdict"]),
                )
            )
    return found


def _short(value: Any) -> str:
    """A measured value for a wide table: numbers in three digits."""
    return plots.fmt(value) if isinstance(value, float) else claims.show(value)
