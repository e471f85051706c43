"""What is kept of a run beside its film: curves and last exits, gauges, a record of coalescence.

Films of whole matrices are for the runs one wants to look into; of an experiment with many arms an
observation keeps only what its dead rows did.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib import lattice
from lib.analysis import census, coalescence, freezing, motion
from lib.training import loop, model, optim
from lib.training.config import Rounding, Run
from lib.training.worlds import World

PIECE = 64  # frames reduced at a time
FLOOR = 1e-12  # below which torch.nn.functional.normalize does not divide by the length


@dataclass(frozen=True)
class Lives(loop.Observation):
    """What the dead rows did: the cloud they form, when each of them stopped, where they ended.

    Curves (steps,) or (steps + 1,) float32, those of motion.Cloud that CURVES names (`centroid`
    has a last axis dim) and `still`, the share that does not move; `early`, `midlife`, `motion`
    (dead,) int64, see freezing.last_exits; `component` (dead, dim) int32, the last step in which
    each component moved, 0 for never; `push` (dead,) float32, the mean length of a row's gradient
    in the second half of the run; `losses` (steps,); `last` (dead, dim) uint16.
    """

    matrix: str = "W"  # or "E"
    intervene: str = ""  # a cause taken away: one of INTERVENTIONS

    name = "arm"

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray]:
        """Train."""
        dead = torch.from_numpy(world.dead)
        watcher = Watcher(dead, self.matrix)
        change = INTERVENTIONS[self.intervene] if self.intervene else None

        def intervene(grads: model.Parameters) -> None:
            grads["W"][dead] = change(grads["W"][dead])

        outcome = loop.train(
            run,
            world.stream,
            observers=[watcher],
            intervene=intervene if change else None,
            label="arm",
        )
        last = model.views(outcome.state.param, run)[self.matrix][dead].bfloat16()
        return watcher.result() | {"losses": outcome.losses, "last": lattice.bits(last).numpy()}


def common(grads: torch.Tensor) -> torch.Tensor:
    """Every dead row gets the mean of the dead gradients (dead, dim): nothing tells them apart."""
    return grads.mean(0)


def equal_length(grads: torch.Tensor) -> torch.Tensor:
    """Every dead gradient keeps its direction and gets the mean length: no one is pushed harder."""
    length = grads.norm(dim=1, keepdim=True)
    return grads / length.clamp_min(1e-30) * length.mean()


def one_direction(grads: torch.Tensor) -> torch.Tensor:
    """Every dead gradient keeps its length and gets the mean direction: one wind for all."""
    mean = grads.mean(0)
    return mean / mean.norm().clamp_min(1e-30) * grads.norm(dim=1, keepdim=True)


INTERVENTIONS = {"common": common, "equal length": equal_length, "one direction": one_direction}

CURVES = ("centroid", "radius", "rms", "norm", "bulk", "thermal", "outward", "null")


class Watcher:
    """Observer that reduces the frames of some rows (ids, int64) to curves and last exits."""

    def __init__(self, rows: torch.Tensor, matrix: str = "W"):
        self.rows, self.matrix = rows, matrix
        self.frames: list[torch.Tensor] = []
        self.curves: list[dict[str, np.ndarray]] = []  # of pieces of the run
        self.last: dict[str, np.ndarray] = {}
        self.push = torch.zeros(len(rows), dtype=torch.float64)  # summed lengths of late gradients
        self.pushes = 0  # steps summed
        self.steps = 0  # reduced so far

    def __call__(self, moment: loop.Moment) -> None:
        self.frames.append(moment.params[self.matrix].detach()[self.rows].clone())
        if moment.step > moment.run.steps // 2:
            self.push += moment.grads[self.matrix][self.rows].float().norm(dim=1)
            self.pushes += 1
        if len(self.frames) > PIECE:
            self.reduce()

    def reduce(self) -> None:
        """Turn the frames gathered into numbers; the last frame stays, as the next one's past."""
        frames = torch.stack(self.frames)
        bits = lattice.bits(frames.bfloat16()).numpy()
        moves, cloud = motion.moves(bits), vars(motion.cloud(frames.float().numpy()))
        self.curves.append({name: cloud[name] for name in CURVES} | {"still": moves.still})
        exits = freezing.last_exits(moves)
        exits["component"] = freezing.last(lattice.steps(bits[:-1], bits[1:]) != 0)
        for name, at in exits.items():
            self.last[name] = np.where(at > 0, self.steps + at, self.last.get(name, 0))
        self.steps += len(frames) - 1
        self.frames = self.frames[-1:]

    def result(self) -> dict[str, np.ndarray]:
        """The arrays of Lives, without `losses` and `last`."""
        if len(self.frames) > 1:
            self.reduce()
        push = (self.push / max(self.pushes, 1)).numpy().astype(np.float32)
        component = self.last["component"].astype(np.int32)
        curves = {n: curve.astype(np.float32) for n, curve in motion.join(self.curves).items()}
        return self.last | curves | {"component": component, "push": push}


