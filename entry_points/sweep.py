"""`python -m entry_points.sweep`."""

from tvae.cli.sweep import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
