"""One training run as a value: every choice that can change a token's path, with its meaning.

A `Run` is plain (numbers, texts, truth values), so it goes into an artefact's provenance and back.
"""

import dataclasses
import enum
from typing import Any, Literal, get_args


class ConfigError(ValueError):
    """A run says something the engine does not know, or that contradicts itself."""


class Init(enum.StrEnum):
    """How the rows of the embedding and unembedding start."""

    NORMAL = "normal"  # N(0, init_std), drawn in float32, then cast
    POINT = "point"  # one vector N(0, init_std) for all rows
    POINT_NOISE = "point+noise"  # the point + N(0, init_noise), added in float32, then cast
    POINT_NOISE_CAST = "point+noise-cast"  # point and noise are cast first, then added in bf16


class Rounding(enum.StrEnum):
    """How an updated parameter is put on the lattice of `param_dtype`."""

    NEAREST = "nearest"  # ties to even
    STOCHASTIC = "stochastic"  # up or down with probabilities that keep the mean


class Master(enum.StrEnum):
    """Whether a finer copy of the parameters remembers what the lattice cannot."""

    NONE = "none"
    FP32 = "fp32"  # float32 master; the model sees it rounded to `param_dtype`
    LOW16 = "low16"  # the lower 16 bits of a float32; the model sees the upper 16 (truncated)


class Schedule(enum.StrEnum):
    """Learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"  # straight down to lr_end * lr at the last step
    COSINE = "cosine"  # half a cosine down to lr_end * lr


class Update(enum.StrEnum):
    """Whose order of roundings AdamW follows; on the bf16 lattice torch's own three differ."""

    FOR_LOOP = "for-loop"  # every tensor operation is rounded; torch's default on cpu and mps
    FOREACH = "foreach"  # the same, but factors are rounded to bf16 too: beta2 0.95 -> 0.94921875
    FUSED = "fused"  # one float32 expression, rounded when stored


Dtype = Literal["bfloat16", "float32"]


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that decides a run, bit for bit, on one machine (besides the token stream)."""

    # model: a GPT with pre-layer-norm, biases, exact GELU
    vocab: int = 3988  # rows of the (un)embedding
    dim: int = 128  # width D of the residual stream
    layers: int = 4
    heads: int = 2
    ff: int = 256  # width of the feed-forward layer
    seq: int = 128  # tokens a sequence
    positions: Literal["learned", "none"] = "learned"
    tied: bool = True  # one matrix for embedding E and unembedding W

    # initialisation
    init: Init = Init.NORMAL  # of E and W
    init_std: float = 0.02  # standard deviation of E and W (nn.Embedding's own default is 1)
    init_noise: float = 0.0  # standard deviation of the noise round the point
    hidden_std: float = 0.02  # standard deviation of all other matrices
    positions_std: float = 0.02  # of positions

    # data
    batch: int = 8  # sequences a step
    steps: int = 1000  # optimiser steps

    # optimiser: AdamW
    lr: float = 1e-3  # peak learning rate
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0  # steps of linear warm-up: step t has lr * t / warmup
    lr_end: float = 0.0  # final learning rate as a share of lr
    weight_decay: float = 0.0  # decoupled, applied to every parameter
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    update: Update = Update.FOR_LOOP

    # arithmetic
    param_dtype: Dtype = "bfloat16"  # lattice on which parameters are stored
    grad_dtype: Dtype = "bfloat16"  # lattice on which gradients are handed to the optimiser
    state_dtype: Dtype = "bfloat16"  # lattice of Adam's exp_avg and exp_avg_sq
    compute_dtype: Dtype = "float32"  # forward and backward pass
    rounding: Rounding = Rounding.NEAREST
    master: Master = Master.NONE

    # machine
    seed: int = 42  # of initialisation, batches and stochastic rounding
    threads: int = 1  # results depend on it: sums are split differently
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, kind, value = field.name, field.type, getattr(self, field.name)
            choices = get_args(kind) or (tuple(kind) if issubclass(kind, enum.Enum) else ())
            if choices and value not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
            if choices:
                object.__setattr__(self, name, str(value))  # plain, no member of an Enum
            elif kind is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif not isinstance(value, kind) or (kind is int and type(value) is bool):
                raise ConfigError(f"{name} must be {kind.__name__}, got {value!r}")
        for name in ("vocab", "dim", "layers", "heads", "ff", "seq", "batch", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"dim {self.dim} is not divisible by {self.heads} heads")
        if min(self.steps, self.warmup, self.seed) < 0:
            raise ConfigError("steps, warmup and seed cannot be negative")
        remedies = (self.master != Master.NONE) + (self.rounding != Rounding.NEAREST)
        if remedies and self.param_dtype != "bfloat16":
            raise ConfigError("master copy and stochastic rounding are for param_dtype='bfloat16'")
        if remedies > 1:
            raise ConfigError("stochastic rounding replaces a master copy: use one of them")
        if self.mixed and self.update == Update.FUSED:
            raise ConfigError("update='fused' is torch's kernel for one dtype throughout")

    @property
    def mixed(self) -> bool:
        """Whether the optimiser works on more than one lattice (or with a master copy)."""
        one = self.param_dtype == self.grad_dtype == self.state_dtype
        return not one or self.master != Master.NONE or self.rounding != Rounding.NEAREST

    @property
    def tokens_per_step(self) -> int:
        """Predicted tokens a step: batch * seq."""
        return self.batch * self.seq

    @property
    def size(self) -> str:
        """Its size in words, for a claim's setting."""
        return f"{self.vocab:,} tokens, {self.steps:,} steps of {self.batch} x {self.seq}"

    def replace(self, **changes: Any) -> "Run":
        """This run with some fields changed. Raises ConfigError on unknown names."""
        return from_dict({**dataclasses.asdict(self), **changes})


