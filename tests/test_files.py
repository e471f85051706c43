"""Files are whole or not there, and a disk that refuses is named."""

import errno
import random
import resource
import subprocess

import pytest

from lib import files, paths
from lib.extraction import specimens


@pytest.fixture
def small_disk():
    """No file may grow over 20 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_atomic_writing_leaves_the_old_file_when_the_new_one_fails(tmp_path, small_disk):
    target = tmp_path / "deep" / "file.txt"
    files.write_atomically(target, lambda path: path.write_text("old"))
    with pytest.raises(files.FileError, match=r"file\.txt: .*free some space"):
        files.write_atomically(target, lambda path: path.write_text("new" * 20_000))
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_room_on_the_disk_is_reserved_or_refused(tmp_path, small_disk):
    files.reserve(tmp_path / "film", 10_000)
    with pytest.raises(OSError) as refused:
        files.reserve(tmp_path / "larger", 30_000)
    assert files.is_full(refused.value)


def test_a_writer_s_own_error_passes_and_leaves_nothing(tmp_path):
    def fails(path):
        path.write_text("half")
        raise ZeroDivisionError("the writer's own")

    with pytest.raises(ZeroDivisionError, match="the writer's own"):
        files.write_atomically(tmp_path / "file.txt", fails)
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it_as_they_may_any_new_file(tmp_path):
    (tmp_path / "plain").touch()

    def private(path):
        path.touch(mode=0o600)

    files.write_atomically(tmp_path / "written", private)
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_is_known_by_number_by_cause_and_by_hdf5_s_words():
    full = OSError(errno.ENOSPC, "No space left on device")
    caused = RuntimeError("something else")
    caused.__cause__ = full
    said = RuntimeError(f"Can't write data (file write failed: errno = {errno.EDQUOT}, error)")
    assert all(map(files.is_full, (full, caused, said)))
    other = RuntimeError("errno = 2, error message = 'No such file'")
    assert not any(map(files.is_full, (None, other, OSError(errno.EACCES, "no"))))


def test_every_committed_file_of_data_has_its_digest():
    listed = [line.split("  ")[1] for line in files.SUMS.read_text().splitlines()]
    assert listed == files.committed() and len(listed) > 40
    answer = subprocess.run(
        ["sha256sum", "--check", "--quiet", files.SUMS.name], cwd=paths.DATA, capture_output=True
    )
    assert answer.returncode == 0, answer.stdout


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder in place of data/, with two files of it."""
    for name in ("qwen3/printed_spike.json", "claims.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((paths.DATA / name).read_bytes())
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(files, "SUMS", tmp_path / "SHA256SUMS")
    monkeypatch.setattr(files, "FETCHED", (tmp_path / "fetched",))
    monkeypatch.setattr(files, "noted", {})
    assert files.record() == 2
    return tmp_path


def test_one_flipped_bit_of_committed_data_is_noticed(copied):
    chance = random.Random(42)
    for name in ("qwen3/printed_spike.json", "claims.yaml"):
        file = copied / name
        whole = file.read_bytes()
        assert files.checked(file) == file
        for at in chance.sample(range(len(whole)), 50):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << chance.randrange(8)
            file.write_bytes(flipped)
            with pytest.raises(files.FileError, match=f"git checkout data/{name}"):
                files.checked(file)
        file.unlink()
        with pytest.raises(files.FileError, match="not the file that was committed"):
            files.checked(file)
        file.write_bytes(whole)
    new = copied / "new.yaml"
    new.write_text("a: 1")
    with pytest.raises(files.FileError, match="make sums"):
        files.read_yaml(new)


def test_what_was_read_is_noted_with_its_state(copied):
    files.read_yaml(copied / "claims.yaml", noting=False)
    assert files.noted == {}
    files.checked(copied / "claims.yaml")
    assert files.noted == {"claims.yaml": files.state("claims.yaml")}
    matrix = copied / "fetched" / "w.safetensors"
    assert not files.is_here(matrix) and files.noted["fetched/w.safetensors"] == files.ABSENT
    matrix.parent.mkdir()
    matrix.write_bytes(b"12")
    assert files.is_here(matrix) and files.noted["fetched/w.safetensors"].startswith("2-")
    outside = copied.parent / "recipe.yaml"
    assert files.checked(outside) == outside and len(files.noted) == 2


def test_a_specimen_whose_extract_has_a_flipped_bit_is_not_opened(tmp_path, monkeypatch):
    name = "specimens/minilm-l6-unused-f16.safetensors"
    whole = bytearray((paths.DATA / name).read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(whole)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "SPECIMENS", tmp_path / "specimens")
    with pytest.raises(files.FileError, match="git checkout"):
        specimens.open("minilm-l6")
