"""`python -m entry_points.train`."""

from tvae.cli.train import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
