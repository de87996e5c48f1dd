"""A pyfunc that does nothing: what it costs to serve it is MLflow's own cost."""

import gc
import os
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class NoOp(PythonModel):
    """Answers every row with the same record of one number, with as many digits as a radius has."""

    def load_context(self, context: PythonModelContext) -> None:
        """Spare the garbage collector as the model does, if asked to."""
        if os.environ.get("NO_OP_SPARES_GC"):
            gc.collect()
            gc.freeze()

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> list[dict[str, float]]:
        """Return one record a row."""
        return [{"radius": 0.123456789} for _ in range(len(model_input))]


set_model(NoOp())
