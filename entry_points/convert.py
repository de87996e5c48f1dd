"""`python -m entry_points.convert`."""

from tvae.cli.convert import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
