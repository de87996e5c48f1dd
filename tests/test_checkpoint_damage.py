"""Damaged and hostile files: none loads, and none costs much."""

import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_bytes import mutations
from exact_model import architecture, random_model

import tvae
from tvae.checkpoint import FORMAT_VERSION, read, save
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError
from tvae.model import COMPONENTS

MOST_SECONDS = 1.0
MOST_MEGABYTES = 100


def contents(folder: Path, architecture: Architecture) -> tuple[bytes, bytes, bytes]:
    """Return two valid files of one architecture, and the first as torch.save writes it."""
    files = []
    trained = [name for name in COMPONENTS if name != "controller" or architecture.use_controller]
    for seed in (0, 1):
        model, path = random_model(architecture, seed), folder / f"valid-{seed}"
        save(path, model, trained=trained, training={"seed": seed}, metrics={"coverage": seed / 2})
        files.append(path.read_bytes())
    pickled = io.BytesIO()
    torch.save(random_model(architecture).state_dict(), pickled)
    return files[0], files[1], pickled.getvalue()


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_no_mutation_of_a_valid_file_loads(tmp_path: Path, count: int) -> None:
    content, other, pickled = contents(tmp_path, architecture())
    path = tmp_path / "checkpoint.safetensors"
    for _, mutated in itertools.islice(mutations(content, other, pickled, seed=20251229), count):
        path.write_bytes(mutated)
        with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))}: "):
            read(path)


# Of a byte one bit, each in turn.
@pytest.mark.parametrize("step", [15, pytest.param(1, marks=pytest.mark.long)])
def test_no_bit_of_the_header_can_flip(tmp_path: Path, step: int) -> None:
    content, _, _ = contents(tmp_path, architecture(2, encoder_hidden=(1,), decoder_hidden=(1,), use_controller=False))
    path = tmp_path / "checkpoint.safetensors"
    end = 8 + int.from_bytes(content[:8], "little")
    for at in range(0, end, step):
        mutated = bytearray(content)
        mutated[at] ^= 1 << at % 8
        path.write_bytes(mutated)
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: "):
            read(path)


HOSTILE = """
import json, sys, time
from pathlib import Path
from tvae.checkpoint import read
from tvae.errors import CheckpointError

def memory(field):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":")]
    return int(line.split()[1]) / 1024

read(sys.argv[1])
costs = {}
for path in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, start = memory("VmRSS"), time.perf_counter()
    try:
        read(path)
        verdict = "loaded"
    except CheckpointError as error:
        verdict = str(error)[len(path):]
    costs[Path(path).name] = (time.perf_counter() - start, memory("VmHWM") - before, verdict)
print(json.dumps([costs, sorted({"scipy", "mlflow"} & set(sys.modules))]))
"""


def hostile_files(folder: Path) -> dict[str, Path]:
    """Write files that claim much: the name says what."""
    largest = Architecture(
        n_trits=13,
        latent_dim=4096,
        encoder_hidden=(4096,) * 16,
        decoder_hidden=(4096,) * 16,
        hidden_dim=4096,
        n_projection_layers=16,
        use_controller=True,
    )
    wide = Architecture(hidden_dim=2500)
    fields = {
        "format_version": FORMAT_VERSION,
        "trained": [],
        "training": {},
        "provenance": {},
        "metrics": {},
        "digest": "0" * 64,
    }

    def with_fields(architecture: object, table: dict) -> bytes:
        text = json.dumps(fields | {"architecture": architecture}, sort_keys=True, separators=(",", ":"))
        return json.dumps({"__metadata__": {"tvae": text}} | table, separators=(",", ":")).encode()

    def table(architecture: Architecture) -> dict:
        shapes = {k: tuple(v.shape) for k, v in sorted(random_model_on_meta(architecture).items())}
        ends = list(itertools.accumulate(4 * torch.Size(shape).numel() for shape in shapes.values()))
        return {
            name: {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
            for (name, shape), start, stop in zip(shapes.items(), [0, *ends[:-1]], ends, strict=True)
        }

    headers = {
        "largest_architecture": with_fields(largest.to_dict(), table(largest)),
        "weights_that_are_a_hole": with_fields(wide.to_dict(), table(wide)),
        "nested_deeply": b"[" * 1_000_000,
        "nested_in_the_text": with_fields({}, {}).replace(b"{}", b"[" * 500_000, 1),
        "many_tensors": with_fields(Architecture().to_dict(), {f"t{i}": {} for i in range(80_000)}),
        "huge_shape": with_fields(Architecture().to_dict(), {"t": {"dtype": "F32", "shape": [2**62] * 3}}),
        "huge_number": with_fields(Architecture().to_dict() | {"curvature": 10**4000}, {}),
        "long_number": b'{"a":' + b"9" * 1_000_000 + b"}",
        "long_widths": with_fields(Architecture().to_dict() | {"encoder_hidden": [1] * 300_000}, {}),
        "utf16": "{}".encode("utf-16"),
    }
    files = {}
    for name, header in headers.items():
        files[name] = folder / name
        header += b" " * (-len(header) % 8)
        files[name].write_bytes(len(header).to_bytes(8, "little") + header)
    size = files["weights_that_are_a_hole"].stat().st_size
    os.truncate(files["weights_that_are_a_hole"], size + list(table(wide).values())[-1]["data_offsets"][1])
    files["terabyte"] = folder / "terabyte"
    files["terabyte"].touch()
    os.truncate(files["terabyte"], 2**40)
    files["huge_header"] = folder / "huge_header"
    files["huge_header"].write_bytes((2**63).to_bytes(8, "little") + b"{}")
    return files


def random_model_on_meta(architecture: Architecture) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return tvae.TernaryVAE(architecture).state_dict()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[float, float, str]], list[str]]:
    """What each hostile file costs a process that reads them, and what that process imported and does not need."""
    folder = tmp_path_factory.mktemp("hostile")
    contents(folder, Architecture())
    files = hostile_files(folder)
    command = [sys.executable, "-c", HOSTILE, str(folder / "valid-0"), *map(str, files.values())]
    environment = os.environ | {"PYTHONPATH": str(Path(tvae.__file__).parents[1])}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
    costs, imported = json.loads(done.stdout)
    assert set(costs) == set(files)
    return costs, imported


@pytest.mark.integration
def test_loading_needs_neither_scipy_nor_mlflow(measured: tuple[object, list[str]]) -> None:
    assert measured[1] == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("largest_architecture", "was cut short"),
        ("weights_that_are_a_hole", "The digest must be the stated"),
        ("nested_deeply", "must be JSON"),
        ("nested_in_the_text", "must be JSON"),
        ("many_tensors", "The tensors must be those of the architecture"),
        ("huge_shape", "The tensors must be those of the architecture"),
        ("huge_number", "`curvature` must be"),
        ("long_number", "must be JSON"),
        ("long_widths", "`encoder_hidden` must be"),
        ("utf16", "must be JSON"),
        ("terabyte", "must have at most"),
        ("huge_header", "must fit into the file's 10 bytes"),
    ],
)
def test_a_hostile_file_is_refused_cheaply(
    measured: tuple[dict[str, tuple[float, float, str]], object], name: str, refusal: str
) -> None:
    seconds, megabytes, verdict = measured[0][name]
    assert refusal in verdict
    assert len(verdict) < 1500
    assert seconds < MOST_SECONDS
    assert megabytes < MOST_MEGABYTES
