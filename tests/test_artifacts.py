"""Artefacts: computed once, byte-stable, verified on reading, never half-written."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lib import artifacts, digests, files, paths
from lib.analysis import observers, sweeps
from lib.extraction import reachability
from lib.training import experiments, films, worlds
from lib.training.config import Run

CHAPTER = "small/01-make"
calls: list[int] = []


@dataclass(frozen=True)
class Noise(artifacts.Recipe):
    """noise: (rows, 2) float32; ids."""

    rows: Any = 3
    seed: int = 42
    read: tuple[Path, ...] = ()

    name = "noise"

    def parameters(self):
        return {"rows": self.rows, "seed": self.seed}

    def inputs(self):
        return list(self.read)

    def make(self):
        calls.append(self.seed)
        noise = np.random.default_rng(self.seed).normal(size=(self.rows, 2)).astype(np.float32)
        return {"noise": noise, "ids": np.arange(self.rows)}


@dataclass(frozen=True)
class Steps(artifacts.Recipe):
    """w (steps, 4): one row a step."""

    steps: int = 5

    name = "steps"
    suffix = ".h5"

    def make(self, path):
        calls.append(self.steps)
        with h5py.File(path, "a") as file:
            data = file.require_dataset("w", (self.steps, 4), np.uint16, exact=True)
            for step in range(self.steps):
                data[step] = step


@dataclass(frozen=True)
class Given(artifacts.Recipe):
    """What a function makes."""

    function: Any
    name = "given"

    def parameters(self):
        return {}

    def make(self):
        return self.function()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Artefacts of the test, and no calls yet."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    calls.clear()


def cached(recipe: artifacts.Recipe) -> artifacts.Artifact:
    return artifacts.cached(recipe, CHAPTER)


def left() -> set[str]:
    """Names of all files in the test's artefact folder, locks left out."""
    return {p.name for p in paths.ARTIFACTS.rglob("*") if p.is_file() and p.suffix != ".lock"}


def script(tmp_path: Path, text: str, *words: object) -> list:
    """The command that runs a script with words after it."""
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(text))
    return [sys.executable, file, *map(str, words)]


PROCESS = {"env": os.environ | {"PYTHONPATH": str(paths.ROOT)}, "text": True}


# ------------------------------------------------------------------------ once


@pytest.mark.parametrize("recipe", [Noise(), Steps()])
def test_the_second_call_is_a_pure_hit(recipe):
    first, second = cached(recipe), cached(recipe)
    assert len(calls) == 1
    assert first.path == second.path and first.provenance == second.provenance


def test_arrays_come_back_as_they_were_made():
    made = cached(Noise())
    for name, array in Noise().make().items():
        assert made[name].dtype == array.dtype and np.array_equal(made[name], array)
    assert made.provenance["content"] == digests.of_arrays(Noise().make())


def test_hdf5_is_written_by_its_maker_and_opened_at_its_path():
    made = cached(Steps())
    with h5py.File(made.path) as file:
        assert file["w"].dtype == np.uint16
        assert np.array_equal(file["w"][:, 0], np.arange(5))
    with pytest.raises(artifacts.ArtifactError, match="h5py"):
        _ = made.tensors


def test_others_may_read_an_artefact_as_they_may_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    for recipe in (Noise(), Steps()):
        assert cached(recipe).path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_provenance_says_how_it_was_made(monkeypatch):
    made = cached(Noise())
    told = made.provenance
    assert told["parameters"] == {"rows": 3, "seed": 42}
    assert (told["name"], told["chapter"], told["scale"]) == ("noise", CHAPTER, "book")
    assert told["versions"]["torch"] == importlib.metadata.version("torch")
    assert made.seconds == told["seconds"] >= 0 and len(told["source"]) == 64
    assert f"made by {CHAPTER} in" in repr(made)
    monkeypatch.setenv("BOOK_GIVEN", "rows")
    assert cached(Noise(4)).provenance["scale"] == "book, changed"


