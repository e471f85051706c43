"""Artefacts: computed once, byte-stable, verified on reading, never half-written."""

import errno
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lib import artifacts, digests, files, paths

CHAPTER = "small/01-make"
PARAMS = {"rows": 3, "seed": 42}
calls: list[int] = []


def make_noise(rows: int, seed: int) -> dict[str, np.ndarray]:
    """noise: (rows, 2) float32."""
    calls.append(seed)
    rng = np.random.default_rng(seed)
    return {"noise": rng.normal(size=(rows, 2)).astype(np.float32), "ids": np.arange(rows)}


def make_steps(path: Path, steps: int) -> None:
    """Append one row a step to an HDF5 file."""
    calls.append(steps)
    with h5py.File(path, "a") as file:
        data = file.require_dataset("w", (steps, 4), np.uint16, exact=True)
        for step in range(steps):
            data[step] = step


NOISE = artifacts.Recipe("noise", make_noise, ("lib.paths",), CHAPTER)
STEPS = artifacts.Recipe("steps", make_steps, ("lib.paths",), CHAPTER, suffix=".h5")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Artefacts and chapters of the test, and no calls yet."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters")
    calls.clear()


@pytest.fixture
def small_disk():
    """No file may grow over 20 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left() -> set[str]:
    """Names of all files in the test's artefact folder, locks left out."""
    return {p.name for p in paths.ARTIFACTS.rglob("*") if p.is_file() and p.suffix != ".lock"}


# ------------------------------------------------------------------------ once


@pytest.mark.parametrize(("recipe", "params"), [(NOISE, PARAMS), (STEPS, {"steps": 5})])
def test_the_second_call_is_a_pure_hit(recipe, params):
    first = artifacts.cached(recipe, params)
    second = artifacts.cached(recipe, params)
    loaded = artifacts.load(recipe, params)
    assert len(calls) == 1
    assert first.path == second.path == loaded.path
    assert first.provenance == second.provenance == loaded.provenance


def test_arrays_come_back_as_they_were_made():
    tensors = artifacts.cached(NOISE, PARAMS).tensors
    for name, array in make_noise(**PARAMS).items():
        assert tensors[name].dtype == array.dtype
        assert np.array_equal(tensors[name], array)


def test_hdf5_is_written_by_its_maker_and_opened_at_its_path():
    made = artifacts.cached(STEPS, {"steps": 5})
    with h5py.File(made.path) as file:
        assert file["w"].dtype == np.uint16
        assert np.array_equal(file["w"][:, 0], np.arange(5))
    with pytest.raises(artifacts.ArtifactError, match="h5py"):
        _ = made.tensors


