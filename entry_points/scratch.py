"""`python -m entry_points.scratch`."""

from tvae.cli.scratch import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