def test_two_processes_at_once_compute_once(tmp_path):
    text = f"""
        import sys, time
        from dataclasses import dataclass
        from pathlib import Path
        import numpy as np
        from lib import artifacts, paths
        paths.ARTIFACTS = Path({str(tmp_path / "shared")!r})
        @dataclass(frozen=True)
        class Slow(artifacts.Recipe):
            seed: int
            name = "slow"
            def make(self):
                with Path({str(tmp_path / "log")!r}).open("a") as file:
                    file.write("made\\n")
                time.sleep(0.5)
                return {{"a": np.arange(self.seed)}}
        Path(sys.argv[1]).touch()
        while not Path({str(tmp_path / "go")!r}).exists():
            time.sleep(0.01)
        print(artifacts.cached(Slow(9), "x/y")["a"].sum())
    """
    ready = [tmp_path / name for name in ("ready-1", "ready-2")]
    commands = [script(tmp_path, text, mark) for mark in ready]
    writers = [subprocess.Popen(c, stdout=subprocess.PIPE, **PROCESS) for c in commands]
    while not all(mark.exists() for mark in ready):
        assert all(writer.poll() is None for writer in writers)
    (tmp_path / "go").touch()
    assert [writer.communicate(timeout=60)[0].strip() for writer in writers] == ["36", "36"]
    assert (tmp_path / "log").read_text() == "made\n"


# ----------------------------------------------------------------- byte-stable


def test_the_same_tensors_in_any_order_give_the_same_bytes(monkeypatch):
    monkeypatch.setattr(artifacts.time, "perf_counter", lambda: 1.0)
    made = cached(Noise())
    first = made.path.read_bytes()
    made.path.unlink()
    assert cached(Noise()).path.read_bytes() == first and len(calls) == 2
    made.path.unlink()
    backwards, identity = dict(reversed(Noise().make().items())), artifacts.identify(Noise())
    monkeypatch.setattr(artifacts, "identify", lambda _: identity)
    monkeypatch.setattr(Noise, "make", lambda self: backwards)
    assert cached(Noise()).path.read_bytes() == first


def test_bfloat16_is_kept_as_its_bits():
    bits = np.arange(65536, dtype=np.uint16)  # every pattern, NaN and both noughts too
    tensor = torch.from_numpy(bits.copy()).view(torch.bfloat16)
    stored = cached(Given(lambda: {"w": tensor}))["w"]
    assert stored.dtype == np.uint16 and np.array_equal(stored, bits)


def test_strided_arrays_are_stored_in_order():
    base = np.arange(24).reshape(4, 6)
    made = cached(Given(lambda: {"np": base[:, ::2].T, "torch": torch.from_numpy(base).T}))
    assert np.array_equal(made["np"], base[:, ::2].T) and np.array_equal(made["torch"], base.T)


# -------------------------------------------------------------------- identity


def test_parameters_schema_maker_kind_and_inputs_are_part_of_the_identity(tmp_path, monkeypatch):
    source = tmp_path / "input.txt"
    source.write_text("one")
    one, other = cached(Noise()), cached(Noise(seed=43))
    assert one.path != other.path and one.path.exists() and one.digest[:16] in one.path.name

    @dataclass(frozen=True)
    class Elsewhere(Noise):
        """The same under another class."""

    found = {one.digest, other.digest, cached(Elsewhere()).digest}
    found.add(cached(Noise(read=(source,))).digest)
    source.write_text("two")
    found.add(cached(Noise(read=(source,))).digest)
    with monkeypatch.context() as patch:
        patch.setattr(Noise, "schema", 2)
        found.add(cached(Noise()).digest)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "of_maker", lambda *_: "another source")
        found.add(cached(Noise()).digest)
    assert len(found) == 7


def test_a_changed_source_asks_for_a_new_artefact(monkeypatch):
    before = cached(Noise())
    monkeypatch.setattr(digests, "of_maker", lambda *_: "another source")
    after = cached(Noise())
    assert after.path != before.path and before.path.exists() and len(calls) == 2


def test_what_cannot_be_identified_is_refused(tmp_path):
    with pytest.raises(digests.DigestError, match="parameter"):
        cached(Noise(rows=float("nan")))
    with pytest.raises(artifacts.ArtifactError, match=r"cannot read the input .*gone\.txt"):
        cached(Noise(read=(tmp_path / "gone.txt",)))
    assert calls == []


