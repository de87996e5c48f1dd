"""The page of the disk: what it is given, and that it stands alone; tests/test_ui.py tests it in a browser."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_model import tree_model

import tvae
from tvae import gates, poincare
from tvae.plots import disk
from tvae.plots.draw import draw


@pytest.fixture(scope="module")
def book() -> tvae.Codebook:
    return tvae.codebook(tree_model(9))


@pytest.fixture(scope="module")
def page(book: tvae.Codebook) -> str:
    return disk.page(book.points.numpy(), curvature=book.curvature)


def data(page: str) -> dict[str, Any]:
    (line,) = re.findall(r"^const DATA = (.*);$", page, re.MULTILINE)
    return dict(json.loads(line))


def test_the_page_of_all_operations_is_small(page: str) -> None:
    assert len(page.encode()) < 2_000_000


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    text = page.replace(re.findall(r"^const DATA = .*$", page, re.MULTILINE)[0], "")
    assert not re.findall(r"https?:|//\w+\.|\bsrc=|<link|\bimport\b|fetch\(|XMLHttpRequest|url\(|localStorage", text)


def test_radii_are_those_of_the_ball(page: str, book: tvae.Codebook) -> None:
    given = np.frombuffer(base64.b64decode(data(page)["radius"]), "<f4")
    norms = book.points.double().norm(dim=1) * book.curvature**0.5
    assert given == pytest.approx(poincare.radius(norms, curvature=book.curvature).numpy(), rel=1e-6)


def test_directions_come_back_from_their_bytes(page: str, book: tvae.Codebook) -> None:
    packed = np.frombuffer(base64.b64decode(data(page)["direction"]), np.uint8).reshape(-1, 3).astype(np.int32)
    integers = (packed << (8, 16, 24)).sum(1, dtype=np.int32) >> 8
    z = book.points.double().numpy()
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    u = z / np.where(norm > 0, norm, 1)  # one point is the origin
    assert np.abs(integers.reshape(z.shape) / (2**23 - 1) - u).max() < 2**-23


def test_gates_have_their_names_on_the_page(page: str) -> None:
    assert {int(i): name for i, name in data(page)["names"].items()} == gates.NAMES


def test_operations_that_are_no_gates_have_none() -> None:
    small = tvae.codebook(tree_model(4))
    assert data(disk.page(small.points.numpy(), curvature=small.curvature))["names"] == {}


def test_more_operations_than_a_browser_moves_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 59,049 operations, got 177,147"):
        disk.page(np.zeros((3**11, 2)), curvature=1.0)


def test_a_run_has_it_drawn_as_a_file(tmp_path: Path) -> None:
    small = tvae.codebook(tree_model(3))
    points = small.points.numpy()
    draw(tmp_path / disk.PAGE_NAME, "disk", points, curvature=small.curvature)
    written = (tmp_path / disk.PAGE_NAME).read_text(encoding="utf-8")
    assert written == disk.page(points, curvature=small.curvature)
