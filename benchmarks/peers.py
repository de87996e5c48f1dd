"""The same operations through what others made: pythae, gensim, and the combinatorial construction of De Sa et al.

Every peer runs on the same machine on one thread, and what it embeds is measured by the functions of `tvae.metrics`.
None of them was made for this task: the page that is written says what each is for, how it was set, and what may be
read into the figures. Prints the page and writes it to PEERS.md beside this file; `make bench-peers` installs the peers
and starts it. `python benchmarks/peers.py --help` lists the options.
"""

import argparse
import datetime
import itertools
import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Progress bars draw at every step, and cost more than the step does where nobody looks.
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from gensim.models.poincare import PoincareModel
from pythae.data.datasets import BaseDataset
from pythae.models import PoincareVAE, PoincareVAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.pvae.pvae_utils import PoincareBall
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from tvae import metrics, poincare, ternary
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve, resolve_foundation
from tvae.config.training import FOUNDATION
from tvae.errors import EvaluationError
from tvae.model import Embedding
from tvae.training import train
from tvae.training.start import from_foundation, from_scratch

PAGE_FILE = Path(__file__).resolve().parent / "PEERS.md"
# pythae weighs its KL divergence by 1 and takes observations to have a standard deviation of 1; both are fixed. Trits
# ten times as large are reproduced to a tenth of that, as they would be with a weight of 0.01, which is ours.
SCALE = 10.0
# The best of Adam's peak rates for our own foundation: pythae trains by Adam too.
PYTHAE_LR = 4e-3
# Larger than gensim's default of 10: an epoch takes two thirds of the time, and reaches as far.
GENSIM_BATCH = 50
MEASUREMENTS = 6
SEED = 0
MEASURED = f"{datetime.date.today().isoformat()}, load {os.getloadavg()[0]:.0f}"
NL = "\n"
# Lengths of an edge that are tried, and operations whose tree precision chooses between them.
TAUS = tuple(quarters / 4 for quarters in range(2, 17))
TAU_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: everything, or enough to see that it runs."""

    n_trits: int
    epochs: int
    patience: int
    closure_seconds: float
    edges_seconds: float


FULL = Size(n_trits=9, epochs=60, patience=10, closure_seconds=300.0, edges_seconds=60.0)
QUICK = Size(n_trits=5, epochs=3, patience=3, closure_seconds=2.0, edges_seconds=1.0)
RADII, DISTANCES = ("hierarchy", "level gap", "richness"), ("fidelity", "tree precision", "sibling recall")
COLUMNS = ("coverage", *RADII, *DISTANCES, "Q", "Q by levels")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. What a programme does not have is not among its figures."""

    what: str
    epochs: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def line(self) -> str:
        """Return the line of the Markdown table."""
        epochs = str(self.epochs) if self.epochs else "-"
        shown = [f"{self.figures[name]:.4f}" if name in self.figures else "-" for name in COLUMNS]
        return f"| {' | '.join([self.what, MEASURED, epochs, f'{self.seconds:,.2f}', *shown])} |"


def placed(
    embedding: Embedding,
    n_trits: int,
    *,
    curvature: float = 1.0,
    dtype: torch.dtype = torch.float32,
    moved: Embedding | None = None,
) -> dict[str, float]:
    """Measure where operations lie: distances of one embedding, and radii of an isometric one, if it has any."""
    by_level = metrics.tree_precision_by_level(embedding, n_trits=n_trits, curvature=curvature, dtype=dtype)
    fidelity = metrics.measure(embedding, n_trits=n_trits, curvature=curvature).distance_fidelity
    figures = {
        "fidelity": fidelity,
        "tree precision": float(np.mean(by_level)),
        "sibling recall": metrics.sibling_recall(embedding, n_trits=n_trits, curvature=curvature),
    }
    with suppress(EvaluationError):
        radii = metrics.measure(moved or embedding, n_trits=n_trits, curvature=curvature)
        weighed = 1.5 * abs(radii.hierarchy)
        figures |= {
            "hierarchy": radii.hierarchy,
            "level gap": radii.level_gap,
            "richness": radii.richness,
            "Q": fidelity + weighed,
            "Q by levels": fidelity_to_levels(embedding, n_trits, curvature) + weighed,
        }
    return figures


