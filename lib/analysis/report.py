"""The field report: what can be said of one matrix, and of its tokens, without running a model.

It composes what the other modules find, keeps going where something is missing, and says so. The
document `reports/field-report.qmd` shows it; `report_files` puts the same into two more files.
"""

import hashlib
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from IPython.display import Markdown
from scipy import linalg

from lib import progress, show
from lib.analysis import census, charts, clock, clusters, geometry
from lib.analysis.census import Census
from lib.analysis.clusters import Cluster, Void
from lib.extraction import confined, emission, families, models, reachability
from lib.extraction.catalogue import SpecimenError
from lib.extraction.editions import EditionError
from lib.extraction.models import Model
from lib.extraction.reachability import Agreement, Reach, Record
from lib.extraction.specimens import CHUNK, Specimen
from lib.extraction.vocabulary import VocabularyError

UNKNOWN = "not known"
SAMPLE = 16_384  # rows that the principal axes are estimated from
SEED = 42  # of that sample
LACKING = (SpecimenError, EditionError, VocabularyError, ValueError, linalg.LinAlgError)
COMMAND = re.compile(r"`((?:make|python -m lib) [\w ./-]+)`")  # in a line that names a mend
RESERVED = re.compile("unused|reserved|extra_id|placeholder|dummy|pad|mask", re.IGNORECASE)
RECORDED = {  # of every row, in an extract
    "norm": "its length",
    "dist": "its distance to the middle of the cluster",
    "projection": "its place on the map",
    "row_group": "which others are identical to it",
}


class Sky(NamedTuple):
    """Rows on three principal axes."""

    ids: np.ndarray  # (n,) int64
    projection: np.ndarray  # (n, 3) float64, uncentred
    shares: np.ndarray  # (3,) of the whole variance
    how: str  # where the axes come from, in words


class Clock(NamedTuple):
    """What never seen input rows say of the weight decay that they went through."""

    listed: np.ndarray  # (n,) ids that no text gives
    inside: np.ndarray  # (m,) of these, ids in one cluster of norms
    zero: int  # of these, rows that are exactly zero
    reading: clock.Reading


