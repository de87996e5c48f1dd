"""Whole trainings, from settings to what they leave in MLflow."""