def fidelity_to_levels(embedding: Embedding, n_trits: int, curvature: float, *, of_radii: bool = False) -> float:
    """Return the correlation of |v(i) - v(j)| with hyperbolic distance, or with the difference of radii."""
    i, j, _ = metrics.sample_pairs(n_trits)
    radius, direction = poincare.radius(embedding.unit_norm, curvature=curvature), embedding.direction
    apart = poincare.distance(radius[i], direction[i], radius[j], direction[j], curvature=curvature)
    valuation = ternary.valuations(n_trits)
    apart = (radius[i] - radius[j]).abs() if of_radii else apart
    return float(spearmanr(apart.numpy(), np.abs(valuation[i] - valuation[j])).statistic)


def polar(points: Tensor) -> Embedding:
    """Return points of the ball of curvature 1 in polar form."""
    norm = points.norm(dim=-1)
    return Embedding(norm, points / norm.clamp_min(torch.finfo(norm.dtype).tiny)[:, None])


# Ours


def ours(size: Size) -> list[Row]:
    """Train a foundation, and on it the presets, as `scratch` does."""
    rows: list[Row] = []
    for preset in ("default", "rich", "radii"):
        architecture, configuration = resolve(preset, {"n_trits": size.n_trits, "seed": SEED})
        started = time.process_time()
        foundation = train(from_scratch(architecture, resolve_foundation(architecture, {"seed": SEED})))
        epochs, best = len(foundation.history) - 1, max(record["coverage"] for record in foundation.history)
        if not rows:
            rows.append(Row("tvae `train`", epochs, time.process_time() - started, {"coverage": best}))
        result = train(from_foundation(foundation, configuration))
        seconds = time.process_time() - started
        with torch.no_grad():
            latent = metrics.posterior_mean(result.model)
            coverage = float(metrics.reproduced(result.model, latent).double().mean())
            embedding = result.model.project(latent)
        figures = {"coverage": coverage, **placed(embedding, size.n_trits, curvature=architecture.curvature)}
        rows.append(Row(f"tvae `scratch`, preset `{preset}`", epochs + len(result.history) - 1, seconds, figures))
    return rows


# The combinatorial construction


def constructed(n_trits: int, dim: int, tau: float) -> Embedding:
    """Return the leaves of the 3-adic tree as De Sa et al. place them, in polar form about the root, float64.

    Every edge has the length tau, hyperbolic, at curvature 1. The four neighbours of a node lie in the directions of a
    code: in the disk a cross, beyond it a regular simplex, the best code of four words. All subtrees of a height are
    congruent, so the tree is built from the leaves up: a subtree is moved so that its parent becomes the origin, and is
    reflected from the direction away from its parent into those of the three children. In more dimensions than the code
    has, each generation has a plane of its own, as far as they go: that turn about the edge is our choice.

    Source:
        De Sa, Gu, Ré, Sala 2018, arXiv:1804.03329, the combinatorial construction, in 2 dimensions after Sarkar 2011.
    """
    code = torch.zeros(4, dim, dtype=torch.float64)
    if dim == 2:
        code[:] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    else:
        angle = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3)
        code[0, 0], code[1:, 0] = 1.0, -1 / 3
        code[1:, 1], code[1:, 2] = angle.cos() * math.sqrt(8 / 9), angle.sin() * math.sqrt(8 / 9)
    mirrors = nn.functional.normalize(code[0] + code[1:], dim=-1)
    edge = torch.tensor([math.tanh(tau / 2)], dtype=torch.float64)
    norm, direction = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dim, dtype=torch.float64)
    for _ in range(n_trits):
        if dim > 2:
            direction = torch.cat([direction[:, :1], direction[:, 1:].roll(2, 1)], 1)
        norm, direction = poincare.translate(norm, direction, edge, code[:1])
        # The child is the least significant digit of what the subtree counts: index i = child + 3·rest.
        direction = (direction[:, None] - 2 * (direction @ mirrors.T)[..., None] * mirrors).flatten(0, 1)
        norm = norm.repeat_interleave(3)
    return Embedding(norm, direction)