@dataclass(frozen=True)
class Gauge(loop.Observation):
    """Gradients of the living and the dead at every step.

    (steps,) float64 each: `dead` and `live`, mean length of a row's gradient; `coherence`, mean
    cosine between two dead gradients; `with_h`, mean cosine of dead gradients with the mean hidden
    state; `floored_coherence` and `floored_with_h`, both once more as they come out when lengths
    below FLOOR count as it; `probability`, mean probability of a dead token; `angle`, degrees
    between the centroids of dead and live rows; `dead_norm`, length of the dead centroid; `radius`,
    mean distance of dead rows to it. And `losses` (steps,) float32.
    """

    name = "gauge"

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray]:
        """Train."""
        dead, live = torch.from_numpy(world.dead), torch.from_numpy(world.live)
        found: list[dict[str, float]] = []

        def observe(moment: loop.Moment) -> None:
            if moment.step:
                found.append(readings(moment, dead, live))

        outcome = loop.train(run, world.stream, observers=[observe], label="gauge")
        return columns(found) | {"losses": outcome.losses}


def columns(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Records with the same fields as arrays, (records, ...) each."""
    return {name: np.array([record[name] for record in records]) for name in records[0]}


def readings(moment: loop.Moment, dead: torch.Tensor, live: torch.Tensor) -> dict[str, float]:
    """The readings of one step: see Gauge. `dead` and `live` are ids."""
    grads, W = moment.grads["W"].float(), moment.before["W"].float()
    h = moment.h.flatten(0, 1).float()
    rows = grads[dead].double().numpy()  # squares of the shortest would underflow
    length, unit = np.linalg.norm(rows, axis=1), motion.unit(rows)
    floored = np.minimum(length / FLOOR, 1)  # lengths left of the units
    along_h = unit @ motion.unit(h.mean(0).numpy())
    centre, live_centre = W[dead].mean(0), W[live].mean(0)
    found = {
        "dead": length.mean(),
        "live": grads[live].norm(dim=1).mean(),
        "coherence": motion.mean_cosine(unit.sum(0), (length > 0).astype(np.float64)),
        "with_h": along_h.mean(),
        "floored_coherence": motion.mean_cosine(floored @ unit, floored),
        "floored_with_h": (floored * along_h).mean(),
        "probability": model.probabilities(h, W)[dead].mean(),
        "angle": motion.angle(centre.numpy(), live_centre.numpy()),
        "dead_norm": centre.norm(),
        "radius": (W[dead] - centre).norm(dim=1).mean(),
    }
    return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Distinct(loop.Observation):
    """Different dead rows on the lattice, and how many rows each of them stands for.

    (steps + 1,) int32 each: `distinct` rows, and `holes`, those of at least two; `first` and `last`
    int64, the populations at the start and at the end, descending, singles included; `losses`.
    """

    name = "distinct"

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray]:
        """Train."""
        found: list[tuple[int, int]] = []
        populations: dict[str, np.ndarray] = {}

        def observe(moment: loop.Moment) -> None:
            bits = lattice.bits(moment.params["W"])[world.dead].numpy()
            dead = census.duplicates(bits)
            found.append((dead.unique, dead.holes))
            if moment.step in (0, run.steps):
                singles = np.ones(dead.singletons, np.int64)
                end = "last" if moment.step else "first"
                populations[end] = np.concatenate([dead.populations, singles])

        outcome = loop.train(run, world.stream, observers=[observe], label=f"seed {run.seed}")
        distinct, holes = np.array(found, np.int32).T
        return {"distinct": distinct, "holes": holes, **populations, "losses": outcome.losses}


@dataclass(frozen=True)
class Pace(loop.Observation):
    """How the dead rows move where they are too many for Lives: only one frame is remembered.

    `still`, share of the rows that do not move (steps,) float32; `norm`, length of their centroid,
    and `radius`, mean distance to it (steps + 1,); `losses` (steps,).
    """

    name = "pace"

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray]:
        """Train."""
        dead, before = torch.from_numpy(world.dead), torch.empty(0)
        found: dict[str, list[float]] = {"still": [], "norm": [], "radius": []}

        def observe(moment: loop.Moment) -> None:
            nonlocal before
            rows = moment.params["W"].detach()[dead]
            centre = rows.float().mean(0)
            found["norm"].append(float(centre.norm()))
            found["radius"].append(float((rows.float() - centre).norm(dim=1).mean()))
            if moment.step:
                found["still"].append(float((rows == before).all(dim=1).float().mean()))
            before = rows.clone()

        outcome = loop.train(run, world.stream, observers=[observe], label="pace")
        curves = {name: np.array(curve, np.float32) for name, curve in found.items()}
        return curves | {"losses": outcome.losses}


@dataclass(frozen=True)
class Coalescence(loop.Observation):
    """The rows above the living, in the finest arithmetic that the run knows, while they coalesce.

    steps (S,) int64, the snapshots; rows (S, rows, dim) float32; exposure (S,) float64, the sum of
    -ln(1 - lr_s wd); live_norm (S,) the median; live_centroid (S, dim); losses (steps,) float32;
    contraction (steps, 2) float64, the shares of the squared spread that decay and update took;
    predicted (S,) float64, the tangent's spread (NaN before it starts); rounding_noise (steps,)
    float64, the power that stochastic rounding adds to the squared spread; moving (steps,) int64,
    rows whose bf16 view changed; push (S, dim) float64, Adam's mean update of the never seen rows
    before the learning rate; gradient and hidden (steps,) float64, rms per component of the last
    row's gradient and of the last hidden states.

    The rows are those above the world's living ones, of which the first may be nearly dead (see
    worlds.Phantoms).
    """

    snapshots: int  # records of the rows
    tangent_from: int = 0  # step from which the linear response predicts the spread; 0: never
    until: int = 0  # after this step the text has none of the rare tokens; 0: it always has
    second: Mapping[str, Any] = field(default_factory=dict)  # fields of a run that goes on with all
    # parameters cast to bf16 and a fresh optimiser, as an instruct model follows a base model; its
    # arrays carry the prefix "second."

    name = "coalescence"

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray]:
        """Train, once or twice."""
        scribe = Scribe(run, len(world.texts), self.snapshots, self.tangent_from)
        resume = None
        if self.until:  # the same run in two pieces: the second goes on with the other text
            resume = loop.train(run.replace(steps=self.until), world.stream, observers=[scribe])
        text = world.later if self.until else world.stream
        outcome = loop.train(run, text, observers=[scribe], resume=resume, label="coalescence")
        arrays = scribe.result(outcome)
        if not self.second:
            return arrays
        exported = optim.finest(outcome.state).bfloat16().float()
        run = run.replace(**self.second)
        scribe = Scribe(run, len(world.texts), self.snapshots)
        start = loop.Outcome(np.empty(0, np.float32), optim.start(run, exported))
        outcome = loop.train(run, world.stream, observers=[scribe], resume=start, label="second")
        again = scribe.result(outcome)
        return arrays | {f"second.{name}": array for name, array in again.items()}


class Scribe:
    """Observer that keeps the record of Coalescence for the rows from `live` on."""

    def __init__(self, run: Run, live: int, snapshots: int, tangent_from: int = 0):
        self.run, self.rows = run, slice(live, run.vocab)
        self.keep = np.unique(np.linspace(0, run.steps, snapshots + 1).round().astype(int))
        self.tangent = Tangent(run, self.rows, tangent_from or run.steps + 1)
        self.shots: list[dict[str, Any]] = []  # of the steps in `keep`
        self.course: list[dict[str, Any]] = []  # of every step
        self.before = np.empty(0)  # the rows of the step before

    def __call__(self, moment: loop.Moment) -> None:
        self.tangent(moment)
        now = finest_rows(moment.state, self.run, self.rows)
        if moment.step:
            self.course.append(self._step(moment, now))
        if moment.step in self.keep:
            self.shots.append(self._snapshot(moment, now))
        self.before = now

    def _step(self, moment: loop.Moment, now: np.ndarray) -> dict[str, Any]:
        decay = 1 - moment.lr * self.run.weight_decay
        before, after = (W["W"][self.rows].bfloat16() for W in (moment.before, moment.params))
        gradient = moment.grads["W"][-1:].float()  # of a row that no text uses
        stochastic = self.run.rounding == Rounding.STOCHASTIC
        return {
            "contraction": coalescence.split_contraction(self.before, now, decay),
            "moving": (before != after).any(dim=1).sum().item(),
            "gradient": gradient.square().mean().sqrt().item(),
            "hidden": moment.h.square().mean().sqrt().item(),
            "rounding_noise": rounding_noise(moment, self.rows) if stochastic else 0.0,
        }

    def _snapshot(self, moment: loop.Moment, now: np.ndarray) -> dict[str, Any]:
        live = moment.params["W"][: self.rows.start].float()
        return {
            "rows": now.astype(np.float32),
            "live_norm": live.norm(dim=1).median().item(),
            "live_centroid": live.mean(0).numpy(),
            "push": push(moment, self.rows),
            "predicted": self.tangent.spread(),
        }

    def result(self, outcome: loop.Outcome) -> dict[str, np.ndarray]:
        """The arrays of Coalescence for one run."""
        return {
            "steps": self.keep,
            "exposure": coalescence.exposure(self.run)[self.keep],
            "losses": outcome.losses,
            **columns(self.shots),
            **columns(self.course),
        }


def finest_rows(state: optim.State, run: Run, rows: slice) -> np.ndarray:
    """Rows of W as finely as the run knows them: (rows, dim) float64."""
    finest = state.param if state.master is None else state.master
    finest = optim.finest(state) if state.low is not None else finest
    return model.views(finest, run)["W"][rows].double().numpy()


def push(moment: loop.Moment, rows: slice) -> np.ndarray:
    """Median over rows of Adam's update without the learning rate, (dim,) float64."""
    if not moment.step:
        return np.zeros(moment.run.dim)
    c = optim.coefficients(moment.run, moment.step)
    m, v = (named["W"][rows].double() for named in (moment.exp_avg, moment.exp_avg_sq))
    update = m / (1 - c.beta1**moment.step) / (v.sqrt() / c.correction + c.eps)
    return update.median(0).values.numpy()


