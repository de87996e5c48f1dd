"""`python -m entry_points.stability`."""

from tvae.cli.stability import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
