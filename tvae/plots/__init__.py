"""Pictures of a training and of an embedding."""
