"""Writing: whatever happens, the old file or the new one is there, and nothing else."""

import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from exact_model import architecture, random_model

import tvae
from tvae.checkpoint import atomic, read, save
from tvae.errors import CheckpointError


def write(path: Path, seed: int = 0) -> None:
    save(path, random_model(architecture(), seed), trained=(), training={"seed": seed}, metrics={})


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def stands(path: Path, seed: int) -> None:
    """Only this file is in its folder, as it was written with this seed."""
    assert read(path).training == {"seed": seed}
    assert names(path.parent) == [path.name]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write(tmp_path / "c")
    (tmp_path / "plain").touch()
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        CheckpointError, match=r"was not written: the folder must exist, be writable and have room; found: N"
    ):
        write(tmp_path / folder / "c")


# A FIFO for a device, since the test must not be able to harm /dev/null.
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "c")
    with pytest.raises(CheckpointError, match="there is something here that is not a regular file"):
        write(tmp_path / "c")
    assert names(tmp_path) == ["c"]
    assert not (tmp_path / "c").is_file()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow past 1,000 bytes; no fixture, or pytest could not write its own output to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    write(tmp_path / "c")
    return tmp_path / "c"


def test_a_full_disk_leaves_the_old_file(old: Path) -> None:
    said = r"found: File too large\. What stood there before is unchanged"
    with full_disk(), pytest.raises(CheckpointError, match=said):
        write(old, seed=1)
    stands(old, seed=0)


def test_an_interrupted_save_leaves_the_old_file(old: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt("by hand")

    with pytest.raises(KeyboardInterrupt, match="by hand"):
        atomic.replace(old, interrupted())
    stands(old, seed=0)


def test_what_a_killed_writer_left_is_removed(old: Path) -> None:
    old.with_name(".c.0123456789abcdef.tmp").write_bytes(b"half")
    write(old, seed=1)
    stands(old, seed=1)


def test_what_another_writer_is_writing_is_not_removed(old: Path) -> None:
    with old.with_name(".c.0123456789abcdef.tmp").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write(old)
        assert names(old.parent) == [".c.0123456789abcdef.tmp", "c"]


def test_files_of_other_names_are_not_removed(old: Path) -> None:
    others = [".other.0123456789abcdef.tmp", "c.tmp", ".c.bak"]
    for name in others:
        old.with_name(name).touch()
    write(old)
    assert names(old.parent) == sorted([*others, "c"])


def failing(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int, *, folders: bool = False) -> None:
    """Let a call on a descriptor answer with an error, of folders alone or of everything."""
    true = getattr(module, name)

    def call(descriptor: int, *rest: Any) -> Any:
        if folders and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return true(descriptor, *rest)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("code", ["ENOSYS", "ENOTSUP", "ENOLCK", "EINVAL", "EBADF", "EIO", "EPERM", "EACCES"])
def test_a_file_system_without_locks_is_written(old: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    left = old.with_name(".c.0123456789abcdef.tmp")
    left.write_bytes(b"of another writer, or of a dead one: without locks nobody can tell")
    failing(monkeypatch, fcntl, "flock", getattr(errno, code))
    write(old, seed=1)
    assert read(old).training == {"seed": 1}
    assert names(old.parent) == [left.name, "c"]


@pytest.mark.parametrize("code", ["EWOULDBLOCK", "EAGAIN"])
def test_locks_that_are_always_held_are_an_error_and_leave_nothing(
    old: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    failing(monkeypatch, fcntl, "flock", getattr(errno, code))
    with pytest.raises(CheckpointError, match=r"by another process at once\. What stood there before is"):
        write(old, seed=1)
    stands(old, seed=0)


def test_a_file_that_is_locked_as_it_is_made_gives_way_to_another(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true, answers = fcntl.flock, iter([BlockingIOError(errno.EAGAIN, "held"), None])

    def held_once(descriptor: int, operation: int) -> None:
        if answer := next(answers):
            raise answer
        true(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", held_once)
    write(old, seed=1)
    stands(old, seed=1)


@pytest.mark.parametrize("code", ["EINVAL", "EBADF", "ENOTSUP", "ENOSYS", "EACCES", "EIO"])
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_folder_that_cannot_be_synced_holds_the_new_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: str
) -> None:
    number = getattr(errno, code)
    if call == "fsync":
        failing(monkeypatch, os, "fsync", number, folders=True)
    else:
        true = os.open

        def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & os.O_DIRECTORY:
                raise OSError(number, os.strerror(number))
            return true(path, flags, *rest, **named)

        monkeypatch.setattr(os, "open", opened)
    write(old, seed=1)
    stands(old, seed=1)


@pytest.mark.parametrize(("code", "written"), [("EINVAL", 1), ("ENOSYS", 1), ("ENOTSUP", 1), ("EIO", 0), ("EDQUOT", 0)])
def test_a_file_that_cannot_reach_the_disk_is_not_put_in_place(
    old: Path, monkeypatch: pytest.MonkeyPatch, code: str, written: int
) -> None:
    failing(monkeypatch, os, "fsync", getattr(errno, code))
    with nullcontext() if written else pytest.raises(CheckpointError, match="What stood there before is unchanged"):
        write(old, seed=1)
    stands(old, seed=written)


def test_a_folder_that_cannot_be_listed_is_written(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refused)
        write(old, seed=1)
    assert read(old).training == {"seed": 1}


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)  # a fork must not inherit locks of other threads
from exact_model import architecture, random_model
from tvae.checkpoint import atomic, read, save

folder = Path(sys.argv[1])
path = folder / "c"
models = [random_model(architecture(), seed) for seed in (0, 1)]

def write(seed):
    save(path, models[seed], trained=(), training={"seed": seed}, metrics={})

def killed(work, delay=None):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    if delay is not None:
        time.sleep(delay)  # the moment of death is what is tested
        os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

def found():
    return read(path).training["seed"]

def dies_at(step):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename == atomic.__file__:
            lines += 1
            if lines == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
    def work():
        sys.settrace(trace)
        write(1)
    return work

write(0)
at_lines = []
step = 1
while killed(dies_at(step)):
    at_lines.append(found())
    write(0)
    step += 1

def forever():
    while True:
        write(0)
        write(1)

moments = random.Random(0)
at_moments = []
leftovers = 0
for _ in range(30):
    assert killed(forever, moments.uniform(0, 0.02))
    at_moments.append(found())
    leftovers = max(leftovers, len(os.listdir(folder)) - 1)
write(0)
print(json.dumps({"at_lines": at_lines, "at_moments": at_moments, "leftovers": leftovers, "left": os.listdir(folder)}))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(tvae.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path_factory.mktemp("killed"))],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return json.loads(done.stdout)


@pytest.mark.fault
@pytest.mark.integration
def test_kill_at_any_line_of_writing_leaves_the_old_file_or_the_new(killed: dict) -> None:
    assert len(killed["at_lines"]) > 20
    # Until the rename the old one, from then on the new one.
    assert killed["at_lines"] == sorted(killed["at_lines"])
    assert set(killed["at_lines"]) == {0, 1}


@pytest.mark.fault
@pytest.mark.integration
def test_kill_at_any_moment_leaves_the_old_file_or_the_new(killed: dict) -> None:
    assert len(killed["at_moments"]) == 30
    assert set(killed["at_moments"]) <= {0, 1}
    # What killed writers leave does not pile up.
    assert killed["leftovers"] <= 1
    assert killed["left"] == ["c"]
