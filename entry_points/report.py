"""`python -m entry_points.report`."""

from tvae.cli.report import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
