"""The only room that logs to MLflow: stores and experiments, runs, their descriptions, links into the UI."""
