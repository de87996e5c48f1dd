"""The same operations through programmes that others made: pythae's VAE and PoincareVAE, gensim's PoincareModel.

Every peer runs on the same machine with the same number of threads, and what it embeds is measured by the functions of
`tvae.metrics`. None of them was made for this task: the page that is written says what each is for, how it was set, and
what may be read into the figures. Prints the page and writes it to PEERS.md beside this file; `make bench-peers`
installs the peers and starts it. `python benchmarks/peers.py --help` lists the options.
"""

import argparse
import itertools
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Progress bars draw at every step, and cost more than the step does where nobody looks.
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from gensim.models.poincare import PoincareModel
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, BetaVAE, BetaVAEConfig, PoincareVAE, PoincareVAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.pvae.pvae_utils import PoincareBall
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tvae.experiments.foundations import foundation_configuration

import tvae
from tvae import metrics
from tvae.architecture import Architecture
from tvae.configuration import FINETUNE, FOUNDATION
from tvae.experiments.presets import PRESETS, resolve
from tvae.experiments.start import from_foundation, from_scratch
from tvae.model import Embedding
from tvae.training import Result, train

HERE = Path(__file__).resolve().parent
BATCH = FOUNDATION.batch_size
# pythae weighs its KL divergence by 1 and takes observations to have a standard deviation of 1; both are fixed. Trits
# ten times as large are reproduced to a tenth of that, as they would be with a weight of 0.01, which is ours.
SCALE = 10.0
# Larger than gensim's default of 10: an epoch takes two thirds of the time, and reaches as far.
GENSIM_BATCH = 50
MEASUREMENTS = 6
SEED = 0


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


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. What a programme does not have is None."""

    what: str
    epochs: int
    seconds: float
    coverage: float | None = None
    hierarchy: float | None = None
    fidelity: float | None = None
    tree_precision: float | None = None
    siblings: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """Return what stands in the table."""
        shown = [self.coverage, self.hierarchy, self.fidelity, self.tree_precision, self.siblings]
        return [
            self.what,
            str(self.epochs),
            f"{self.seconds / self.epochs * 1e3:,.0f}",
            f"{self.seconds:,.1f}",
            *("-" if value is None else f"{value:.4f}" for value in shown),
        ]


def placed(points: Tensor, n_trits: int) -> dict[str, float]:
    """Measure points of the ball of curvature 1 as a model of ours is measured."""
    norm = points.norm(dim=-1)
    embedding = Embedding(norm, points / norm.clamp_min(torch.finfo(norm.dtype).tiny)[:, None])
    measured = metrics.measure(embedding, n_trits=n_trits, curvature=1.0)
    by_level = metrics.tree_precision_by_level(embedding, n_trits=n_trits, curvature=1.0)
    return {
        "hierarchy": measured.hierarchy,
        "fidelity": measured.distance_fidelity,
        "tree_precision": float(np.mean(by_level)),
        "siblings": metrics.sibling_recall(embedding, n_trits=n_trits, curvature=1.0),
    }


# Ours


def ours(size: Size) -> list[Row]:
    """Train a foundation, and on it the presets that `finetune` has."""
    rows = []
    for preset in ("default", "exact_tree"):
        if preset not in PRESETS:
            continue
        architecture, configuration = resolve(preset, {"n_trits": size.n_trits, "seed": SEED}, base=FINETUNE)
        foundation = train(from_scratch(architecture, foundation_configuration(architecture, SEED)))
        if not rows:
            rows.append(_foundation("tvae `train`", foundation))
        rows.append(_finetuned(f"tvae `scratch`, preset `{preset}`", foundation, configuration))
    return rows


def _foundation(what: str, foundation: Result) -> Row:
    coverages = [record["coverage"] for record in foundation.history]
    first, epochs = coverages.index(max(coverages)), len(coverages) - 1
    return Row(
        what,
        epochs,
        foundation.seconds,
        max(coverages),
        note=f"{what}: best coverage first at epoch {first}, after {foundation.seconds * first / epochs:,.1f} s.",
    )


def _finetuned(what: str, foundation: Result, configuration: Any) -> Row:
    result = train(from_foundation(foundation, configuration))
    seen = metrics.evaluate(result.model)
    return Row(
        what,
        len(foundation.history) + len(result.history) - 2,
        foundation.seconds + result.seconds,
        seen.coverage,
        seen.hierarchy,
        seen.distance_fidelity,
        seen.tree_precision,
        seen.sibling_recall,
    )


# pythae


class Encoder(BaseEncoder):
    """Layers of our sizes. Where the latent is a ball, they map their mean into it: pythae does not."""

    def __init__(self, architecture: Architecture, to_trits: Callable[[Tensor], Tensor], in_ball: bool) -> None:
        super().__init__()
        self.latent_dim, self.to_trits = architecture.latent_dim, to_trits
        self.layers = _stack(architecture.n_trits, *architecture.encoder_hidden)
        last = architecture.encoder_hidden[-1]
        self.mean, self.log_variance = nn.Linear(last, self.latent_dim), nn.Linear(last, self.latent_dim)
        self.ball = PoincareBall(dim=self.latent_dim, c=1.0) if in_ball else None

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = self.layers(self.to_trits(x))
        mean = self.mean(hidden)
        return ModelOutput(
            embedding=mean if self.ball is None else self.ball.expmap0(mean),
            log_covariance=self.log_variance(hidden),
        )


class Decoder(BaseDecoder):
    """Layers of our sizes, and an output in the form that pythae's loss takes."""

    def __init__(self, architecture: Architecture, outputs: int, to_data: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = _stack(architecture.latent_dim, *architecture.decoder_hidden)
        self.out, self.to_data = nn.Linear(architecture.decoder_hidden[-1], outputs), to_data

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.to_data(self.out(self.layers(z))))


