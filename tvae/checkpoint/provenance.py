"""Which code made a checkpoint: versions of the packages, and the commit it ran from."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tvae

__all__ = ["commit", "provenance"]


@cache
def provenance() -> dict[str, Any]:
    """Return versions and commit of the running code, as plain JSON values without timestamps.

    Read once in a process: what counts is the code that was imported, not what the tree holds by the end of a training.

    Returns:
        `tvae`, `torch`, `numpy` and `python` as version texts; `git_commit` and `git_dirty`, both None where the code
        is not under git. Dirty means that a tracked file differs from the commit or an unknown file lies in the tree.
        Where git refuses to answer, `git_commit` is its reason.
    """
    git_commit, git_dirty = commit(Path(tvae.__file__).parent)
    return {
        "tvae": tvae.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git_commit": git_commit,
        "git_dirty": git_dirty,
    }


def commit(package: Path) -> tuple[str | None, bool | None]:
    """Return the commit that a package is checked out from, and whether its repository differs from it.

    Args:
        package: the package's folder.

    Returns:
        Commit and dirty, or None twice if the package is not under git. Where git refuses to answer, as it does in a
        folder of somebody else, its reason stands in place of the commit.
    """
    try:
        # An installed package can lie inside somebody else's repository, which then does not track it.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        # A user's own configuration can leave unknown files out.
        status = _git(package, "status", "--porcelain", "--untracked-files=normal")
        return _git(package, "rev-parse", "HEAD"), bool(status)
    except OSError:
        return None, None
    except subprocess.TimeoutExpired:
        return "git refused: it took more than 30 s", None
    except subprocess.CalledProcessError as error:
        said = (str(error.stderr).strip().splitlines() or [f"exit code {error.returncode}"])[0]
        if "not a git repository" in said or "did not match" in said:
            return None, None
        # Without the path that follows: a checkpoint holds nothing of the folders that it was made in.
        return f"git refused: {said.removeprefix('fatal: ').partition(' in repository')[0]}", None


def _git(folder: Path, *arguments: str) -> str:
    # Inside a git hook these variables point at the hook's repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"LC_ALL": "C"}
    words = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()