RUN = Run(vocab=128, dim=8, layers=1, heads=1, ff=8, seq=8, batch=2, steps=2)
GATSBY = worlds.Gatsby(3_000)
OF_THE_LIBRARY = [
    GATSBY,
    worlds.Flannel(300, 0.2, 30_000, 20_000, english="plain"),
    worlds.Goldilocks(300, 0.1, 30_000, 20_000),
    worlds.Phantoms(100, 6, 30_000, 4, (1, 10)),
    experiments.Experiment(GATSBY, RUN, films.Film(("W", "mean_h"), dead=("W.grad",))),
    experiments.Experiment(GATSBY, RUN, experiments.Probe((1, 2))),
    experiments.Experiment(GATSBY, RUN, experiments.Ends()),
    experiments.Experiment(GATSBY, RUN, observers.Lives("E", intervene="common")),
    experiments.Experiment(GATSBY, RUN, observers.Gauge()),
    experiments.Experiment(GATSBY, RUN, observers.Distinct()),
    experiments.Experiment(GATSBY, RUN, observers.Coalescence(3, 4, 5, {"steps": 20, "lr": 0.1})),
    experiments.Speed((RUN, RUN.replace(dim=16)), 2),
    experiments.LastFrame("flannel", "film-0123.h5", "smoke"),
    reachability.Records("qwen3", "qwen3.5"),
    sweeps.Abc(5, 1e-9, 1e-8, 50, 42),
    sweeps.Sweep("qwen3-holes", "gaussian", 1e-9, 1e-8, 3, 50, 4, 42),
    sweeps.Topology("qwen3-holes", 1e-9, 50, 4, 42),
    sweeps.CastRows(2, 1e-6, 1e-5, 5, 8, 3),
]


@pytest.mark.parametrize("recipe", OF_THE_LIBRARY, ids=lambda recipe: type(recipe).__name__)
def test_a_recipe_comes_back_from_what_the_file_says_of_it(recipe, tmp_path):
    kind = type(recipe)
    provenance = {
        "kind": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": json.loads(json.dumps(digests.plain(recipe.parameters()))),
    }
    assert artifacts.Artifact(tmp_path, "", provenance).recipe == recipe
    assert recipe.name and kind.make is not artifacts.Recipe.make


def test_a_recipe_of_another_house_is_not_imported():
    for made in (cached(Noise()), artifacts.Artifact(Path(), "", {"kind": "os.system"})):
        with pytest.raises(artifacts.ArtifactError, match="no class of the library"):
            _ = made.recipe
    with pytest.raises(artifacts.ArtifactError, match="no class of the library"):
        experiments.untagged({"kind": "os.system"})


# --------------------------------------------------------------------- damaged


def test_every_flipped_byte_is_detected():
    path = cached(Noise()).path
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            artifacts.opened(path)
        except artifacts.ArtifactError as error:
            assert path.name in str(error)
        else:
            # the one harmless place: the header's own spacing, which carries nothing
            assert whole[position : position + 1] == b" "


@pytest.mark.parametrize("size", [0, 4, 8, 100, -8, -1])
def test_a_truncated_file_is_detected_and_made_again(size):
    path = cached(Noise()).path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(artifacts.ArtifactError, match="damaged"):
        artifacts.opened(path)
    assert np.array_equal(cached(Noise())["ids"], np.arange(3)) and len(calls) == 2


@pytest.mark.parametrize("spoil", ["flip", "truncate", "side", "no-side", "list"])
def test_damaged_hdf5_is_detected_and_made_again(spoil):
    path = cached(Steps()).path
    side = artifacts.beside(path)
    data = bytearray(path.read_bytes())
    if spoil == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    elif spoil == "truncate":
        path.write_bytes(data[:-3])
    elif spoil == "side":
        side.write_text(json.dumps(json.loads(side.read_text()) | {"seconds": -1}))
    elif spoil == "list":
        side.write_text("[1, 2]")
    else:
        side.unlink()
    with pytest.raises(artifacts.ArtifactError, match="damaged"):
        artifacts.opened(path)
    cached(Steps())
    assert len(calls) == 2
    artifacts.opened(path)


def test_an_artefact_under_another_ones_name_is_refused():
    one, other = (cached(Noise(seed=seed)).path for seed in (1, 2))
    other.write_bytes(one.read_bytes())
    with pytest.raises(artifacts.ArtifactError, match="something else"):
        artifacts.opened(other)
    assert np.array_equal(cached(Noise(seed=2))["noise"], Noise(seed=2).make()["noise"])


