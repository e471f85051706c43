"""Files are whole or not there, and a disk that refuses is named."""

import errno
import resource

import pytest

from lib import files


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
