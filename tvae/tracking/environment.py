"""Variables of the environment, before MLflow reads them."""

import os

__all__ = ["drop_blank"]


def drop_blank() -> None:
    """Unset the variables of MLflow that are empty: it would look for a run or an experiment without a name."""
    for name in [name for name, value in os.environ.items() if name.startswith("MLFLOW_") and not value.strip()]:
        del os.environ[name]
