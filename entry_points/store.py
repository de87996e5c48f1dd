"""Store: make the tracking store ready. For make: under `mlflow run` MLflow opens it before any command starts."""

from entry_points.console import command


@command
def main() -> None:
    """Create the tracking store, unless it is there: once, before several `mlflow run` begin in it at the same time.

    MLflow's own creation does not bear two at once. Commands that are started by themselves or by make wait for one
    another and need no such step.
    """
    from tvae.tracking.store import connect

    connect()


if __name__ == "__main__":
    main()
