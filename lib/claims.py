"""What is claimed: by the sources, in a ledger that chapters settle; by a sentence, with its guard.

`data/claims.yaml` holds what the sources printed and where, and what this book says first. A
chapter measures and calls `settled`, which compares, records the verdicts under
`data/artifacts/claims/`, one small file a claim, and shows them. The appendix reads those files: a
verdict is always something a chapter computed.

What runs at full scale settled is kept in `data/full_runs.yml`: hours of computing that a reader
need not repeat to read of. A chapter may quote it, beside its own numbers and never in their place.
"""

import enum
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from IPython.display import Markdown

from lib import artifacts, files, paths, scale, show


class ClaimError(ValueError):
    """A file of claims is malformed, a claim is not in the ledger, or there is nothing to keep."""


# ----------------------------------------------------------------------------- sentences

STANDS = "[]{.holds}"  # an empty span: Quarto shows the source of an inline value that is empty
FAILS = " [does not hold here]{.fails}"


def holds(condition: Any) -> Markdown:
    """The guard of the sentence before it: nothing to see while `condition` holds.

    Stands inline, right after the sentence. Where it fails (another matrix, other parameters, a
    smaller scale) the sentence is marked, the top of the page lists it, and so does
    `python -m lib check --ran`.
    """
    return Markdown(STANDS if condition else FAILS)


# ----------------------------------------------------------------------------- the ledger


class Verdict(enum.StrEnum):
    """What the book found about a claim."""

    REPRODUCED = "reproduced"
    ELSEWHERE = "agrees elsewhere"  # in another setting than the printed one: decides nothing
    CONTRADICTED = "contradicted"
    NEEDS_SPECIMEN = "needs specimen"
    OPEN = "open"


@dataclass(frozen=True)
class Claim:
    """One claim: of the sources, or of this book where nobody had made it before."""

    id: str
    part: str  # folder of the part that settles it
    claim: str  # the claim in one sentence
    source: str  # where it stands: seed document and section, or "[P] printed by the notebooks"
    printed: Any  # the value as printed
    check: str  # equal | close | above | below | true | within
    chapter: str  # chapter that settles it, "lattice/02-thirteen"
    tolerance: float = 0.0  # for `close`: relative
    runs: int = 1  # for `within`: trials behind the printed mean
    unit: float = 0.0  # for `within`: the last printed digit, e.g. 0.1
    ours: bool = False  # this book's own, and no claim of the sources
    first: float | None = None  # the relative tolerance that it was first judged by, if another
    why: str = ""  # why it is no longer judged by that


CHECKS = ("equal", "close", "above", "below", "true", "within")
LIMIT = 3.0  # for `within`: two means disagree where it is as improbable as that many normal
# deviations (p = 0.0027 on two sides)


class Ledger(dict[str, Claim]):
    """Claims by id."""

    def __missing__(self, id: str) -> Claim:
        raise ClaimError(f"data/claims.yaml has no claim {id!r}")


def ledger(path: Path = paths.CLAIMS) -> Ledger:
    """All claims by id. Raises ClaimError naming the entry that is malformed."""
    claims = Ledger()
    for entry in _read(path) or []:
        claim = _made(Claim, path, entry)
        if claim.check not in CHECKS:
            raise ClaimError(f"{path.name}: {claim.id}: check must be one of {', '.join(CHECKS)}")
        if claim.id in claims:
            raise ClaimError(f"{path.name}: the id {claim.id} stands twice")
        claims[claim.id] = claim
    return claims


# ----------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Measured:
    """What a chapter measured of a claim, and on what."""

    value: Any  # None: the specimen is not at hand; a sample (n,) where the check is `within`
    setting: str = ""  # in a few words: on what it was measured
    comparable: bool = True  # False: not the printed setting; it neither reproduces nor contradicts
    error: float = 0.0  # for `within`: what else is unsure of our mean
    open: bool = False  # a number to look at that cannot decide the claim


# What a comparison says if the setting was not the printed one: either way it decides nothing.
IN_ANOTHER_SETTING = {
    Verdict.REPRODUCED: Verdict.ELSEWHERE,
    Verdict.CONTRADICTED: Verdict.OPEN,
}