def combinatorial(size: Size) -> list[Row]:
    """Construct the tree in the disk and in our dimension, each in two precisions."""
    wide = Architecture().latent_dim
    return [_combinatorial(size.n_trits, dim, dtype) for dim in (2, wide) for dtype in (torch.float64, torch.float32)]


def _combinatorial(n_trits: int, dim: int, dtype: torch.dtype) -> Row:
    """Take the shortest edge whose tree is read best, of those that the precision has room for."""

    def score(tau: float) -> float:
        shares = metrics.tree_precision_by_level(
            trees[tau], n_trits=n_trits, curvature=1.0, sample=TAU_SAMPLE, dtype=dtype
        )
        return float(np.mean(shares))

    # Those whose leaves the precision keeps off the boundary.
    trees = {
        tau: tree
        for tau in TAUS
        if float((tree := Embedding(*(x.to(dtype) for x in constructed(n_trits, dim, tau)))).unit_norm.max()) < 1
    }
    tau = max(trees, key=score)
    started = time.process_time()
    constructed(n_trits, dim, tau)
    seconds, embedding = time.process_time() - started, trees[tau]
    moved = Embedding(*poincare.translate(*embedding, embedding.unit_norm[:1], embedding.direction[:1]))
    lost, radii = int((moved.unit_norm >= 1).sum()), len(torch.unique(moved.unit_norm))
    what = f"De Sa et al. in {dim} dimensions, {str(dtype).removeprefix('torch.')}"
    fate = f"{lost:,} are, and have no radius" if lost else f"they have {radii:,} distinct radii"
    note = (
        f"{what}: tau = {tau:g}; the longest whose leaves are not rounded to the boundary is {max(trees):g}. Moved to "
        f"operation 0, {fate}."
    )
    return Row(what, 0, seconds, placed(embedding, n_trits, dtype=dtype, moved=moved), note)


# pythae


class Encoder(BaseEncoder):
    """Layers of our sizes that map their mean into the ball: pythae's own do not."""

    def __init__(self, architecture: Architecture, scale: float) -> None:
        super().__init__()
        self.latent_dim, self.scale, last = architecture.latent_dim, scale, architecture.encoder_hidden[-1]
        self.layers = _stack(architecture.n_trits, *architecture.encoder_hidden)
        self.mean, self.log_variance = nn.Linear(last, self.latent_dim), nn.Linear(last, self.latent_dim)
        self.ball = PoincareBall(dim=self.latent_dim, c=1.0)

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = self.layers(x / self.scale)
        return ModelOutput(embedding=self.ball.expmap0(self.mean(hidden)), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    """Layers of our sizes, and trits in the size that pythae's loss is given them in."""

    def __init__(self, architecture: Architecture, scale: float) -> None:
        super().__init__()
        self.layers, self.scale = _stack(architecture.latent_dim, *architecture.decoder_hidden), scale
        self.out = nn.Linear(architecture.decoder_hidden[-1], architecture.n_trits)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.out(self.layers(z)) * self.scale)


def _stack(*sizes: int) -> nn.Sequential:
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain.from_iterable(layers))


class _Enough(Exception):
    """Coverage has stopped improving."""