@dataclass
class Report:
    """All that was found. What could not be done stands in `missing`, a line each."""

    model: Model
    missing: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    @property
    def specimen(self) -> Specimen:
        return self.model.specimen

    def tried(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make` gives; None, and a line, where that is not possible."""
        try:
            return make()
        except LACKING as error:
            self.missing.append(f"{what}: {' '.join(str(error).split())}")
            return None

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 (hex) of the matrix's bytes as read; None of an extract."""
        if not self.specimen.is_full:
            return None
        sha, matrix = hashlib.sha256(), self.specimen.matrix
        for start in progress.bar(range(0, len(matrix), CHUNK), desc="digest"):
            sha.update(np.ascontiguousarray(matrix[start : start + CHUNK]))
        return sha.hexdigest()

    @cached_property
    def norms(self) -> np.ndarray | None:
        """(rows,) float64."""
        found = self.tried("norms", lambda: self.specimen.norms)
        if found is not None and (bad := int((~np.isfinite(found)).sum())):
            self.missing.append(f"norms: {bad:,} rows hold NaN or infinity: counted, not measured")
        return found

    @property
    def finite(self) -> np.ndarray:
        """(n,) float64: the norms that are numbers; empty where none is known."""
        return np.empty(0) if self.norms is None else self.norms[np.isfinite(self.norms)]

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster, with the census where it is known which rows are identical."""
        if not self.specimen.is_full and "row_group" not in self.specimen.arrays:
            return Cluster(self.specimen, None)
        known = self.tried("identical rows", lambda: census.of(self.specimen))
        return Cluster(self.specimen, known)

    @property
    def census(self) -> Census | None:
        return self.cluster.census

    @cached_property
    def spike(self) -> clusters.Spike | None:
        """The most surprising place on the axis of norms."""
        return self.tried("spike", lambda: clusters.find_spike(self.finite))

    @cached_property
    def distances(self) -> np.ndarray | None:
        """(rows,) float64 to the anchor of the cluster."""
        if self.specimen.is_full and (self.spike is None or self.census is None):
            return None
        if not self.specimen.is_full and "dist" not in self.specimen.arrays:
            return None
        if len(self.finite) < self.specimen.rows:
            self.missing.append("distances: not every row has a length; void and sky need all")
            return None
        return self.tried("distances", lambda: self.cluster.distances)

    @cached_property
    def void(self) -> Void | None:
        """The most surprising void round the anchor; None if chance explains it."""
        if self.distances is None:
            return None
        return self.tried("void", lambda: self.cluster.void)

    @cached_property
    def found(self) -> np.ndarray:
        """(n,) int64: rows that lie dead: inside the void; without one, identical rows."""
        if self.void is not None:
            return np.flatnonzero(self.distances <= self.void.inner)
        return np.empty(0, int) if self.census is None else self.census.in_holes

    @property
    def looked(self) -> bool:
        """Whether rows could be found dead at all: identical ones are known, or distances are."""
        return self.census is not None or self.distances is not None

    @property
    def how_found(self) -> str:
        """The rule behind `found`, in words."""
        if self.void is not None:
            return "rows inside the most surprising void"
        if not self.looked:
            return "none could be looked for: neither identical rows nor distances are known"
        if self.distances is None:
            return "rows identical to another; a void was not looked for"
        return "rows identical to another, for there is no void beyond chance"

    @cached_property
    def records(self) -> Sequence[Record]:
        """One record for every row, if the tokenizer can be read; else none."""
        rows, name = self.specimen.rows, self.model.tokenizer
        records: Sequence[Record] = ()
        if name is not None:
            records = self.tried("tokenizer", lambda: confined.records(name, rows)) or ()
            if records and Path(name).is_file() and (said := families.remark(Path(name))):
                self.missing.append(f"tokenizer: {said}")
        if not records and self.model.spelled:
            why = "only the token's name is known"
            named = zip(range(rows), self.model.spelled, strict=False)
            found = [Record(id, Reach.UNDECIDED, b"", text, why) for id, text in named]
            return emission.padded(found, rows) if found else ()
        if len(records) > rows:
            beyond = len(records) - rows
            self.missing.append(
                f"tokenizer: {beyond:,} of its ids lie beyond the matrix's last row: is it this "
                "model's own? What follows speaks of the rows alone"
            )
        return records[:rows]

    @property
    def predicted(self) -> list[int]:
        """Ids that no text gives, ascending."""
        return [record.id for record in self.records if record.reach.dead]

    @cached_property
    def agreement(self) -> Agreement | None:
        """Predicted (no text gives it) against found; None where one of the two is not known."""
        both = self.records and self.looked
        return reachability.compare(self.records, self.found) if both else None

    @cached_property
    def sky(self) -> Sky | None:
        """Every row, or those at hand, on three principal axes."""
        if self.distances is None:
            return None
        return self.tried("sky", lambda: sky(self.specimen))

    @cached_property
    def clock(self) -> Clock | None:
        """The exposure, where there are input rows of their own and a tokenizer."""
        inputs = self.model.inputs
        if inputs is None or not self.records:
            return None
        return self.tried("clock", lambda: read_clock(inputs, self.records))

    def of_class(self, reach: Reach) -> list[Record]:
        """The records of one class."""
        return [record for record in self.records if record.reach is reach]

    @cached_property
    def special(self) -> list[Record]:
        """Added tokens, and those whose name says that they are held in reserve."""
        return [r for r in self.records if r.reach is Reach.ADDED or is_reserved(r.text)]

    @cached_property
    def holes(self) -> dict[int, tuple[int, int]]:
        """Of each row in a hole: the hole's rank from 1, and its population."""
        members = self.census.members if self.census else ()
        ranked = enumerate(members, start=1)
        return {int(id): (rank, len(ids)) for rank, ids in ranked for id in ids}

    def classes(self) -> list[tuple[str, int, int | str, str]]:
        """A line for each class that occurs: name, ids, of these found dead, prediction."""
        count = Counter(r.reach for r in self.records)
        dead = set(self.found.tolist())
        found = Counter(r.reach for r in self.records if r.id in dead)
        how_many = lambda reach: found[reach] if self.looked else "–"  # noqa: E731
        return [
            (str(reach), count[reach], how_many(reach), "dead" if reach.dead else "–")
            for reach in Reach
            if count[reach]
        ]

    def some(self, ids: Iterable[int], most: int) -> list[int]:
        """At most `most` of the ids, of every class alike and spread over each; by class."""
        if not self.records:
            return list(ids)[:most]
        by_class: dict[Reach, list[int]] = {reach: [] for reach in Reach}
        for id in sorted(ids):
            by_class[self.records[id].reach].append(id)
        classes = [[reach] * len(of_class) for reach, of_class in by_class.items()]
        turns = [x for row in zip_longest(*classes) for x in row if x is not None]
        share = Counter(turns[:most])
        spread = ((by_class[reach], share[reach]) for reach in Reach)
        return [of_class[i * len(of_class) // n] for of_class, n in spread for i in range(n)]

    def lines(self, ids: Sequence[int], most: int) -> list[list[Any]]:
        """For a table: id, token, class, evidence, norm, hole of the first `most` ids."""
        rows = []
        for id in list(ids)[:most]:
            record = self.records[id] if self.records else None
            norm = show.number(self.norms[id]) if self.norms is not None else "–"
            rank = self.holes.get(int(id), ("–",))[0]
            named = written(record) if record else "–"
            why = show.plain(record.evidence) if record else "–"
            reach = record.reach if record else "–"
            rows.append([int(id), named, reach, why, norm, rank])
        return rows or [["–"] * 6]

    def recorded(self) -> dict[str, str]:
        """What a fetched file says of its origin."""
        known = self.specimen.facts.items()
        return {k: v for k, v in known if k in ("source", "version") and isinstance(v, str)}

    def short(self) -> dict[str, Any]:
        """The findings in numbers, for a table."""
        found, agreement, dead = self.census, self.agreement, self.found
        holes = {"black holes": UNKNOWN, "rows in black holes": UNKNOWN}
        if found:
            holes = {"black holes": found.holes, "rows in black holes": found.hole_rows}
        undecided = len(self.of_class(Reach.UNDECIDED)) if self.records else UNKNOWN
        return {
            "rows": self.specimen.rows,
            "distinct rows": found.unique if found else UNKNOWN,
            **holes,
            f"found dead ({self.how_found})": len(dead) if self.looked else UNKNOWN,
            "predicted: no text gives the id": len(self.predicted) if self.records else UNKNOWN,
            "predicted and found": len(agreement.both) if agreement else UNKNOWN,
            "not decided": undecided,
        }

    def places(self) -> dict[str, Any]:
        """Spike and void in numbers, for a table."""
        spike, void = self.spike, self.void
        table: dict[str, Any] = dict.fromkeys(
            ("spike: rows", "spike: rows expected there"), UNKNOWN
        )
        if spike:
            table = {
                "spike: lengths from": show.number(spike.low, 6),
                "spike: lengths to": show.number(spike.high, 6),
                "spike: rows": spike.rows,
                "spike: rows expected there": spike.background,
            }
            if self.records:
                inside = spike.holds(self.norms[self.predicted])
                table["spike: rows whose ids no text gives"] = int(inside.sum())
        if void is None:
            return table | {"void": "none beyond chance" if self.distances is not None else UNKNOWN}
        return table | {
            "void: rows inside": void.rows,
            "void: inner radius": void.inner,
            "void: outer radius": void.outer,
            "void: outer radius over inner": void.ratio,
        }

    def judged(self) -> dict[str, Any]:
        """Prediction against finding, for a table."""
        agreement = self.agreement
        if agreement is None:
            predicted = len(self.predicted) if self.records else UNKNOWN
            found = len(self.found) if self.looked else UNKNOWN
            return {"predicted": predicted, "found dead": found}
        shares = {"precision": agreement.precision, "recall": agreement.recall}
        return {
            "predicted: no text gives them": len(agreement.predicted),
            "found dead in the matrix": len(agreement.observed),
            "both": len(agreement.both),
            "predicted and not found": len(agreement.false_alarms),
            "found and not predicted": len(agreement.missed),
            **{k: "–" if np.isnan(v) else show.percent(v, 1) for k, v in shares.items()},
        }

    def reserved(self) -> list[tuple[str, int, int | str]]:
        """For a table: special, reserved and phantom rows, and how many of each were found."""
        dead = set(self.found.tolist())
        added = [r.id for r in self.special if r.reach is Reach.ADDED]
        held = [r.id for r in self.special if is_reserved(r.text)]
        beyond = [r.id for r in self.of_class(Reach.PHANTOM)]
        kinds = {"added tokens": added, "names of a reserve": held, "rows without a token": beyond}
        return [
            (kind, len(ids), len(dead & set(ids)) if self.looked else "–")
            for kind, ids in kinds.items()
        ]

    def exposure(self) -> dict[str, Any]:
        """The clock, for a table."""
        if self.clock is None:
            return {"input rows of their own, never seen": UNKNOWN}
        reading, clock = self.clock.reading, self.clock
        return {
            "input rows that no text gives": len(clock.listed),
            "of these in one cluster of lengths": len(clock.inside),
            "of these exactly zero": clock.zero,
            "exposure": show.fixed(reading.exposure, 4),
            "interval": f"{show.fixed(reading.low, 4)} to {show.fixed(reading.high, 4)}",
            "relative scatter of the lengths": show.percent(reading.scatter, 2),
            "scatter that the start explains": show.percent(reading.expected, 2),
        }

    def limits(self) -> list[str]:
        """What cannot be said from what was read, a sentence each."""
        precision, whole = self.specimen.precision, self.specimen.is_full
        bits = {"BF16": 8, "F16": 11, "F32": 24}.get(precision)
        sentences = [
            (not whole, "Only an extract was read; what it does not record is not in this report."),
            (
                bits is None,
                f"The rows are stored as {precision}: quantisation may merge rows and never "
                "splits them, so the released matrix has at least as many distinct rows, and "
                "no statement about the lattice of its numbers rests on this one.",
            ),
            (
                bits is not None,
                f"The rows are stored as {precision}, with {bits} bits of precision. If the model "
                "was trained in a finer format, rows that are identical here may have differed.",
            ),
            (not self.records, "Without a tokenizer, nothing can be said of why a row lies dead."),
            (
                any(r.reach is Reach.UNDECIDED for r in self.records),
                "Ids that are not decided may be reachable: no text was found that gives them, "
                "and no argument that there is none.",
            ),
            (
                self.model.inputs is None,
                "Without an input matrix of its own there is no clock: rows of a tied matrix, and "
                "those of an output matrix, always get a gradient.",
            ),
            (
                True,
                "That a text can give a token does not say that a training text ever did; and "
                "that a row lies in the cluster does not say when it got there.",
            ),
        ]
        return [text for applies, text in sentences if applies]

    def summary(self) -> dict[str, Any]:
        """What report.json holds."""
        specimen, agreement, void = self.specimen, self.agreement, self.void
        count = Counter(str(r.reach) for r in self.records)
        answer: dict[str, Any] = {
            "model": self.model.name,
            "source": specimen.source,
            "tensor": specimen.description.tensor,
            "rows": specimen.rows,
            "dim": specimen.dim,
            "dtype": specimen.precision,
            "whole": specimen.is_full,
            "sha256": self.digest,
            "provenance": {k: v for k, v in specimen.facts.items() if isinstance(v, str)},
            "tied": self.model.tied,
            "tokenizer": self.model.tokenizer,
            "census": None,
            "spike": None if self.spike is None else self.spike._asdict(),
            "void": None if void is None else void._asdict(),
            "found": {"rule": self.how_found, "ids": self.found.tolist() if self.looked else None},
            "classes": dict(count),
        }
        if self.census:
            names = ("unique", "surplus", "zero_pairs", "singletons", "hole_rows")
            answer["census"] = {name: getattr(self.census, name) for name in names}
            answer["census"]["populations"] = self.census.populations.tolist()
        if agreement:
            answer["agreement"] = {
                "predicted": len(agreement.predicted),
                "both": len(agreement.both),
                "precision": None if np.isnan(agreement.precision) else agreement.precision,
                "recall": None if np.isnan(agreement.recall) else agreement.recall,
                "false_alarms": agreement.false_alarms,
                "missed": agreement.missed,
            }
        if self.clock:
            answer["clock"] = vars(self.clock.reading) | {"rows": len(self.clock.inside)}
        answer["missing"] = [*self.model.missing, *self.missing]
        answer["limits"] = self.limits()
        answer["seconds"] = round(time.perf_counter() - self.began, 2)
        return answer


def of(name: str, tokenizer: str = "", revision: str = "main") -> Report:
    """The report of a model, each part measured once. Raises SpecimenError without a matrix."""
    report = Report(models.open(name, tokenizer, revision))
    if not report.specimen.is_full:
        report.missing.append(_extracted(report.specimen))
    parts = ("norms", "cluster", "spike", "void", "found", "records", "agreement", "sky", "clock")
    for part in progress.bar(parts, desc="field report", unit="part"):
        getattr(report, part)
    return report


def _extracted(specimen: Specimen) -> str:
    """What an extract records of every row, and what it does not."""
    known = [what for name, what in RECORDED.items() if name in specimen.arrays]
    lacking = [what for what in RECORDED.values() if what not in known]
    said = f"the matrix: only an extract is here; of every row it records {', '.join(known)}"
    said += f", and not {', '.join(lacking)}" if lacking else ""
    return f"{said}; `python -m lib fetch {specimen.id}` brings the whole"


def sky(specimen: Specimen) -> Sky:
    """Principal coordinates of every row, of axes estimated from a sample of the rows.

    An extract's as it records them. Raises SpecimenError, GeometryError.
    """
    if not specimen.is_full:
        chart = charts.chart(specimen)
        return Sky(chart.ids, chart.projection, chart.shares[:3], chart.how)
    ids = np.arange(specimen.rows)
    rng = np.random.default_rng(SEED)
    drawn = np.sort(rng.choice(ids, min(SAMPLE, len(ids)), replace=False))
    some = specimen.values(drawn)
    cov = geometry.covariance(some, geometry.centroid(some))
    axes, variances = geometry.principal_axes(cov, min(3, specimen.dim))
    places = np.concatenate([values @ axes.astype(np.float32) for _, values in specimen.chunks()])
    places = np.pad(places.astype(np.float64), [(0, 0), (0, 3 - places.shape[1])])
    shares = np.pad(variances / max(np.trace(cov), 1e-300), (0, 3 - len(variances)))
    return Sky(ids, places, shares, f"the covariance of {len(drawn):,} rows")


def read_clock(inputs: Specimen, records: Sequence[Record]) -> Clock:
    """The exposure from the input rows that no text gives, started from N(0, 0.02).

    Raises ClockError.
    """
    listed = np.array([r.id for r in records if r.reach.dead and r.id < inputs.rows], dtype=int)
    norms = inputs.norms[listed]
    inside = listed[clock.clustered(norms, inputs.dim)]
    reading = clock.read(inputs.norms[inside], clock.Start(0.02), inputs.dim)
    return Clock(listed, inside, int((norms == 0).sum()), reading)


def is_reserved(text: str) -> bool:
    """Whether a token's name says that it is held in reserve, as <pad> and [unused7] do."""
    return text[:1] in set("<[{|") and text[-1:] in set(">]}|") and bool(RESERVED.search(text))


def bullets(lines: Sequence[str]) -> Markdown:
    """Lines as a list; nothing in them is markup but a command of ours between backticks."""
    parts = (COMMAND.split(line) for line in lines)  # text, command, text, ...
    shown = ((f"`{p}`" if at % 2 else show.plain(p) for at, p in enumerate(ps)) for ps in parts)
    return Markdown("\n".join(f"- {''.join(line)}" for line in shown))


def written(record: Record) -> str:
    """A token's text, safe in Markdown: ◌ under a mark, ⟨009D⟩ for what has no shape, ␣ at ends."""
    text = record.text
    if "\ufffd" in text:  # a piece of a character: its bytes say more
        return f"⟨{record.bytes.hex(' ').upper()}⟩"
    circle = "◌" if text and unicodedata.category(text[0]) == "Mn" else ""
    shapes = (c if c.isprintable() else f"⟨{ord(c):04X}⟩" for c in text)
    spaced = re.sub(r"^ +| +$", lambda match: "␣" * len(match[0]), circle + "".join(shapes))
    return show.plain(spaced) or "–"
