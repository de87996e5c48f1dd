"""What the embedding tells of gates: simple classifiers of properties, from trits and from the ball.

Prints the tables of docs/gates.md. Without a checkpoint a model of the default preset is trained first.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tvae
from tvae import gates, ternary

DRAWS = 10
TRITS = ternary.operations()
PROPERTIES = {
    "commutative": gates.commutative(TRITS),
    "monotone": gates.monotone(TRITS),
    "associative": gates.associative(TRITS),
    "first line + 0 −": (TRITS[:, :3] == (1, 0, -1)).all(1),
    "last line + 0 −": (TRITS[:, 6:] == (1, 0, -1)).all(1),
}
SPACES = ("trits", "ball", "tangent", "ball, hyperbolic distance")
PROBES = ("5 neighbours", "logistic regression")


def spaces(book: tvae.Codebook) -> dict[str, npt.NDArray[Any]]:
    """Return what a probe is given of each operation, by the name of the space."""
    return {
        "trits": TRITS.astype(np.float64),
        "ball": book.points.double().numpy(),
        "tangent": tvae.TernaryEmbedding(book, space="tangent").fit_transform(TRITS),
        "ball, hyperbolic distance": np.arange(len(TRITS)),
    }


def accuracy(
    given: npt.NDArray[Any], has: npt.NDArray[np.bool_], probe: str, book: tvae.Codebook | None = None
) -> tuple[float, float]:
    """Return the accuracy of a probe, and its standard error over draws.

    All gates that have the property are classified among as many that have not, drawn again each time, in five folds:
    0.5 is guessing.

    Args:
        given: a row an operation; with a codebook their indices.
        has: which operations have the property.
        probe: one of `PROBES`.
        book: measure hyperbolic distances.
    """
    scores = []
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        without = random.choice(np.flatnonzero(~has), int(has.sum()), replace=False)
        rows = np.concatenate([np.flatnonzero(has), without])
        x = given[rows] if book is None else tvae.distance(given[rows], given[rows], book, matrix=True)
        metric = "euclidean" if book is None else "precomputed"
        model = (
            KNeighborsClassifier(5, metric=metric)
            if probe == "5 neighbours"
            else make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        )
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        scores.append(cross_val_score(model, x, has[rows], cv=folds).mean())
    return float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(DRAWS))


def table(book: tvae.Codebook, show: Callable[[str], object] = print) -> dict[tuple[str, str, str], float]:
    """Show accuracies as a Markdown table, and return them by property, probe and space."""
    found = dict[tuple[str, str, str], float]()
    show(f"| property | probe | {' | '.join(SPACES)} |")
    show("| --- " * (2 + len(SPACES)) + "|")
    given = spaces(book)
    for name, has in PROPERTIES.items():
        for probe in PROBES:
            cells = []
            for space in SPACES:
                hyperbolic = space.endswith("distance")
                if hyperbolic and probe != "5 neighbours":
                    cells.append("–")
                    continue
                mean, error = accuracy(given[space], has, probe, book if hyperbolic else None)
                found[name, probe, space] = mean
                cells.append(f"{mean:.2f} ± {error:.2f}")
            show(f"| {name} ({has.sum()}) | {probe} | {' | '.join(cells)} |")
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", help="a path, or an address of MLflow")
    checkpoint = parser.parse_args().checkpoint
    table(tvae.codebook(tvae.load(checkpoint) if checkpoint else tvae.train().model))


if __name__ == "__main__":
    main()
