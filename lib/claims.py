"""The ledger of the sources' claims: read it, settle a claim with a measurement, tabulate.

`data/claims.yaml` holds what the sources printed and where; a chapter measures and calls `settle`,
which compares and records the verdict under `data/artifacts/claims/`, one small file a claim. The
appendix reads those files: a verdict is always something a chapter computed.
"""

import enum
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from IPython.display import Markdown

from lib import files, paths, plots, scale


class Verdict(enum.Enum):
    """What the book found about a claim."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    NEEDS_SPECIMEN = "needs specimen"
    OPEN = "open"

    def __str__(self) -> str:
        return self.value


class ClaimError(ValueError):
    """The ledger is malformed, or a chapter names a claim that is not in it."""


@dataclass(frozen=True)
class Claim:
    """One claim of the sources."""

    id: str
    part: str  # folder of the part that settles it
    claim: str  # the claim in one sentence
    source: str  # where it stands: seed document and section, or "[P] printed by the notebooks"
    printed: Any  # the value as printed
    check: str  # equal | close | above | below | true | within
    chapter: str  # chapter that settles it, e.g. "lattice/02-holes"
    tolerance: float = 0.0  # for `close`: relative
    runs: int = 1  # for `within`: trials behind the printed mean
    unit: float = 0.0  # for `within`: the last printed digit, e.g. 0.1


CHECKS = ("equal", "close", "above", "below", "true", "within")
LIMIT = 3.0  # for `within`: standard errors at which two means disagree (p = 0.0027)


def ledger(path: Path = paths.CLAIMS) -> dict[str, Claim]:
    """All claims by id. Raises ClaimError naming the entry that is malformed."""
    try:
        entries = files.read_yaml(path) or []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClaimError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list):
        raise ClaimError(f"{path.name}: must be a list of claims")
    claims: dict[str, Claim] = {}
    for entry in entries:
        try:
            claim = Claim(**entry)
        except TypeError as error:
            raise ClaimError(f"{path.name}: {entry!r} is no claim: {error}") from error
        if claim.check not in CHECKS:
            raise ClaimError(f"{path.name}: {claim.id}: check must be one of {', '.join(CHECKS)}")
        if claim.id in claims:
            raise ClaimError(f"{path.name}: the id {claim.id} stands twice")
        claims[claim.id] = claim
    return claims


def z_score(claim: Claim, sample: Any, error: float = 0.0) -> float:
    """How far the printed mean lies from that of (n,) `sample`, in standard errors of both.

    If the sources ran the same experiment, their mean of `runs` trials scatters like ours; printing
    rounds it to `unit`. `error` is what else is unsure of our mean (float, same units).
    """
    sample = np.asarray(sample, np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise ClaimError(f"{claim.id}: a mean is judged by its sample, got shape {sample.shape}")
    scatter = sample.var(ddof=1) * (1 / claim.runs + 1 / len(sample))
    total = math.sqrt(scatter + claim.unit**2 / 12 + error**2)
    apart = float(sample.mean()) - float(claim.printed)
    return apart / total if total else math.copysign(math.inf, apart) if apart else 0.0


def evaluate(claim: Claim, measured: Any, error: float = 0.0) -> Verdict:
    """Compare a measurement with what was printed. None means the specimen was not at hand.

    For `within` the measurement is the sample, (n,) numbers, whose mean is compared.
    """
    if measured is None:
        return Verdict.NEEDS_SPECIMEN
    measured = _plain(measured)
    for value in measured if claim.check == "within" and isinstance(measured, list) else [measured]:
        if isinstance(value, float) and not math.isfinite(value):
            raise ClaimError(f"{claim.id}: the measured value is {value}")
    if claim.check == "within":
        holds = abs(z_score(claim, measured, error)) <= LIMIT
    elif claim.check == "true":
        holds = bool(measured)
    elif claim.check == "equal":
        holds = measured == claim.printed
    else:
        value, printed = float(measured), float(claim.printed)
        holds = {
            "close": abs(value - printed) <= claim.tolerance * abs(printed),
            "above": value >= printed,
            "below": value <= printed,
        }[claim.check]
    return Verdict.REPRODUCED if holds else Verdict.CONTRADICTED


def settle(
    id: str,
    measured: Any,
    *,
    setting: str = "",
    verdict: Verdict | None = None,
    comparable: bool = True,
    error: float = 0.0,
) -> Verdict:
    """Compare, record and return the verdict on claim `id`.

    `measured` is the chapter's own value (None: the specimen is not at hand; a sample, with the
    `error` of its model, where the check is `within`); `setting` says in a few words on what it was
    measured. `verdict` overrides the comparison only to say OPEN. Where the setting is not the
    printed one (`comparable=False`), a disagreement contradicts nothing and counts as OPEN.
    """
    claims = ledger()
    if id not in claims:
        raise ClaimError(f"data/claims.yaml has no claim {id!r}")
    if verdict not in (None, Verdict.OPEN):
        raise ClaimError(f"{id}: only OPEN may be set by hand; the rest is computed")
    found = verdict or evaluate(claims[id], measured, error)
    if found is Verdict.CONTRADICTED and not comparable:
        found = Verdict.OPEN
    record = {"id": id, "verdict": found.value, "setting": setting}
    if claims[id].check == "within" and measured is not None:
        record["z"] = round(z_score(claims[id], measured, error), 2)
        measured = float(np.mean(measured))
    record["measured"] = _plain(measured)
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    files.write_atomically(_verdicts() / f"{id}.json", lambda p: p.write_text(text))
    return found


def verdicts() -> dict[str, dict[str, Any]]:
    """The record of every settled claim by id: verdict, measured, setting."""
    found = sorted(_verdicts().glob("*.json")) if _verdicts().exists() else []
    records = [json.loads(file.read_text(encoding="utf-8")) for file in found]
    return {record["id"]: record for record in records}


def table(ids: list[str] | None = None, part: str | None = None) -> Markdown:
    """A table of claims: what the sources say, what was measured, the verdict."""
    claims, records = ledger(), verdicts()
    rows = []
    for id in ids if ids is not None else claims:
        if id not in claims:
            raise ClaimError(f"data/claims.yaml has no claim {id!r}")
        claim = claims[id]
        if part is not None and claim.part != part:
            continue
        record = records.get(id, {"verdict": Verdict.OPEN.value, "measured": None, "setting": ""})
        measured = show(record["measured"])
        said = [record["setting"]] if record["setting"] else []
        said += [f"z = {record['z']:+.1f}".replace("-", "−")] if "z" in record else []
        setting = f" ({'; '.join(said)})" if said else ""
        rows.append(
            [claim.claim, claim.source, show(claim.printed), measured + setting, record["verdict"]]
        )
    return plots.table(rows, ["claim", "source", "printed", "measured", "verdict"], "lllll")


def _verdicts() -> Path:
    """Where verdicts of the current scale lie: smoke scale says nothing of another."""
    return paths.VERDICTS / scale.current()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def show(value: Any) -> str:
    """A value as precisely as it was printed, None as a dash; floats have up to seven digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and (value == 0 or 1e-3 <= abs(value) < 1e6):
        return f"{value:,.7g}".replace("-", "−")
    if isinstance(value, (int, float)):
        return plots.fmt(value)
    if isinstance(value, list):
        return ", ".join(show(item) for item in value)
    return str(value)