def _stack(*sizes: int) -> nn.Sequential:
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain.from_iterable(layers))


@dataclass(frozen=True)
class Form:
    """How trits are handed to pythae, and how they are read off what it reconstructs."""

    loss: str
    outputs: int
    data: Tensor
    to_trits: Callable[[Tensor], Tensor]
    to_data: Callable[[Tensor], Tensor]
    classes: Callable[[Tensor], Tensor]


def numbers(n_trits: int, scale: float) -> Form:
    """Trits as numbers, `scale` times their size, with pythae's squared error."""
    return Form(
        loss="mse",
        outputs=n_trits,
        data=metrics.trit_table(n_trits) * scale,
        to_trits=lambda x: x / scale,
        to_data=lambda out: out * scale,
        classes=lambda data: (data / scale).round().clamp(-1, 1).long() + 1,
    )


def one_hot(n_trits: int) -> Form:
    """Trits as three numbers of which one is 1, with pythae's binary cross-entropy: the nearest it has to ours."""
    values = torch.tensor([-1.0, 0.0, 1.0])
    return Form(
        loss="bce",
        outputs=3 * n_trits,
        data=nn.functional.one_hot(metrics.targets(n_trits), 3).flatten(1).float(),
        to_trits=lambda x: x.unflatten(-1, (n_trits, 3)) @ values,
        to_data=lambda out: out.unflatten(-1, (n_trits, 3)).softmax(-1).flatten(1),
        classes=lambda data: data.unflatten(-1, (n_trits, 3)).argmax(-1),
    )


class _Enough(Exception):
    """Coverage has stopped improving."""


class _Watch(TrainingCallback):
    """Times the epochs of pythae's Trainer, measures coverage between them, keeps the best, and stops in time."""

    def __init__(self, model: VAE, form: Form, n_trits: int, size: Size) -> None:
        self.model, self.form, self.target, self.size = model, form, metrics.targets(n_trits), size
        self.milliseconds: list[float] = []
        self.coverage, self.improved, self.latent = -1.0, 0, torch.empty(0)

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.milliseconds.append((time.perf_counter() - self.started) * 1e3)
        self.model.eval()
        with torch.no_grad():
            latent = self.model.encoder(self.form.data).embedding
            back = self.form.classes(self.model.decoder(latent).reconstruction)
        coverage = float((back == self.target).all(1).double().mean())
        if coverage > self.coverage:
            self.improved = len(self.milliseconds)
        # Of epochs with equal coverage the last counts: the place of the points has been learned for longer.
        if coverage >= self.coverage:
            self.coverage, self.latent = coverage, latent
        if len(self.milliseconds) - self.improved >= self.size.patience:
            raise _Enough


