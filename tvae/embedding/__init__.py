"""What one does with a model: its points, their neighbours, tables of them, scikit-learn."""