class _Watch(TrainingCallback):
    """Times the epochs of pythae's Trainer, measures coverage between them, keeps the best, and stops in time."""

    def __init__(self, model: PoincareVAE, data: Tensor, scale: float, patience: int) -> None:
        self.model, self.data, self.scale, self.patience = model, data, scale, patience
        self.seconds: list[float] = []
        self.coverage, self.improved, self.latent = -1.0, 0, torch.empty(0)

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.started)
        self.model.eval()
        with torch.no_grad():
            latent = self.model.encoder(self.data).embedding
            back = (self.model.decoder(latent).reconstruction / self.scale).round().clamp(-1, 1)
        coverage = float((back == self.data / self.scale).all(1).double().mean())
        if coverage > self.coverage:
            self.improved = len(self.seconds)
        # Of epochs with equal coverage the last counts: the place of the points has been learned for longer.
        if coverage >= self.coverage:
            self.coverage, self.latent = coverage, latent
        if len(self.seconds) - self.improved >= self.patience:
            raise _Enough


def pythae(what: str, size: Size, scale: float, **settings: float) -> Row:
    """Train a PoincareVAE by pythae's own Trainer until its coverage stops improving."""
    architecture, data = Architecture(n_trits=size.n_trits), metrics.trit_table(size.n_trits) * scale
    configuration = PoincareVAEConfig(
        input_dim=(size.n_trits,), latent_dim=architecture.latent_dim, reconstruction_loss="mse"
    )
    torch.manual_seed(SEED)
    model = PoincareVAE(configuration, encoder=Encoder(architecture, scale), decoder=Decoder(architecture, scale))
    watch = _Watch(model, data, scale, size.patience)
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=size.epochs,
            per_device_train_batch_size=FOUNDATION.batch_size,
            seed=SEED,
            no_cuda=True,
            **settings,
        )
        trainer = BaseTrainer(
            model, BaseDataset(data, torch.zeros(len(data))), training_config=training, callbacks=[watch]
        )
        with suppress(_Enough):
            trainer.train()
    figures = {"coverage": watch.coverage, **placed(polar(watch.latent.double()), size.n_trits)}
    first = f"{what}: best coverage first at epoch {watch.improved}."
    return Row(what, len(watch.seconds), sum(watch.seconds), figures, first)


def all_of_pythae(size: Size) -> list[Row]:
    """Train it as its defaults have it, and as it does best here."""
    name = "pythae `PoincareVAE`"
    return [
        pythae(f"{name}, defaults", size, 1.0),
        pythae(f"{name}, set for this", size, SCALE, learning_rate=PYTHAE_LR),
    ]


# gensim


def tree(n_trits: int, closure: bool) -> list[tuple[str, str]]:
    """Return the relations of the 3-adic tree: a ball r + 3^k·Z, named `k:r`, to those it lies in, one or all.

    The operations are its leaves, k = n_trits.
    """
    return [
        (f"{k}:{r}", f"{above}:{r % 3**above}")
        for k in range(1, n_trits + 1)
        for r in range(3**k)
        for above in (range(k) if closure else (k - 1,))
    ]


def gensim(what: str, n_trits: int, limit: float, *, closure: bool) -> Row:
    """Train a PoincareModel for a given time, and take each figure where it was best."""
    relations = tree(n_trits, closure)
    model = PoincareModel(relations, size=Architecture().latent_dim, seed=SEED)
    leaves = [f"{n_trits}:{r}" for r in range(3**n_trits)]
    seconds, epochs, seen = 0.0, 0, []
    # Its matrices are so small that threads of BLAS cost it time.
    with threadpool_limits(1, user_api="blas"):
        while seconds < limit:
            started = time.process_time()
            model.train(epochs=1, batch_size=GENSIM_BATCH, print_every=10**9)
            seconds += time.process_time() - started
            epochs += 1 if epochs else 1 + model.burn_in
            if seconds >= limit * (len(seen) + 1) / MEASUREMENTS:
                seen.append(placed(polar(torch.from_numpy(model.kv.vectors_for_all(leaves).vectors)), n_trits))
    nodes = model.kv.index_to_key
    depth_order = spearmanr([int(name.split(":")[0]) for name in nodes], np.linalg.norm(model.kv.vectors, axis=1))
    best = {name: max(one[name] for one in seen) for name in DISTANCES}
    course = ", ".join(f"{one['fidelity']:.3f} and {one['tree precision']:.3f}" for one in seen)
    return Row(
        what,
        epochs,
        seconds,
        best,
        note=f"{what}: {len(relations):,} relations, {model.burn_in} of the epochs are burn-in; fidelity and tree "
        f"precision on the way: {course}. What it is made for: depth and norm have a rank correlation of "
        f"{depth_order.statistic:+.3f} over all {len(nodes):,} nodes of the tree.",
    )