def from_dict(values: dict[str, Any]) -> Run:
    """A Run from plain values. Raises ConfigError naming unknown fields and the known ones."""
    known = [field.name for field in dataclasses.fields(Run)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown: {', '.join(unknown)}; a run has {', '.join(known)}")
    return Run(**values)


# Everyday arithmetic is a Run's own: storage on the bf16 lattice, forward and backward in float32.
# EAGER_BF16 computes in bf16 too: the sources' recipe, model.to(torch.bfloat16).
EAGER_BF16 = {"compute_dtype": "bfloat16"}
BF16_STORAGE = dict.fromkeys(("param_dtype", "grad_dtype", "state_dtype"), "bfloat16")
FLOAT32 = dict.fromkeys(("param_dtype", "grad_dtype", "state_dtype"), "float32")
FP32_MASTER = {"master": "fp32", "state_dtype": "float32"}
LOW16_MASTER = {"master": "low16", "state_dtype": "float32"}
STOCHASTIC = {"rounding": "stochastic"}

# The sources' models. Printed: vocabulary, dim, layers, heads, seq; FF of Goldilocks only.
GATSBY = Run(vocab=128, dim=64, layers=2, heads=2, ff=256, batch=8, init="point+noise", lr=1e-3)
FLANNEL = Run(vocab=10_000, dim=64, layers=2, heads=2, ff=256, batch=32, lr=1e-3)
FLANNEL_1 = FLANNEL.replace(seq=128, steps=1_000)  # their first film of it
GOLDILOCKS = Run(vocab=3988, dim=128, layers=4, heads=2, ff=256, batch=8, lr=3e-4)

# The common ground of the book's runs on coalescence; an arm changes a few fields of it. Float32
# everywhere: the law is about the update rule, and the arms that ask about arithmetic say so.
SMALL_FLOAT32 = Run(
    vocab=500, dim=48, layers=1, heads=2, ff=96, seq=32, batch=8, lr=1e-3, beta2=0.95, **FLOAT32
)
