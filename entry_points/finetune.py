"""`python -m entry_points.finetune`."""

from tvae.cli.finetune import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