def test_others_may_read_an_artefact_as_they_may_any_new_file(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    for recipe, params in ((NOISE, PARAMS), (STEPS, {"steps": 5})):
        assert artifacts.cached(recipe, params).path.stat().st_mode == plain.stat().st_mode


def test_provenance_says_how_it_was_made():
    made = artifacts.cached(NOISE, PARAMS).provenance
    assert made["parameters"] == PARAMS
    assert (made["name"], made["chapter"], made["seed"]) == ("noise", CHAPTER, 42)
    assert made["versions"]["torch"] == importlib.metadata.version("torch")
    assert made["seconds"] >= 0 and len(made["source"]) == 64
    assert CHAPTER in artifacts.load(NOISE, PARAMS).summary


def test_other_parameters_are_another_artefact():
    one = artifacts.cached(NOISE, PARAMS)
    other = artifacts.cached(NOISE, PARAMS | {"seed": 43})
    assert one.path != other.path and one.path.exists() and other.path.exists()
    assert one.digest[:16] in one.path.name


def test_two_processes_at_once_compute_once(tmp_path):
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        import numpy as np
        from lib import artifacts, paths
        paths.ARTIFACTS = Path({str(tmp_path / "shared")!r})
        log = Path({str(tmp_path / "log")!r})
        def slow(seed):
            with log.open("a") as file:
                file.write("made\\n")
            time.sleep(0.5)
            return {{"a": np.arange(seed)}}
        slow_recipe = artifacts.Recipe("slow", slow, ("lib.paths",), "x/y")
        Path(sys.argv[1]).touch()
        while not Path({str(tmp_path / "go")!r}).exists():
            time.sleep(0.01)
        print(artifacts.cached(slow_recipe, {{"seed": 9}}).tensors["a"].sum())
    """)
    file = tmp_path / "script.py"
    file.write_text(script)
    ready = [tmp_path / name for name in ("ready-1", "ready-2")]
    writers = [
        subprocess.Popen(
            [sys.executable, file, mark],
            env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for mark in ready
    ]
    while not all(mark.exists() for mark in ready):
        assert all(writer.poll() is None for writer in writers)
    (tmp_path / "go").touch()
    assert [writer.communicate(timeout=60)[0].strip() for writer in writers] == ["36", "36"]
    assert (tmp_path / "log").read_text() == "made\n"


# ----------------------------------------------------------------- byte-stable


def test_the_same_tensors_and_provenance_give_the_same_bytes(monkeypatch):
    monkeypatch.setattr(artifacts.time, "perf_counter", lambda: 1.0)
    made = artifacts.cached(NOISE, PARAMS)
    first = made.path.read_bytes()
    made.path.unlink()
    assert artifacts.cached(NOISE, PARAMS).path.read_bytes() == first
    assert len(calls) == 2


def test_the_order_of_tensors_changes_nothing(monkeypatch):
    monkeypatch.setattr(artifacts.time, "perf_counter", lambda: 1.0)
    made = artifacts.cached(NOISE, PARAMS)
    first = made.path.read_bytes()
    made.path.unlink()
    order = dict(reversed(make_noise(**PARAMS).items()))
    backwards = artifacts.Recipe("noise", make_noise, ("lib.paths",), CHAPTER)
    object.__setattr__(backwards, "make", lambda rows, seed: order)
    monkeypatch.setattr(digests, "of_source", lambda *_: made.provenance["source"])
    assert artifacts.cached(backwards, PARAMS).path.read_bytes() == first


def test_the_content_digest_depends_on_the_arrays_alone():
    made = artifacts.cached(NOISE, PARAMS)
    assert made.provenance["content"] == digests.of_arrays(make_noise(**PARAMS))
    a = np.arange(6, dtype=np.uint16)
    different = [{"a": a}, {"b": a}, {"a": a.view(np.int16)}, {"a": a.reshape(2, 3)}, {"a": a + 1}]
    assert len({digests.of_arrays(arrays) for arrays in different}) == len(different)


def test_bfloat16_is_kept_as_its_bits():
    bits = np.arange(65536, dtype=np.uint16)  # every pattern, NaN and both noughts too
    tensor = torch.from_numpy(bits.copy()).view(torch.bfloat16)
    recipe = artifacts.Recipe("bits", lambda: {"w": tensor}, ("lib.paths",), CHAPTER)
    stored = artifacts.cached(recipe, {}).tensors["w"]
    assert stored.dtype == np.uint16
    assert np.array_equal(stored, bits)


def test_strided_arrays_are_stored_in_order():
    base = np.arange(24).reshape(4, 6)
    recipe = artifacts.Recipe(
        "strided",
        lambda: {"np": base[:, ::2].T, "torch": torch.from_numpy(base).T},
        ("lib.paths",),
        CHAPTER,
    )
    stored = artifacts.cached(recipe, {}).tensors
    assert np.array_equal(stored["np"], base[:, ::2].T)
    assert np.array_equal(stored["torch"], base.T)


# ----------------------------------------------------------------------- stale


@pytest.fixture
def science(tmp_path, monkeypatch):
    """A package whose source the test may change, and a recipe that depends on it."""
    package = tmp_path / "science_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "law.py").write_text("RATE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield package / "law.py"
    for name in [n for n in sys.modules if n.startswith("science_of_test")]:
        del sys.modules[name]


def of_package(name: str = "science_of_test") -> artifacts.Recipe:
    """The noise recipe, depending on the package of the test."""
    return artifacts.Recipe("noise", make_noise, (name,), CHAPTER)


@pytest.mark.parametrize("module", ["science_of_test", "science_of_test.law"])
def test_a_changed_source_asks_for_a_new_artefact(science, module):
    before = artifacts.cached(of_package(module), PARAMS)
    science.write_text("RATE = 2\n")
    with pytest.raises(artifacts.ArtifactMissing, match="stale") as error:
        artifacts.load(of_package(module), PARAMS)
    assert f"python -m lib run chapters/{CHAPTER}.qmd" in str(error.value)
    after = artifacts.cached(of_package(module), PARAMS)
    assert after.path != before.path and before.path.exists()
    assert len(calls) == 2


def test_schema_maker_and_inputs_are_part_of_the_identity(tmp_path):
    source = tmp_path / "input.txt"
    source.write_text("one")
    plain = artifacts.cached(NOISE, PARAMS)
    found = {
        plain.digest,
        artifacts.cached(NOISE, PARAMS, [source]).digest,
        artifacts.cached(NOISE, PARAMS, [plain]).digest,
        artifacts.cached(
            artifacts.Recipe("noise", make_noise, ("lib.paths",), CHAPTER, schema=2), PARAMS
        ).digest,
        artifacts.cached(
            artifacts.Recipe("noise", lambda rows, seed: {}, ("lib.paths",), CHAPTER), PARAMS
        ).digest,
    }
    source.write_text("two")
    found.add(artifacts.cached(NOISE, PARAMS, [source]).digest)
    assert len(found) == 6


def test_a_missing_artefact_names_the_command_with_its_parameters(tmp_path):
    chapter = tmp_path / "chapters" / f"{CHAPTER}.qmd"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("```{python}\n#| tags: [parameters]\nrows = 3\nseed = 42\n```\n")
    with pytest.raises(artifacts.ArtifactMissing) as error:
        artifacts.load(NOISE, {"rows": 3, "seed": 7})
    assert "missing" in str(error.value)
    assert str(error.value).endswith(f"python -m lib run chapters/{CHAPTER}.qmd -p seed=7")
    assert calls == [] and left() == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), object(), {1, 2}])
def test_parameters_that_are_no_plain_numbers_are_refused(value):
    with pytest.raises(digests.DigestError, match="parameter"):
        artifacts.cached(NOISE, PARAMS | {"rows": value})
    assert calls == []


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(artifacts.ArtifactError, match=r"cannot read the input .*gone\.txt"):
        artifacts.cached(NOISE, PARAMS, [tmp_path / "gone.txt"])


# --------------------------------------------------------------------- damaged


def test_every_flipped_byte_is_detected():
    path = artifacts.cached(NOISE, PARAMS).path
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            artifacts.verify(path)
        except artifacts.ArtifactError as error:
            assert path.name in str(error)
        else:
            # the one harmless place: the header's own spacing, which carries nothing
            assert whole[position : position + 1] == b" "


@pytest.mark.parametrize("size", [0, 4, 8, 100, -8, -1])
def test_a_truncated_file_is_detected_and_made_again(size):
    path = artifacts.cached(NOISE, PARAMS).path
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(artifacts.ArtifactError, match="make it again with"):
        artifacts.load(NOISE, PARAMS)
    assert np.array_equal(artifacts.cached(NOISE, PARAMS).tensors["ids"], np.arange(PARAMS["rows"]))
    assert len(calls) == 2


@pytest.mark.parametrize("spoil", ["flip", "truncate", "side", "no-side", "list"])
def test_damaged_hdf5_is_detected_and_made_again(spoil):
    path = artifacts.cached(STEPS, {"steps": 5}).path
    side = path.with_name(path.name + ".json")
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
        artifacts.load(STEPS, {"steps": 5})
    artifacts.cached(STEPS, {"steps": 5})
    assert len(calls) == 2
    artifacts.load(STEPS, {"steps": 5})


def test_an_artefact_under_another_ones_name_is_refused():
    one, other = (artifacts.cached(NOISE, PARAMS | {"seed": seed}).path for seed in (1, 2))
    other.write_bytes(one.read_bytes())
    with pytest.raises(artifacts.ArtifactError, match="something else"):
        artifacts.load(NOISE, PARAMS | {"seed": 2})


def test_every_lists_finished_artefacts_only():
    made = [artifacts.cached(NOISE, PARAMS).path, artifacts.cached(STEPS, {"steps": 2}).path]
    made[0].with_name(".noise-partial.safetensors").write_bytes(b"")
    assert artifacts.every() == sorted(made)


# ------------------------------------------------------------- never half-done


def test_a_maker_that_fails_leaves_nothing_and_its_own_error():
    def fails(path):
        path.write_text("half")
        raise ZeroDivisionError("the maker's own")

    recipe = artifacts.Recipe("fails", fails, ("lib.paths",), CHAPTER, suffix=".h5")
    with pytest.raises(ZeroDivisionError, match="the maker's own"):
        artifacts.cached(recipe, {})
    assert left() == set()


def test_objects_are_refused():
    recipe = artifacts.Recipe(
        "objects", lambda: {"a": np.array([object()])}, ("lib.paths",), CHAPTER
    )
    with pytest.raises(artifacts.ArtifactError, match="numbers"):
        artifacts.cached(recipe, {})
    assert left() == set()


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import h5py, numpy as np
    from lib import artifacts, files, paths
    paths.ARTIFACTS = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def tensors(rows):
        return {"a": np.ones(rows)}

    def film(path, rows):
        with h5py.File(path, "w") as file:
            file["w"] = np.ones(rows)

    suffix = sys.argv[2]
    make = film if suffix == ".h5" else tensors
    recipe = artifacts.Recipe("large", make, ("lib.paths",), "x/y", suffix=suffix)
    try:
        artifacts.cached(recipe, {"rows": 90_000})
    except files.FileError as error:
        sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("suffix", [".safetensors", ".h5"])
def test_a_full_disk_gives_one_clear_error_and_nothing_half_written(suffix, tmp_path):
    # in a process of its own: after a failed write the HDF5 library may crash at any later time
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(FULL_DISK))
    ended = subprocess.run(
        [sys.executable, file, paths.ARTIFACTS, suffix],
        env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
        capture_output=True,
        text=True,
    )
    assert "refused: cannot write" in ended.stderr and "free some space" in ended.stderr
    assert "large-" in ended.stderr and "Traceback" not in ended.stderr
    assert left() == set()


def test_a_disk_that_fills_up_beside_hdf5_leaves_nothing(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)  # of the provenance beside the data
    with pytest.raises(files.FileError, match="No space left"):
        artifacts.cached(STEPS, {"steps": 5})
    assert left() == set()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    paths.ARTIFACTS.write_text("a file where the folder should be")
    with pytest.raises(files.FileError, match="cannot write"):
        artifacts.cached(NOISE, PARAMS)


def test_atomic_writing_leaves_the_old_file_when_the_new_one_fails(tmp_path, small_disk):
    target = tmp_path / "deep" / "file.txt"
    files.write_atomically(target, lambda path: path.write_text("old"))
    with pytest.raises(files.FileError, match=r"file\.txt"):
        files.write_atomically(target, lambda path: path.write_text("new" * 20_000))
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


RESUMABLE = """
    import os, signal, sys
    from pathlib import Path
    import h5py, numpy as np
    from lib import artifacts, paths
    paths.ARTIFACTS = Path(sys.argv[1])
    log, stop = Path(sys.argv[2]), int(sys.argv[3])
    def steps(path, steps):
        with h5py.File(path, "a") as file:
            data = file.require_dataset("w", (steps,), np.int64, exact=True)
            done = file.attrs.get("done", 0)
            for step in range(done, steps):
                data[step] = step * step
                file.attrs["done"] = step + 1
                file.flush()
                with log.open("a") as text:
                    text.write(f"{step}\\n")
                if step == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
    recipe = artifacts.Recipe(
        "resumed", steps, ("lib.paths",), "x/y", suffix=".h5", resumable=RESUME
    )
    made = artifacts.cached(recipe, {"steps": 10})
    print(h5py.File(made.path)["w"][:].sum())
"""


def run_killed(tmp_path: Path, resumable: bool) -> list[str]:
    """Steps computed by a run killed at step 4 and a second run that finishes."""
    file, log = tmp_path / "script.py", tmp_path / "log"
    file.write_text(textwrap.dedent(RESUMABLE).replace("RESUME", str(resumable)))
    results = [
        subprocess.run(
            [sys.executable, file, tmp_path / "shared", log, stop],
            env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
            capture_output=True,
            text=True,
        )
        for stop in ("4", "99")
    ]
    assert results[0].returncode == -signal.SIGKILL
    assert results[1].stdout.strip() == "285", results[1].stderr
    names = {p.name for p in (tmp_path / "shared").rglob("*.h5")}
    assert len(names) == 1 and not names.pop().startswith(".")
    return log.read_text().split()


def test_a_killed_resumable_run_goes_on_where_it_was(tmp_path):
    assert run_killed(tmp_path, resumable=True) == [str(step) for step in range(10)]


def test_a_killed_run_that_is_not_resumable_begins_again(tmp_path):
    steps = [*range(5), *range(10)]
    assert run_killed(tmp_path, resumable=False) == [str(step) for step in steps]
