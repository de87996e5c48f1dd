"""Commands as a user types them, each test at a desk of its own."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parent.parent


class Desk:
    """A folder of its own, in which commands are typed; with a tracking store of its own, unless another is named."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.folder = folder
        # Not make's either: by it a command tells how it was started.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") and k != "MAKELEVEL"}
        self.environment = ours | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.uri = uri or f"sqlite:///{folder}/mlflow.db"
        if uri:
            self.environment["MLFLOW_TRACKING_URI"] = uri
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return self.launch(sys.executable, "-m", *words, **environment)

    def launch(self, *words: str, apart: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Start a program, in a process group of its own if it is to be apart."""
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=apart,
        )
        self.started.append(process)
        return process

    def leave(self) -> None:
        """End what is still at work."""
        for process in self.started:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def type(self, *words: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self, experiment: str = "tvae") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def artifact(self, run: Run, path: str) -> Path:
        mlflow.set_tracking_uri(self.uri)
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{path}", tracking_uri=self.uri))