def settled(found: Mapping[str, Any]) -> Markdown:
    """Settle claims and show them: claim id -> Measured, or the bare value.

    In a run whose parameters were given the verdicts are shown and not kept: they are not the
    edition's. Raises ClaimError for an id that the ledger does not have, or a value that is not
    finite.
    """
    claims, records = ledger(), {}
    for id, one in found.items():
        claim, measured = claims[id], one if isinstance(one, Measured) else Measured(one)
        value, error = measured.value, measured.error
        verdict = Verdict.OPEN if measured.open else evaluate(claim, value, error)
        verdict = verdict if measured.comparable else IN_ANOTHER_SETTING.get(verdict, verdict)
        record = {"id": id, "verdict": verdict, "setting": measured.setting}
        if claim.check == "within" and value is not None:
            record["t"], record["limit"] = (round(x, 2) for x in apart(claim, value, error))
            value = float(np.mean(value))
        records[id] = record | {"measured": _plain(value)}
        sealed = artifacts.sealed(records[id])
        text = json.dumps(sealed, sort_keys=True, ensure_ascii=False)
        if not scale.is_changed():
            file = _verdicts() / f"{id}.json"
            files.write_atomically(file, lambda path, text=text: path.write_text(text, "utf-8"))
    return _table([claims[id] for id in found], records)


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
        t, limit = apart(claim, measured, error)
        agrees = abs(t) <= limit
    elif claim.check == "true":
        agrees = bool(measured)
    elif claim.check == "equal":
        agrees = measured == claim.printed
    else:
        value, printed = float(measured), float(claim.printed)
        agrees = {
            "close": abs(value - printed) <= claim.tolerance * abs(printed),
            "above": value >= printed,
            "below": value <= printed,
        }[claim.check]
    return Verdict.REPRODUCED if agrees else Verdict.CONTRADICTED


