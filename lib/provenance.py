"""What an artefact's file says of itself: how it was made, sealed against later changes.

In a safetensors file it is the one metadata key `provenance` (with more than one key safetensors
does not always write the same bytes); beside an HDF5 file it is a small JSON file.
"""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors

from lib import digests

KEY = "provenance"
PACKAGES = ("torch", "numpy", "safetensors", "h5py", "tokenizers")
MALFORMED = (  # what hostile bytes lead to
    *(ValueError, KeyError, TypeError, AttributeError),
    safetensors.SafetensorError,
)


class Damaged(ValueError):
    """A file holds no provenance, or one that was changed after it was written."""


def sealed(provenance: dict[str, Any], content: str) -> str:
    """`provenance` with the digest of the file's contents and a digest of itself, as JSON."""
    whole = provenance | {"content": content}
    return json.dumps(whole | {"seal": digests.of_value(whole)}, sort_keys=True)


def read(path: Path) -> dict[str, Any]:
    """The provenance of the artefact at `path`. Raises Damaged if it is absent or was changed."""
    try:
        if path.suffix == ".h5":
            text = beside(path).read_text(encoding="utf-8")
        else:
            with safetensors.safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {})[KEY]
        provenance = json.loads(text)
        unsealed = {key: value for key, value in provenance.items() if key != "seal"}
        intact = provenance["seal"] == digests.of_value(unsealed)
    except (OSError, *MALFORMED) as error:
        raise Damaged(f"{path}: no provenance can be read ({error})") from error
    if not intact:
        raise Damaged(f"{path}: its provenance was changed after it was written")
    return provenance


def beside(path: Path) -> Path:
    """The JSON file with the provenance of the HDF5 file at `path`."""
    return path.with_name(path.name + ".json")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
