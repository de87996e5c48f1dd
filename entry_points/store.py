"""`python -m entry_points.store`."""

from tvae.cli.store import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