def rounding_noise(moment: loop.Moment, rows: slice) -> float:
    """Mean power that stochastic rounding adds to a row in one step: sum_d ulp^2 f (1 - f).

    f is where between two lattice points the wanted value lies: an upward rounding has that
    probability, and the variance of such a coin is f (1 - f).
    """
    run, c = moment.run, optim.coefficients(moment.run, moment.step)
    before = moment.before["W"][rows].float()
    m, v = (named["W"][rows].float() for named in (moment.exp_avg, moment.exp_avg_sq))
    wanted = before * (1 - moment.lr * run.weight_decay)
    wanted = wanted - c.step_size * m / (v.sqrt() / c.correction + c.eps)
    ulp = lattice.ulp(before.bfloat16())
    f = torch.frac(((wanted - before) / ulp).abs())
    return float((ulp**2 * f * (1 - f)).sum(1).mean())


class Tangent:
    """Observer that carries the linearised cloud of rows (N, D) along a run from step `start`.

    The linear response of Adam: how a small difference between two dead rows moves, to first order.
    Rows w_i = c + d_i round the centroid c see the gradient g(w) = sum_t p_t(w) h_t / n with
    p_t(w) = exp(w.h_t - lse_t). To first order in d_i

        dg_i = (1/n) sum_t p_t(c) (h_t . d_i) h_t ,

    and Adam's own recursions, differentiated once, carry (dm_i, dv_i, d_i) from step to step. There
    is no free parameter. It holds while |d_i . h_t| is small against 1, and knows nothing of
    rounding. Source: derived in the chapter on the law; Adam: Kingma and Ba (2015); decay:
    Loshchilov and Hutter (2019).
    """

    def __init__(self, run: Run, rows: slice, start: int):
        self.run, self.rows, self.start = run, rows, start
        self.d = self.dm = self.dv = torch.empty(0)

    def __call__(self, moment: loop.Moment) -> None:
        """Begin at step `start` with the actual differences; afterwards follow to first order."""
        if moment.step == self.start:
            named = (moment.params, moment.exp_avg, moment.exp_avg_sq)
            self.d, self.dm, self.dv = (_centred(tensors["W"][self.rows]) for tensors in named)
        elif moment.step > self.start:
            self._follow(moment)

    def _follow(self, moment: loop.Moment) -> None:
        c = optim.coefficients(self.run, moment.step)
        h = moment.h.reshape(-1, self.run.dim).double()
        W = moment.before["W"]
        centre = W[self.rows].double().mean(0)
        total = torch.logsumexp(moment.h.reshape(-1, self.run.dim).float() @ W.float().T, dim=1)
        p = torch.exp(h @ centre - total.double()) / len(h)
        gradient = p @ h
        change = self.d @ ((h.T * p) @ h)  # (N, D): dg of every row, through sum_t p_t h_t h_t^T
        self.dm = c.beta1 * self.dm + (1 - c.beta1) * change
        self.dv = c.beta2 * self.dv + (1 - c.beta2) * 2 * gradient * change
        m = moment.exp_avg["W"][self.rows].double().mean(0)
        v = moment.exp_avg_sq["W"][self.rows].double().mean(0)
        root = v.sqrt()
        denominator = root / c.correction + c.eps
        update = self.dm / denominator - m * self.dv / (2 * root * c.correction * denominator**2)
        self.d = c.decay * self.d - c.step_size * update
        self.d = self.d - self.d.mean(0)

    def spread(self) -> float:
        """Rms distance of the predicted rows to their centroid; NaN before the start."""
        return float(self.d.pow(2).sum(1).mean().sqrt()) if self.d.numel() else float("nan")


def _centred(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.double()
    return rows - rows.mean(0)