def all_of_gensim(size: Size) -> list[Row]:
    """Train on every relation of the tree, as its paper does, and on the edges alone."""
    name = "gensim `PoincareModel`"
    return [
        gensim(f"{name}, all ancestors", size.n_trits, size.closure_seconds, closure=True),
        gensim(f"{name}, parents only", size.n_trits, size.edges_seconds, closure=False),
    ]


# The page

PROGRAMMES = {"tvae": ours, "De Sa et al.": combinatorial, "pythae": all_of_pythae, "gensim": all_of_gensim}


def page(lines: Sequence[str], notes: Sequence[str], size: Size) -> str:
    """Return what is written to PEERS.md."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("tvae", "torch", "numpy", "pythae", "gensim"))
    dim = Architecture().latent_dim
    tree = constructed(size.n_trits, dim, 1.0)
    moved = Embedding(*poincare.translate(*tree, tree.unit_norm[:1], tree.direction[:1]))
    hierarchy = metrics.measure(moved, n_trits=size.n_trits, curvature=1.0).hierarchy
    by_radii = fidelity_to_levels(moved, size.n_trits, 1.0, of_radii=True) + 1.5 * abs(hierarchy)
    table = [f"| | measured | epochs | s | {' | '.join(COLUMNS)} |"]
    table += [f"| --- | --- |{' ---: |' * (len(COLUMNS) + 2)}", *lines]
    return f"""# The same operations through other programmes

Written by `make bench-peers`, on {os.cpu_count()} processors, {versions}.
Rows have the day and the load average that they were measured at. Seconds are processor time of one thread, which grows
too where others use the machine: compare rows of like load alone.

{NL.join(table)}

All {3**size.n_trits:,} operations, seed {SEED}, one run each. A dash: a programme has no such thing, or it was not
measured. Hierarchy is right at {metrics.hierarchy_ceiling(size.n_trits):.5f}: below it, radii are equal.
Fidelity is right at {metrics.distance_fidelity_ceiling(size.n_trits):.5f}, coverage, tree precision and recall at 1.
Where level gap is below 0, levels overlap. `tvae.metrics` defines them, and its functions measured every row.

Q is fidelity + 1.5·|hierarchy|. The programme that tvae grew from has a Q too, but another one: in the place of
fidelity it has the correlation of a distance with |v(i) - v(j)|, which says how far apart two levels are and nothing of
the tree. Two operations of one level are at 0 there, however far they are 3-adically. The last column takes hyperbolic
distance for it, over our pairs. With the difference of radii instead the construction in {dim} dimensions, tau = 1,
moved to operation 0, has {by_radii:.3f}. Figures published for that programme, 1.96 to 2.09, lie near the second; which
of the two it computed is not settled here. Neither can be set beside our Q.

## What each was made for

- **tvae** was made for this one task. Its losses are told the 3-adic valuation and distance of every operation.
- **De Sa et al.** (2018, arXiv:1804.03329) place a given tree by a formula: Sarkar's construction in the disk, and one
  with the neighbours of a node at the words of a code in more dimensions. Every edge has one length, tau. Nothing is
  learned, and in {dim} dimensions nothing is left to learn of the tree: **who wants only the
  places of these operations needs no network.** The result is a table. Learning gives what a table has not: an encoder
  that computes a place from trits, also for operations that were held out; a latent, and a decoder that reads trits
  from it; and richness: all leaves have one depth, so each level has one radius. In the disk four directions need a
  long edge. float32 runs out of digits before the tree is there; float64 holds it, but not moved to operation 0.
