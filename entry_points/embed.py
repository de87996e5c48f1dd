"""`python -m entry_points.embed`."""

from tvae.cli.embed import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
