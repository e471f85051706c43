"""`python -m lib tokens`: which ids can a tokenizer ever emit?"""

import argparse
import json
import time
from pathlib import Path

from lib import files
from lib.tokens import reachability, vocabulary


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "tokens",
        help="say of every id of a tokenizer whether any text gives it, and why not",
        description="Write one JSON line for each id from 0 to the rows of the model's matrix: "
        "id, class, bytes (hex), text, script, evidence.",
    )
    parser.add_argument(
        "tokenizer",
        metavar="TOKENIZER",
        help="qwen3, qwen3.5 or another name of data/tokenizers/catalogue.yaml, a tokenizer.json "
        "or a .tiktoken file",
    )
    parser.add_argument("--out", metavar="FILE.jsonl", required=True, help="where to write")
    parser.add_argument("--rows", type=int, help="rows of the matrix, if more than there are ids")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Analyse, write atomically, print the count of each class."""
    known = vocabulary.open(args.tokenizer, args.rows)
    start = time.perf_counter()
    records = reachability.analyse(known)
    seconds = time.perf_counter() - start

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(line(record), ensure_ascii=False) + "\n")

    files.write_atomically(Path(args.out), write)
    for reach, count in reachability.counts(records).items():
        print(f"{count:>9,}  {reach}")
    print(f"{len(records):>9,}  rows in {seconds:.1f} s, written to {args.out}")
    return 0


def line(record: reachability.Record) -> dict[str, str | int]:
    """The JSON object of one id."""
    return {
        "id": record.id,
        "class": str(record.reach),
        "bytes": record.bytes.hex(),
        "text": record.text,
        "script": record.script,
        "evidence": record.evidence,
    }