- **pythae**'s `PoincareVAE` (Mathieu et al. 2019, arXiv:1901.06033) gives room to a hierarchy that is in the data, and
  is told nothing of 3-adic structure. Here all operations are equally likely and none is above another, so a hierarchy
  of about 0 is what it should give.
- **gensim**'s `PoincareModel` (Nickel and Kiela 2017, arXiv:1705.08039) embeds the nodes of a graph so that related
  ones are near and general ones are central. It is given the 3-adic tree itself, balls as inner nodes and operations as
  leaves. It sees no trits, and cannot embed what it was not trained on. It asks that a node be nearer to its ancestors
  than to nodes that are not, and nothing of the distances between leaves, which are what the table measures.

## How they were set

- **tvae**: as `scratch` runs it: a foundation, then the preset. Time includes the metrics of every epoch.
- **De Sa et al.**: constructed in float64 in polar form about the root, from the leaves up, by
  `tvae.poincare.translate`; stored in the precision of the row, as unit norm and direction. tau is the shortest of
  {TAUS[0]:g} … {TAUS[-1]:g} (steps of a quarter, hyperbolic length at curvature 1) with the highest tree precision over
  {TAU_SAMPLE} operations: a longer edge orders distances better and costs digits, since angles between leaves are of
  the order of exp(-{size.n_trits}·tau). Beyond the disk the code is a regular simplex, and each generation is turned
  into a plane of its own as far as they go, which is our choice. Time is that of one construction, without choosing
  tau. Distances are taken as stored; hierarchy, level gap and richness after moving operation 0 to the centre.
- **pythae**: encoder and decoder of our sizes in its `BaseEncoder` and `BaseDecoder`; its `BaseTrainer` with Adam, its
  default, batches of {FOUNDATION.batch_size}; until coverage has not improved for {size.patience} epochs, {size.epochs}
  at most. Of epochs with equal coverage the last counts. Time is that of its Trainer, without our measurements.
  *Defaults*: squared error on the trits, learning rate {BaseTrainerConfig().learning_rate:g}. The divergence from the
  prior, weighed by 1, then costs more than trits are worth, and the optimum of that loss encodes nothing. *Set for
  this*: learning rate {PYTHAE_LR:g}, and trits times {SCALE:g}, which does what a weight of {SCALE**-2:g} would. The
  encoder maps its mean into the ball by pythae's `expmap0`; pythae's default encoder does not.
- **gensim**: dimension {dim}, batches of {GENSIM_BATCH}, otherwise its defaults: learning rate
  0.1, 10 burn-in epochs, 10 negative samples, float64, one thread, which is all it can use. *All ancestors* is the
  transitive closure, which its paper trains on; *parents only* are the edges of the tree. It is given
  {size.closure_seconds:.0f} s and {size.edges_seconds:.0f} s, and measured {MEASUREMENTS} times on the way; each figure
  is its best.

{NL.join(notes)}
"""


def main() -> None:
    """Run what is asked for, print the page, and write PEERS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3^5 operations and few epochs, to see that it runs")
    parser.add_argument("--only", nargs="*", choices=PROGRAMMES, help="the rest keeps the rows that PEERS.md has of it")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    torch.set_num_threads(1)
    # Both libraries tell their progress to the console as they go.
    logging.disable(logging.INFO)
    before = PAGE_FILE.read_text(encoding="utf-8").splitlines()
    lines: list[str] = []
    notes: list[str] = []
    for name, measure in PROGRAMMES.items():
        if asked.only is not None and name not in asked.only:
            lines += [line for line in before if line.startswith(f"| {name} ")]
            notes += [line for line in before if line.startswith(f"- {name} ")]
        else:
            started = time.perf_counter()
            rows = measure(size)
            lines += [row.line() for row in rows]
            notes += [f"- {row.note}" for row in rows if row.note]
            print(f"{name}: {time.perf_counter() - started:.0f} s, measurements included", flush=True)
    text = page(lines, notes, size)
    print(f"\n{text}")
    if not asked.quick:
        PAGE_FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