def pythae(
    what: str, kind: type[VAE], form: Form, size: Size, *, lr: float | None = None, beta: float | None = None
) -> Row:
    """Train one of pythae's models by its own Trainer until its coverage stops improving."""
    configurations = {VAE: VAEConfig, BetaVAE: BetaVAEConfig, PoincareVAE: PoincareVAEConfig}
    architecture, in_ball = Architecture(n_trits=size.n_trits), kind is PoincareVAE
    configuration = configurations[kind](
        input_dim=(form.data.shape[1],),
        latent_dim=architecture.latent_dim,
        reconstruction_loss=form.loss,
        **({} if beta is None else {"beta": beta}),
    )
    torch.manual_seed(SEED)
    model = kind(
        configuration,
        encoder=Encoder(architecture, form.to_trits, in_ball),
        decoder=Decoder(architecture, form.outputs, form.to_data),
    )
    watch = _Watch(model, form, size.n_trits, size)
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=size.epochs,
            per_device_train_batch_size=BATCH,
            seed=SEED,
            no_cuda=True,
            **({} if lr is None else {"learning_rate": lr}),
        )
        data = BaseDataset(form.data, torch.zeros(len(form.data)))
        trainer = BaseTrainer(model, data, training_config=settings, callbacks=[watch])
        with suppress(_Enough):
            trainer.train()
        started = time.perf_counter()
        for _ in trainer.train_loader:
            pass
        loading = (time.perf_counter() - started) * 1e3
    row = Row(
        what,
        len(watch.milliseconds),
        sum(watch.milliseconds) / 1e3,
        watch.coverage,
        note=f"{what}: best coverage first at epoch {watch.improved}, after "
        f"{sum(watch.milliseconds[: watch.improved]) / 1e3:,.1f} s; its data loader alone takes {loading:,.0f} ms an "
        "epoch.",
    )
    return replace(row, **placed(watch.latent.double(), size.n_trits)) if in_ball else row


