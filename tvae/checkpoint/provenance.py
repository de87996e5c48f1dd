"""Which code made a checkpoint: versions of the packages, and the commit it ran from."""

import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tvae

__all__ = ["UNKNOWN", "commit", "git_trouble", "provenance"]

UNKNOWN = "unknown"


@cache
def provenance() -> dict[str, Any]:
    """Return versions and commit of the running code, as plain JSON values without timestamps.

    Read once in a process: what counts is the code that was imported, not what the tree holds by the end of a training.

    Returns:
        `tvae`, `torch`, `numpy` and `python` as version texts; `git_commit` and `git_dirty`, both None where the code
        is not under git. Dirty means that a tracked file differs from the commit or an unknown file lies in the tree;
        it is `UNKNOWN` where git refuses to say.
    """
    package = Path(tvae.__file__).parent
    git_commit, git_dirty = commit(package)
    return {
        "tvae": tvae.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git_commit": git_commit,
        "git_dirty": UNKNOWN if git_commit is None and git_trouble(package) else git_dirty,
    }


def commit(package: Path) -> tuple[str | None, bool | None]:
    """Return the commit that a package is checked out from, and whether its repository differs from it.

    A user's settings of git do not change the answer, nor do marks in the index that hide changes of a file.

    Args:
        package: the package's folder.

    Returns:
        Commit and dirty, or None twice if the package is not under git, or if git does not answer: see `git_trouble`.
    """
    try:
        # An installed package can lie inside somebody else's repository, which then does not track it.
        if not _git(package, "ls-tree", "--name-only", "HEAD", "__init__.py"):
            return None, None
        head = _git(package, "rev-parse", "HEAD").strip()
        with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
            index = str(Path(folder, "index"))
            _git(package, "read-tree", "HEAD", index=index)
            differs = _git(package, "status", "--porcelain", "-uall", "--ignore-submodules=none", index=index)
        # Of its own modules also those that an ignore file of the user's hides.
        return head, bool(differs or _git(package, "ls-files", "--others", "--", "*.py"))
    except _GitError:
        return None, None


def git_trouble(package: Path) -> str | None:
    """Return why git says nothing of a package that lies in a repository, None if it answers or there is none."""
    if not any((folder / ".git").exists() for folder in package.resolve().parents):
        return None
    try:
        _git(package, "rev-parse", "HEAD")
    except _GitError as error:
        return str(error)
    return None


class _GitError(Exception):
    """What git says when it refuses."""


def _git(folder: Path, *arguments: str, index: str | None = None) -> str:
    # Inside a git hook these variables point at the hook's repository. Those of its configuration are the user's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith("GIT_CONFIG_")}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"} | ({"GIT_INDEX_FILE": index} if index else {})
    words = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _GitError(f"git did not run: {error}") from error
    if done.returncode:
        raise _GitError(" ".join(done.stderr.decode(errors="replace").split()))
    return done.stdout.decode(errors="replace")
