"""`python -m entry_points.verify`."""

from tvae.cli.verify import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