def all_of_pythae(size: Size) -> list[Row]:
    """Train each as its defaults have it, and as it does best here."""
    plain, larger, peak = numbers(size.n_trits, 1.0), numbers(size.n_trits, SCALE), FOUNDATION.lr
    return [
        pythae("pythae `VAE`, defaults", VAE, plain, size),
        pythae("pythae `VAE`, set for this", VAE, larger, size, lr=peak),
        pythae("pythae `BetaVAE`, set for this", BetaVAE, one_hot(size.n_trits), size, lr=peak, beta=FOUNDATION.beta),
        pythae("pythae `PoincareVAE`, defaults", PoincareVAE, plain, size),
        pythae("pythae `PoincareVAE`, set for this", PoincareVAE, larger, size, lr=peak),
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
            started = time.perf_counter()
            model.train(epochs=1, batch_size=GENSIM_BATCH, print_every=10**9)
            seconds += time.perf_counter() - started
            epochs += 1 if epochs else 1 + model.burn_in
            if seconds >= limit * (len(seen) + 1) / MEASUREMENTS:
                seen.append(placed(torch.from_numpy(model.kv.vectors_for_all(leaves).vectors), n_trits))
    nodes = model.kv.index_to_key
    depth_order = spearmanr([int(name.split(":")[0]) for name in nodes], np.linalg.norm(model.kv.vectors, axis=1))
    best = {name: max(one[name] for one in seen) for name in ("fidelity", "tree_precision", "siblings")}
    course = ", ".join(f"{one['fidelity']:.3f} and {one['tree_precision']:.3f}" for one in seen)
    return Row(
        what,
        epochs,
        seconds,
        **best,
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

PAGE = """# The same operations through other programmes

Written by `{command}`. {machine} Load average before the start: {load:.1f}.
Versions: {versions}.

{table}

All {operations:,} operations, seed {seed}, {threads} of torch, batches of {batch}. One run each: differences of a few
hundredths between peers mean nothing. A dash stands where a programme has no such thing: a latent that is no ball has
no radius, and gensim has no decoder. Hierarchy is right at {ceiling:.5f}, the others at 1, but for fidelity, whose
limit is the same without the sign. `tvae/metrics.py` defines them, and its functions measured every row.

## What each was made for

- **tvae** was made for this one task. Its losses are told the 3-adic valuation and distance of every operation.
- **pythae** puts many autoencoders behind one interface, for images above all, and is told nothing of 3-adic structure.
  `PoincareVAE` (Mathieu et al. 2019, arXiv:1901.06033) gives room to a hierarchy that is in the data. Here all
  operations are equally likely and none is above another, so a hierarchy of about 0 is what it should give: a ball
  alone does not order operations by valuation. Its epochs are to be compared with those of `tvae train`, which does the
  same work; the rest of ours learns the places in the ball.
- **gensim**'s `PoincareModel` (Nickel and Kiela 2017, arXiv:1705.08039) embeds the nodes of a graph so that related
  ones are near and general ones are central. It is given the 3-adic tree itself, balls as inner nodes and operations as
  leaves. It sees no trits, and cannot embed what it was not trained on. It asks that a node be nearer to its ancestors
  than to nodes that are not, and nothing of the distances between leaves, which are what the table measures. All leaves
  have one depth, so it is not asked for hierarchy in our sense.

## How they were set

- **tvae**: as `scratch` runs it: a foundation, then the preset. Time includes the metrics of every epoch. `exact_tree`
  takes batches of {tree_batch:,}, two subtrees.
- **pythae**: encoder and decoder of our sizes in its `BaseEncoder` and `BaseDecoder`; its `BaseTrainer` with Adam, its
  default; until coverage has not improved for {patience} epochs, {epochs} at most. Of epochs with equal coverage the
  last counts. Time is that of its Trainer, without our measurements between its epochs. *Defaults*: squared error on
  the trits, learning rate {default_lr:g}. The divergence from the prior, weighed by 1, then costs more than trits are
  worth, and the optimum of that loss encodes nothing. *Set for this*: learning rate {lr:g}, the peak of ours, and trits
  times {scale:g}, which does what a weight of {weight:g} would: only `BetaVAE` has a parameter for it. There, binary
  cross-entropy over one-hot trits after a softmax, the nearest that pythae has to our loss, and beta {beta:g}. The
  encoder maps its mean into the ball by pythae's `expmap0`; pythae's default encoder does not.
- **gensim**: dimension {dimension}, batches of {gensim_batch}, otherwise its defaults: learning rate 0.1, 10 burn-in
  epochs, 10 negative samples, float64, one thread, which is all it can use. *All ancestors* is the transitive closure,
  which its paper trains on; *parents only* are the edges of the tree. It is given time rather than epochs,
  {closure_seconds:.0f} s and {edges_seconds:.0f} s, and measured {measurements} times on the way; each figure is its
  best.

{notes}
"""


def machine() -> str:
    """Describe the machine in a sentence."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}."


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table."""
    head = "| | epochs | ms an epoch | s | coverage | hierarchy | fidelity | tree precision | sibling recall |"
    return "\n".join(
        [head, f"| --- |{' ---: |' * (head.count('|') - 2)}", *(f"| {' | '.join(row.cells())} |" for row in rows)]
    )


def page(rows: Sequence[Row], size: Size, command: str, load: float) -> str:
    """Return what is written to PEERS.md."""
    names = ("torch", "numpy", "scipy", "pythae", "gensim")
    threads = torch.get_num_threads()
    return PAGE.format(
        command=command,
        machine=machine(),
        load=load,
        versions=", ".join([f"tvae {tvae.__version__}", *(f"{name} {version(name)}" for name in names)]),
        table=table(rows),
        operations=3**size.n_trits,
        seed=SEED,
        threads=f"{threads} thread{'s' * (threads > 1)}",
        batch=BATCH,
        tree_batch=resolve("exact_tree", {})[1].batch_size,
        ceiling=metrics.hierarchy_ceiling(size.n_trits),
        patience=size.patience,
        epochs=size.epochs,
        default_lr=BaseTrainerConfig().learning_rate,
        lr=FOUNDATION.lr,
        scale=SCALE,
        weight=SCALE**-2,
        beta=FOUNDATION.beta,
        dimension=Architecture().latent_dim,
        gensim_batch=GENSIM_BATCH,
        closure_seconds=size.closure_seconds,
        edges_seconds=size.edges_seconds,
        measurements=MEASUREMENTS,
        notes="\n".join(f"- {row.note}" for row in rows if row.note),
    )


def main() -> None:
    """Run everything, print the page, and write PEERS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3^5 operations and few epochs, to see that it runs")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice. 1 where others use the machine")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    if asked.threads:
        torch.set_num_threads(asked.threads)
    # Both libraries tell their progress to the console as they go.
    logging.disable(logging.INFO)
    rows: list[Row] = []
    load = os.getloadavg()[0]
    for some in (ours, all_of_pythae, all_of_gensim):
        started = time.perf_counter()
        rows += some(size)
        print(f"{some.__name__}: {time.perf_counter() - started:.0f} s, measurements included", flush=True)
    command = "make bench-peers" + (f" ARGS='--threads {asked.threads}'" if asked.threads else "")
    text = page(rows, size, command, load)
    print(f"\n{text}")
    if not asked.quick:
        (HERE / "PEERS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
