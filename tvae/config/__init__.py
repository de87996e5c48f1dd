"""What a user may set: no torch here, so that `--help` answers from it."""
