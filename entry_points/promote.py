"""`python -m entry_points.promote`."""

from tvae.cli.promote import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
