"""A rehearsal of `python -m lib fetch qwen3-4b && make book` on a stand-in for the subject.

The project is copied to a temporary folder, its catalogue is told a smaller width, a hub on
loopback serves a sharded repository of that size, and the discovery part is run on what was
fetched. The real catalogue, the real artefacts and the real verdicts are never touched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book import runner
from lib import paths
from tests import small_project, stand_in
from tests.loopback_hub import Hub, serving

DIM = 64  # of the stand-in; the subject's is 2,560
CHAPTERS = sorted(f.stem for f in (paths.CHAPTERS / "discovery").glob("*.qmd"))
PAGES = ("index.qmd", "references.qmd", "references.bib", "_quarto.yml")
PARTS = ("lib", "book", "press", "chapters", "data", *PAGES)
SETTLED = {"reproduced", "contradicted"}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rehearsal")]


def said(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m lib WORDS` in the copied project."""
    given = {"BOOK_SCALE": "smoke", **environment}
    clean = {k: v for k, v in os.environ.items() if k not in ("BOOK_GIVEN", "PYTHONPATH")}
    command = [sys.executable, "-m", "lib", *words]
    return subprocess.run(command, cwd=project, env=clean | given, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project, copied, with the stand-in fetched over loopback as qwen3-4b."""
    copy, served = tmp_path_factory.mktemp("book"), tmp_path_factory.mktemp("hub")
    for part in PARTS:
        source = paths.ROOT / part
        if source.is_dir():
            skip = shutil.ignore_patterns("artifacts", "fetched", "__pycache__")
            shutil.copytree(source, copy / part, ignore=skip)
        else:
            shutil.copy(source, copy / part)
    catalogue = copy / "data" / "specimens" / "catalogue.yaml"
    before = catalogue.read_text(encoding="utf-8")
    after = re.sub(
        r"(Qwen3-4B-Instruct-2507.*?dim: )2_?560", rf"\g<1>{DIM}", before, count=1, flags=re.S
    )
    assert after != before
    catalogue.write_text(after, encoding="utf-8")
    small_project.record(copy)
    with serving(Hub({stand_in.REPO: stand_in.write(served, DIM)})) as hub:
        done = said(copy, "fetch", "qwen3-4b", HF_ENDPOINT=hub.address)
        assert done.returncode == 0, done.stderr
        assert f"on {hub.address}" in done.stdout, "what did not come from the hub must say so"
    return copy


@pytest.fixture(scope="module")
def whole_run(project) -> subprocess.CompletedProcess:
    """The part on the fetched matrix, and the trained models that its survey reads."""
    script = (
        "from lib import paths; from book import schedule\n"
        "if __name__ == '__main__':\n"
        "    names = __import__('sys').argv[1:]\n"
        "    schedule.run_all([paths.CHAPTERS / f'{name}.qmd' for name in names], 2)\n"
    )
    (project / "part.py").write_text(script)
    names = [f"discovery/{name}" for name in CHAPTERS]
    names += runner.open_chapter(paths.CHAPTERS / "discovery" / "08-survey.qmd").reads
    environment = os.environ | {"BOOK_SCALE": "smoke", "PYTHONPATH": str(project)}
    environment.pop("BOOK_GIVEN", None)
    command = [sys.executable, "part.py", *names]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def page(project: Path, name: str) -> str:
    """All that an executed chapter shows as text."""
    file = project / "data" / "artifacts" / "executed" / "smoke" / "discovery" / f"{name}.ipynb"
    shown = []
    for cell in nbformat.read(file, as_version=4).cells:
        shown.append(cell.source if cell.cell_type == "markdown" else "")
        for out in cell.get("outputs", []):
            shown.append(out.get("text", "") or str(out.get("data", {}).get("text/markdown", "")))
    return re.sub(r"\\(?=[^\w\s])", "", "\n".join(shown))  # without Markdown's escapes


def test_the_list_of_specimens_says_what_the_subject_is(project):
    assert "`subject`, which is qwen3-4b here" in said(project, "specimens").stdout


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_the_fetched_matrix(name, project, whole_run):
    assert not re.search(rf"discovery/{name}: FAILED", whole_run.stdout), whole_run.stderr
    text = page(project, name)
    if name != "07-counterfactual":  # which is about vocabularies
        assert "Qwen/Qwen3-4B-Instruct-2507: whole matrix 151,936 x 64, BF16" in text
        assert "http://127.0.0.1" in text and "it stands in for" not in text
    assert not re.search(r"\b(?:nan|inf)\b", text)


def test_claims_that_needed_the_specimen_are_settled(project, whole_run):
    verdicts = {}
    for file in (project / "data" / "artifacts" / "claims" / "smoke").rglob("*.json"):
        verdicts[file.stem] = json.loads(file.read_text(encoding="utf-8"))
    for claim in ("norms-mean", "census-holes", "census-unique", "sky-trace", "rules-ladder"):
        assert verdicts[claim]["verdict"] in SETTLED, verdicts.get(claim)
    assert verdicts["census-holes"]["verdict"] == "reproduced", "thirteen were planted"


def test_the_pages_are_stale_once_the_matrix_is_gone(project, whole_run):
    fetched = project / "data" / "specimens" / "fetched" / "qwen3-4b.safetensors"
    aside = fetched.with_name("aside")
    question = (
        "from lib import paths; from book import runner, schedule\n"
        "chapter = runner.open_chapter(paths.CHAPTERS / 'discovery/01-norms.qmd')\n"
        "wanted = schedule.keys({chapter.name: chapter})[chapter.name]\n"
        "print(schedule.is_current(chapter.executed, wanted))\n"
    )
    environment = os.environ | {"BOOK_SCALE": "smoke", "PYTHONPATH": str(project)}
    ask = [sys.executable, "-c", question]
    answers = []
    for move in (lambda: None, lambda: fetched.replace(aside), lambda: aside.replace(fetched)):
        move()
        done = subprocess.run(ask, cwd=project, env=environment, capture_output=True, text=True)
        answers.append(done.stdout.strip())
    assert answers == ["True", "False", "True"], done.stderr
