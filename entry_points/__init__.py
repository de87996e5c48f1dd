"""What MLproject runs: `python -m entry_points.NAME`, each a command of `tvae.cli`."""
