"""The commands: `python -m entry_points.NAME`, each a thin click command over `tvae`."""
