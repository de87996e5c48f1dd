"""A team's server as docs/team-server.md starts it, with a PostgreSQL of its own in a temporary folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from desk import ROOT, Desk, free_port
from patience import PATIENCE_SECONDS, until

PAGE = (ROOT / "docs" / "team-server.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
# Root without its right to read what others own: a client that may not look into the server's folder.
SHUT_OUT = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def block(heading: str) -> str:
    """Return the commands that stand under a heading of the page."""
    _, _, section = PAGE.partition(f"# {heading}\n")
    (found, *_) = re.findall(r"^```sh\n(.*?)^```$", section.split("\n#")[0], re.DOTALL | re.MULTILINE)
    return str(found)


def life(entry_point: str) -> str:
    """Return the page's line for a step in the life of a model."""
    _, _, section = PAGE.partition("# A client\n")
    lines = re.findall(r"^(?:python -m entry_points\.|mlflow ).*$", section.split("\n#")[0], re.MULTILINE)
    (found,) = [line for line in lines if line.startswith(("mlflow " + entry_point, f"python -m {entry_point}"))]
    return str(found)


def answers(address: str, body: bytes | None = None, **headers: str) -> int:
    """Return the status with which an address answers, 0 if it does not."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, body, {"Content-Type": "application/json", **headers}), timeout=10
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


def command_lines() -> list[str]:
    """Return the command lines of all processes, as every user of the machine can see them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            lines.append(path.read_text(errors="replace"))
    return lines


class Client(Desk):
    """A member of the team at a clone of the project."""

    def __init__(self, folder: Path, uri: str, *before: str) -> None:
        super().__init__(folder, uri)
        self.before = before
        self.environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        folder.mkdir()
        for name in ("MLproject", "conda.yaml", "entry_points", "tvae"):
            (folder / name).symlink_to(ROOT / name)

    def shell(self, line: str, **environment: str) -> subprocess.Popen[str]:
        return self.launch(*self.before, "bash", "-euo", "pipefail", "-c", line, **environment)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def done(process: subprocess.Popen[str]) -> str:
    """Return what a process prints that is to succeed."""
    code, out, err = ended(process)
    assert code == 0, err
    return out


class Team:
    """Database, artifact folder and server, and the clients of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.artifacts = self.kept / "artifacts"
        self.port = free_port()
        self.settings = {
            "TEAM": str(self.kept),
            "ARTIFACTS": str(self.artifacts),
            "DATABASE": "mlflow",
            "PGPORT": str(free_port()),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
        }
        self.uri = f"http://127.0.0.1:{self.port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.environment |= {"PGHOST": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def shell(self, commands: str, **environment: str) -> str:
        """Run commands on the server's machine."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self.environment | self.settings | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def database(self, name: str) -> str:
        """Make an empty database, and return the address with which a client opens it itself."""
        self.shell(f"su postgres -c 'createdb --owner=mlflow {name}'")
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{self.settings['PGPORT']}/{name}"

    def client(self, name: str, *before: str) -> Client:
        return Client(self.folder / name, self.uri, *before)

    @contextmanager
    def serving(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run the page's server."""
        settings = self.settings | environment
        with (self.folder / f"server-{settings['PORT']}.log").open("w") as log:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block("The server")],
                cwd=self.folder,
                env=self.environment | settings,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            until(lambda: answers(f"http://127.0.0.1:{settings['PORT']}/health") == 200, process)
            yield process
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=PATIENCE_SECONDS)


@contextmanager
def team_at_work() -> Iterator[Team]:
    """Start PostgreSQL as an unprivileged user, and the server as the page says."""
    assert os.geteuid() == 0, (
        "These tests start processes as other users, and shut one out of a folder: run them as root."
    )
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found, "These tests need PostgreSQL: apt-get install postgresql."
    postgresql = found[-1]
    folder = Path(tempfile.mkdtemp(prefix="tvae-team-"))
    team = Team(folder)
    try:
        folder.chmod(0o755)
        shutil.chown(folder, "postgres")
        # The server is root, who may look into it; a client that is shut out may not.
        team.kept.mkdir(mode=0o700)
        shutil.chown(team.kept, "postgres")
        # As Debian's package does it.
        rules = "--auth-local=peer --auth-host=scram-sha-256"
        options = f"-c listen_addresses=127.0.0.1 -c fsync=off -p {team.settings['PGPORT']} -k {folder}"
        team.shell(f"su postgres -c '{postgresql}/initdb --no-sync --pgdata={folder}/data {rules}'")
        control = f"{postgresql}/pg_ctl --pgdata={folder}/data --silent --wait"
        team.shell(f"""su postgres -c '{control} --log={folder}/log --options="{options}" start'""")
        try:
            team.shell(block("The database"))
            with team.serving():
                yield team
        finally:
            team.shell(f"su postgres -c '{control} --mode=immediate stop'")
    finally:
        shutil.rmtree(folder)