def apart(claim: Claim, sample: Any, error: float = 0.0) -> tuple[float, float]:
    """How far the mean of (n,) `sample` lies from the printed one, and how far would contradict it.

    Both in standard errors of the difference. If the sources ran the same experiment, their mean
    of `runs` trials scatters like ours; printing rounds it to `unit`; `error` is what else is
    unsure of our mean (float, same units). The scatter is known from n numbers only, so the
    difference is a Student t of n - 1 degrees of freedom or, where rounding and `error` have a
    share in it, of as many as Welch's formula gives. The second number is the t that is as
    improbable as LIMIT.
    """
    from scipy import stats  # slow to import, and every command imports this module

    sample = np.asarray(sample, np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise ClaimError(f"{claim.id}: a mean is judged by its sample, got shape {sample.shape}")
    scatter = float(sample.var(ddof=1)) * (1 / claim.runs + 1 / len(sample))
    total = scatter + claim.unit**2 / 12 + error**2
    freedom = (len(sample) - 1) * (total / scatter) ** 2 if scatter else math.inf
    limit = float(stats.t.isf(stats.norm.sf(LIMIT), freedom))
    difference = float(sample.mean()) - float(claim.printed)
    if not total:
        return (math.copysign(math.inf, difference) if difference else 0.0), limit
    return difference / math.sqrt(total), limit


def verdicts() -> dict[str, dict[str, Any]]:
    """The record of every settled claim by id: verdict, measured, setting.

    Raises ClaimError where one was changed after it was written.
    """
    records = {}
    for id, claim in ledger().items():
        file = _verdicts() / f"{id}.json"
        try:
            records[id] = artifacts.unsealed(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, KeyError):  # not settled, or by an edition that did not seal
            continue
        except (OSError, *artifacts.MALFORMED) as error:
            mend = f"delete it and run {claim.chapter} again"
            raise ClaimError(f"{file}: is damaged ({error}); {mend}") from None
    return records


def table(ids: Iterable[str] | None = None, part: str | None = None) -> Markdown:
    """A table of claims: what is claimed, printed and allowed, what was measured, the verdict."""
    claims = ledger()
    wanted = [claims[id] for id in (claims if ids is None else ids)]
    return _table([claim for claim in wanted if part in (None, claim.part)], verdicts())


def _table(claims: Iterable[Claim], records: Mapping[str, dict[str, Any]]) -> Markdown:
    rows = []
    for claim in claims:
        record = records.get(claim.id, UNSETTLED)
        said = [record["setting"]] if record["setting"] else []
        if "t" in record:
            said += [f"t = {record['t']:+.1f}, limit {record['limit']:.1f}".replace("-", "−")]
        measured = as_printed(record["measured"], _digits(claim.printed))
        measured += f" ({'; '.join(said)})" if said else ""
        source = f"this book: {claim.source}" if claim.ours else claim.source
        rows.append([claim.claim, source, _rule(claim), measured, record["verdict"]])
    return show.table(rows, ["claim", "source", "printed", "measured", "verdict"], "lllll")


def _digits(printed: Any) -> int:
    """Significant digits for what was measured: one more than was printed, three at least."""
    if isinstance(printed, bool) or not isinstance(printed, (int, float)):
        return 7
    digits = f"{abs(printed):g}".partition("e")[0].replace(".", "").lstrip("0")
    return min(7, max(3, len(digits) + 1))


def _rule(claim: Claim) -> str:
    """What was printed, and what agrees with it."""
    printed = as_printed(claim.printed)
    return {
        "close": f"{printed} ± {as_printed(100 * claim.tolerance, 3)} %",
        "above": f"at least {printed}",
        "below": f"at most {printed}",
        "within": f"{printed} (mean of {show.number(claim.runs)})" if claim.runs > 1 else printed,
    }.get(claim.check, printed)


UNSETTLED: dict[str, Any] = {"verdict": Verdict.OPEN, "measured": None, "setting": ""}


def as_printed(value: Any, digits: int = 7) -> str:
    """A value as it was printed, None as a dash; floats with up to `digits` significant digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and (value == 0 or 1e-3 <= abs(value) < 1e6):
        places = digits - 1 - math.floor(math.log10(abs(value))) if value else digits
        return f"{round(value, max(0, places)):,.7g}".replace("-", "−")
    if isinstance(value, (int, float)):
        return show.number(value, min(digits, 3))
    if isinstance(value, list):
        return ", ".join(as_printed(item, digits) for item in value)
    return str(value)


def _verdicts() -> Path:
    """Where verdicts of the current scale lie: smoke scale says nothing of another."""
    return paths.VERDICTS / scale.current()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _read(path: Path) -> Any:
    try:
        return files.read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClaimError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _made(kind: type, path: Path, entry: Any) -> Any:
    """An entry of the file at `path` as a dataclass."""
    try:
        return kind(**entry)
    except TypeError as error:
        raise ClaimError(f"{path.name}: {entry!r} is no {kind.__name__}: {error}") from error


# ----------------------------------------------------------------------------- full runs


@dataclass(frozen=True)
class Kept:
    """One chapter's results at full scale."""

    chapter: str
    date: str  # ISO
    machine: str
    artefacts: list[dict[str, Any]]  # name, digest, content (both SHA-256), chapter, seconds
    claims: dict[str, dict[str, Any]]  # id -> measured, setting, verdict

    @property
    def seconds(self) -> float:
        """Seconds that the artefacts took to make."""
        return sum(artefact["seconds"] for artefact in self.artefacts)


def full_runs(path: Path = paths.FULL_RUNS) -> dict[str, Kept]:
    """Kept results by chapter; empty if there is no file. Raises ClaimError if malformed."""
    entries = _read(path) or {} if path.exists() else {}
    return {name: _made(Kept, path, {"chapter": name, **entry}) for name, entry in entries.items()}


def full_run(id: str) -> dict[str, Any] | None:
    """What was measured of claim `id` at full scale (measured, setting, verdict), or None."""
    kept = full_runs().values()
    return next((entry.claims[id] for entry in kept if id in entry.claims), None)


# ----------------------------------------------------------------------------- the sources' runs


@dataclass(frozen=True)
class Experiment:
    """One training experiment of the sources, as its authors set it."""

    name: str
    setting: str
    claims: list[str]  # ids in the ledger, in the order of the table
    why: str = ""  # what stands in the way of a comparison


def experiments(path: Path = paths.EXPERIMENTS) -> list[Experiment]:
    """All experiments, in the order of the file. Raises ClaimError naming what is wrong."""
    return [_made(Experiment, path, entry) for entry in _read(path)]
