"""Every folder and file of the book, named once.

BOOK_ARTIFACTS names another folder for what is computed: a larger disk, or one that all machines
of a sweep can see.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHAPTERS = ROOT / "chapters"
LIB = ROOT / "lib"
QUARTO_CONFIG = ROOT / "_quarto.yml"
BOOK = ROOT / "_book"  # the rendered book

DATA = ROOT / "data"
SPECIMENS = DATA / "specimens"  # extracts of released matrices, committed
FETCHED = SPECIMENS / "fetched"  # matrices fetched on demand, ignored by git
CORPORA = DATA / "corpora"
SLICES = CORPORA / "fetched"  # slices of larger corpora, fetched on demand, ignored by git
QWEN3 = DATA / "qwen3"  # facts that the original notebooks printed
SCALES = DATA / "scales"  # one file of parameters per scale
CLAIMS = DATA / "claims.yaml"  # the ledger of the sources' claims
FULL_RUNS = DATA / "full_runs.yml"  # what runs at full scale settled, kept
EXPERIMENTS = DATA / "reference_experiments.yml"  # the sources' training experiments

ARTIFACTS = Path(os.environ.get("BOOK_ARTIFACTS") or DATA / "artifacts")  # all that is computed
VERDICTS = ARTIFACTS / "claims"  # what each chapter found about its claims
EXECUTED = ARTIFACTS / "executed"  # executed notebooks
MADE = ARTIFACTS / "made"  # what each generator chapter made, by name