def test_every_lists_finished_artefacts_only():
    made = [cached(Noise()).path, cached(Steps(2)).path]
    made[0].with_name(".noise-partial.safetensors").write_bytes(b"")
    assert artifacts.every() == sorted(made)


# ------------------------------------------------------------- never half-done


def test_a_maker_that_fails_leaves_nothing_and_its_own_error(monkeypatch):
    def fails(self, path):
        path.write_text("half")
        raise ZeroDivisionError("the maker's own")

    monkeypatch.setattr(Steps, "make", fails)
    with pytest.raises(ZeroDivisionError, match="the maker's own"):
        cached(Steps())
    with pytest.raises(artifacts.ArtifactError, match="numbers"):
        cached(Given(lambda: {"a": np.array([object()])}))
    assert left() == set()


FULL_DISK = """
    import resource, signal, sys
    from dataclasses import dataclass
    from pathlib import Path
    import h5py, numpy as np
    from lib import artifacts, files, paths
    paths.ARTIFACTS = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    @dataclass(frozen=True)
    class Large(artifacts.Recipe):
        rows: int
        name = "large"
        suffix = sys.argv[2]

        def make(self, *path):
            if not path:
                return {"a": np.ones(self.rows)}
            with h5py.File(path[0], "w") as file:
                file["w"] = np.ones(self.rows)

    try:
        artifacts.cached(Large(90_000), "x/y")
    except files.FileError as error:
        sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("suffix", [".safetensors", ".h5"])
def test_a_full_disk_gives_one_clear_error_and_nothing_half_written(suffix, tmp_path):
    # in a process of its own: after a failed write the HDF5 library may crash at any later time
    command = script(tmp_path, FULL_DISK, paths.ARTIFACTS, suffix)
    ended = subprocess.run(command, capture_output=True, **PROCESS)
    assert "refused: cannot write" in ended.stderr and "free some space" in ended.stderr
    assert "large-" in ended.stderr and "Traceback" not in ended.stderr
    assert left() == set()


def test_a_disk_that_fills_up_beside_hdf5_leaves_nothing(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)  # of the provenance beside the data
    with pytest.raises(files.FileError, match="No space left"):
        cached(Steps())
    assert left() == set()


def test_a_folder_that_cannot_be_written_is_named():
    paths.ARTIFACTS.write_text("a file where the folder should be")
    with pytest.raises(files.FileError, match="cannot write"):
        cached(Noise())


RESUMABLE = """
    import os, signal, sys
    from dataclasses import dataclass
    from pathlib import Path
    import h5py, numpy as np
    from lib import artifacts, paths
    paths.ARTIFACTS = Path(sys.argv[1])
    log, stop = Path(sys.argv[2]), int(sys.argv[3])

    @dataclass(frozen=True)
    class Resumed(artifacts.Recipe):
        steps: int
        name = "resumed"
        suffix = ".h5"
        resumable = sys.argv[4] == "True"

        def make(self, path):
            with h5py.File(path, "a") as file:
                data = file.require_dataset("w", (self.steps,), np.int64, exact=True)
                for step in range(file.attrs.get("done", 0), self.steps):
                    data[step] = step * step
                    file.attrs["done"] = step + 1
                    file.flush()
                    with log.open("a") as text:
                        text.write(f"{step}\\n")
                    if step == stop:
                        os.kill(os.getpid(), signal.SIGKILL)

    print(h5py.File(artifacts.cached(Resumed(10), "x/y").path)["w"][:].sum())
"""


@pytest.mark.parametrize(("resumable", "steps"), [(True, [*range(10)]),
                                                  (False, [*range(5), *range(10)])])  # fmt: skip
def test_a_killed_run_goes_on_where_it_was_if_it_is_resumable(tmp_path, resumable, steps):
    folder, log = tmp_path / "shared", tmp_path / "log"
    results = [
        subprocess.run(
            script(tmp_path, RESUMABLE, folder, log, stop, resumable),
            capture_output=True,
            **PROCESS,
        )
        for stop in (4, 99)
    ]
    assert results[0].returncode == -signal.SIGKILL
    assert results[1].stdout.strip() == "285", results[1].stderr
    names = {p.name for p in folder.rglob("*.h5")}
    assert len(names) == 1 and not names.pop().startswith(".")
    assert log.read_text().split() == [str(step) for step in steps]
