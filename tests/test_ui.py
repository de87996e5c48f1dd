"""The MLflow UI as a person sees it, in a real browser: what commands leave there, and where what they print leads."""

import json
import math
import os
import re
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from desk import ROOT, Desk
from mlflow.entities import Run
from mlflow_server import Server
from patience import PATIENCE_SECONDS, Command, until

import tvae
from tvae.metrics import distance_fidelity_ceiling, q_ceiling

pytestmark = pytest.mark.browser

Visit = Callable[[str], Any]

SECONDS = 60
GRID = {"base": {"epochs": 3}, "cells": {"low": {"curvature": 0.5}, "high": {"curvature": 2.0}}}
# What greets a visitor who comes for the first time, and covers the page.
HUSH = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""


@dataclass
class Work:
    """A desk at which work was done, the server that shows it, and what each command printed, by what was done."""

    desk: Desk
    server: str
    said: dict[str, str]

    def printed(self, done: str) -> str:
        (found,) = re.findall(r"Look at it: .*\n  (http://\S+)", self.said[done])
        return str(found)

    def run(self, name: str, experiment: str = "tvae") -> Run:
        (run,) = [run for run in self.desk.runs(experiment) if run.info.run_name == name]
        return run

    def page(self, run: Run, within: str = "") -> str:
        return (
            f"{self.server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{within}"
            "?workflowType=machine_learning"
        )


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    server = Server(desk.folder)
    try:
        server.start()
        yield server.uri
    finally:
        server.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """A day's work: the first run on the store itself, the rest through the server, what can be side by side."""
    desk, said = Desk(tmp_path_factory.mktemp("desk")), dict[str, str]()

    def do(commands: dict[str, tuple[str, ...]], **environment: str) -> None:
        started: dict[str, Command] = {}
        for done, words in commands.items():
            start = desk.fork if words[0].startswith("entry_points.") else desk.start
            started[done] = start(*words, **environment)
        for done, process in started.items():
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, err
            said[done] = out

    grid = desk.folder / "grid.json"
    grid.write_text(json.dumps(GRID))
    do({"finetune": ("entry_points.finetune",)})
    with serving(desk) as server:
        through = {
            "MLFLOW_TRACKING_URI": server,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        project = ("mlflow", "run", str(ROOT), "-e", "report", "--env-manager=local")
        second = ("entry_points.finetune", "--seed", "1", "--epochs", "6", "--promote", "force")
        do(
            {
                "another": second,
                "stability": ("entry_points.stability", "--seeds", "3", "--epochs", "3"),
                "sweep": ("entry_points.sweep", "--grid", str(grid), "--seeds", "2"),
            },
            **through,
        )
        do(
            {
                "promote": ("entry_points.promote", "--checkpoint", "models:/tvae/1"),
                "report": ("entry_points.report",),
                "in seasons": (*project, "--experiment-name", "seasons"),
                "in Default": project,
            },
            **through,
        )
        yield Work(desk, server, said)


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    """Open an address in a new tab of Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        visitor = browser.new_context(viewport={"width": 1440, "height": 1000})
        visitor.set_default_timeout(SECONDS * 1000)
        visitor.add_init_script(HUSH)

        def visit(address: str) -> Any:
            for page in visitor.pages:
                page.close()
            page = visitor.new_page()
            page.goto(address)
            return page

        yield visit
        browser.close()


def expect(what: Any) -> Any:
    """Playwright's `expect`; it is there only where these tests run."""
    from playwright import sync_api

    return sync_api.expect(what)


def sees(page: Any, *texts: str | re.Pattern[str]) -> None:
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible()


def heading(page: Any, name: str) -> None:
    expect(page.get_by_role("heading", name=name, exact=True).first).to_be_visible()


@contextmanager
def alone(visit: Visit, path: Path) -> Iterator[Any]:
    """Open a file by itself: it asks the network for nothing and complains of nothing."""
    asked, complaints = list[str](), list[str]()
    page = visit("about:blank")
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert asked == [path.as_uri()]
    assert complaints == []


# Where what is printed leads


@pytest.mark.parametrize(
    ("done", "leads_to"),
    [
        ("another", "finetune c=2 seed=1 epochs=6"),
        ("stability", "stability c=2 ranking, 3 seeds"),
        ("sweep", "sweep grid.json, 2 seeds"),
        ("report", "report experiment"),
        ("promote", "Version 1"),
        ("in seasons", "report experiment"),
        ("in Default", "report experiment"),
    ],
)
def test_what_is_printed_opens_the_page(work: Work, visit: Visit, done: str, leads_to: str) -> None:
    assert work.printed(done).startswith(f"{work.server}/#/")
    heading(visit(work.printed(done)), leads_to)


def test_without_a_server_what_is_printed_opens_the_page_on_the_ui_of_make_ui(work: Work, visit: Visit) -> None:
    assert "`make ui`" in work.said["finetune"]
    local, page = work.printed("finetune").split("/#/")
    assert local == "http://127.0.0.1:5000"
    heading(visit(f"{work.server}/#/{page}"), "finetune c=2 seed=0")


@pytest.mark.parametrize(
    ("done", "experiment"), [("another", "tvae"), ("in seasons", "seasons"), ("in Default", "Default")]
)
def test_a_run_is_in_the_experiment_that_was_meant(work: Work, visit: Visit, done: str, experiment: str) -> None:
    page = visit(work.printed(done))
    expect(page.get_by_role("link", name=experiment, exact=True).first).to_be_visible()


@pytest.mark.parametrize("done", ["finetune", "another", "stability", "sweep", "promote", "report"])
def test_a_command_prints_no_other_address(work: Work, done: str) -> None:
    assert re.findall(r"https?://\S+", work.said[done]) == [work.printed(done)]


# The runs of an experiment


def test_the_list_of_runs_tells_them_apart(work: Work, visit: Visit) -> None:
    page = visit(f"{work.server}/#/experiments/1/runs?workflowType=machine_learning")
    sees(page, "Ternary operations in a Poincaré ball: a variational autoencoder")
    for run in work.desk.runs():
        if "mlflow.parentRunId" not in run.data.tags:
            sees(page, run.info.run_name)
    names = [run.info.run_name for run in work.desk.runs()]
    assert len(names) == len(set(names))


def test_the_saved_view_shows_what_the_models_are_worth(work: Work, visit: Visit) -> None:
    page = visit(f"{work.server}/#/experiments/1/runs?viewStateShareKey=tvae&workflowType=machine_learning")
    # What would have to be scrolled to is not in the page.
    page.set_viewport_size({"width": 2600, "height": 1000})
    sees(page, "What the models are worth", "best_hierarchy", "best_richness", "best_q", "verified", "registered")
    for name in ("finetune c=2 seed=0", "finetune c=2 seed=1 epochs=6"):
        metrics = work.run(name).data.metrics
        sees(page, f"{metrics['best_hierarchy']:.9f}"[:9], f"{metrics['best_richness']:.9f}"[:9])
    sees(page, "tvae version 1", "tvae version 2")


def test_the_experiments_description_leads_to_the_runs_that_one_compares(work: Work, visit: Visit) -> None:
    page = visit(f"{work.server}/#/experiments/1/runs?workflowType=machine_learning")
    sees(page, "report experiment")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Compare the runs", exact=True).click()
    page = opened.value
    sees(page, "preset", "curvature", "seed", "best_coverage", "best_level_gap", "tree_precision", "best_q")
    sees(page, "finetune c=2 seed=0", "sweep grid.json, 2 seeds")
    mean = work.run("sweep grid.json, 2 seeds").data.metrics["best_hierarchy"]
    sees(page, f"{mean:.9f}"[:9])
    expect(page.get_by_text("report experiment")).to_have_count(0)


def test_the_saved_view_has_the_curves_that_one_reads_first(work: Work, visit: Visit) -> None:
    address = f"{work.server}/#/experiments/1/runs?viewStateShareKey=tvae&workflowType=machine_learning"
    page = visit(f"{address}&compareRunsMode=CHART")
    sees(page, "By epoch", "hierarchy", "richness", "finetune c=2 seed=0 (hierarchy)")
    expect(page.locator("svg").filter(has_text="Step").first).to_be_visible()


def test_every_experiment_of_a_run_has_the_saved_view(work: Work, visit: Visit) -> None:
    experiment = work.desk.client.get_experiment_by_name("seasons").experiment_id
    page = visit(f"{work.server}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    page.get_by_role("button", name="Views").click()
    sees(page, "What the models are worth")


# A run


def test_the_overview_says_first_what_came_out(work: Work, visit: Visit) -> None:
    run = work.run("finetune c=2 seed=0")
    page = visit(work.page(run))
    sees(page, f"Hierarchy {run.data.metrics['best_hierarchy']:.5f}", re.compile(r"level.* gap.*Verified\."))
    sees(page, "verified: true", "registered: tvae version 1", "git_dirty")


def test_the_description_has_every_measure_beside_its_limit(work: Work, visit: Visit) -> None:
    metrics = work.run("finetune c=2 seed=0").data.metrics
    page = visit(work.page(work.run("finetune c=2 seed=0")))
    page.get_by_text("Show more").first.click()
    table = page.locator("pre").filter(has_text="reference sweep").inner_text()
    measures = dict(re.findall(r"^(\w[\w ]*?)  +(.+)$", table, re.MULTILINE))
    assert measures["distance fidelity"].split()[:2] == [
        f"{metrics['best_distance_fidelity']:.5f}",
        f"{distance_fidelity_ceiling():.5f}",
    ]
    assert measures["Q"].split()[:2] == [f"{metrics['q']:.4f}", f"{q_ceiling():.4f}"]
    assert len({line.rindex("  ") for line in table.splitlines() if line.endswith("not measured")}) == 1
    sees(page, "mlflow run . -e finetune -P checkpoint=runs:/")


def test_a_link_in_a_description_opens_on_the_server_that_shows_it(work: Work, visit: Visit) -> None:
    page = visit(work.page(work.run("finetune c=2 seed=0")))
    with page.expect_popup() as opened:
        page.get_by_role("link", name="ball", exact=True).click()
    sees(opened.value, "plots/poincare_disk.png")
    assert opened.value.url.startswith(work.server)


def test_the_charts_of_a_run_are_under_their_own_names(work: Work, visit: Visit) -> None:
    page = visit(work.page(work.run("finetune c=2 seed=0"), "/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill("distance")
    heading(page, "term_distance")
    expect(page.get_by_role("heading", name="distance_fidelity", exact=True)).to_have_count(1)


@pytest.mark.parametrize("name", [
    "distance_by_valuation", "poincare_disk", "poincare_disk_3-adic", "radius_by_valuation", "training_curves", "tree",
])  # fmt: skip
def test_a_plot_is_shown(work: Work, visit: Visit, name: str) -> None:
    run = work.run("finetune c=2 seed=0")
    size = struct.unpack(">II", work.desk.artifact(run, f"plots/{name}.png").read_bytes()[16:24])
    page = visit(work.page(run, f"/artifacts/plots/{name}.png"))
    sees(page, f"plots/{name}.png")
    page.wait_for_function(
        "([w, h]) => [...document.images].some(i => i.naturalWidth == w && i.naturalHeight == h && i.width > 400)",
        arg=list(size),
    )


# The disk, inside MLflow's view of artifacts


@pytest.fixture
def disk(work: Work, visit: Visit) -> Any:
    """The frame in which MLflow shows the page."""
    page = visit(work.page(work.run("finetune c=2 seed=0"), "/artifacts/plots/disk.html"))
    frame = page.frame_locator("iframe")
    frame.locator("#levels button").last.wait_for()
    until(lambda: canvas(frame, "full > 1"))  # the first picture is drawn as soon as its size is known
    return frame


def canvas(disk: Any, script: str) -> Any:
    """Ask the page itself."""
    return disk.locator("#disk").evaluate(f"() => {script}")


def place(disk: Any, operation: int) -> tuple[float, float]:
    """Where an operation is drawn, in the browser's window."""
    box = disk.locator("#disk").bounding_box()
    x, y = canvas(disk, f"[SX[{operation}], SY[{operation}]]")
    return box["x"] + x, box["y"] + y


def drawn(disk: Any) -> None:
    """Wait for the picture of what was done."""
    until(lambda: not canvas(disk, "queued"))


@pytest.mark.parametrize(
    "asked",
    ["15633", "min", "---", "−1 −1 −1, -1 0 0, -1 0 1", "----00-0+"],
    ids=["index", "name", "part", "trits", "signs"],
)
def test_an_operation_is_found_on_the_disk(disk: Any, asked: str) -> None:
    disk.locator("#find").fill(asked)
    disk.locator("#find").press("Enter")
    if asked == "---":
        expect(disk.get_by_role("alert")).to_contain_text("give an index in 0 … 19682, 9 trits")
        return
    expect(disk.locator("#name")).to_have_text("min (and)")
    expect(disk.locator("#facts")).to_contain_text("15633")
    assert disk.locator("#table span").all_inner_texts() == list("−−−−00−0+")
    until(lambda: canvas(disk, "Math.hypot(SX[15633] - width / 2, SY[15633] - height / 2)") < 0.5)


def test_the_disk_has_the_nearest_operations_and_radii_of_the_model(work: Work, disk: Any) -> None:
    model = tvae.load(work.desk.artifact(work.run("finetune c=2 seed=0"), "checkpoint") / "checkpoint.safetensors")
    book, chosen = tvae.codebook(model), [0, 5, 15633, 19682]
    assert canvas(disk, "Array.from(RADIUS)") == pytest.approx(tvae.evaluate(model).radii, abs=1e-5)
    for i, near in zip(chosen, tvae.nearest_operations(chosen, book, count=5).index.tolist(), strict=True):
        found = canvas(disk, f"nearest({i})")
        assert [one["index"] for one in found] == near
        assert [one["distance"] for one in found] == pytest.approx(tvae.distance(i, near, book), abs=1e-3)


def test_what_is_under_the_pointer_is_named(disk: Any) -> None:
    page = disk.locator("#disk").page
    page.mouse.move(*place(disk, 0))
    expect(disk.locator("#tip")).to_have_text("0 · constant −")
    expect(disk.locator("#which")).to_have_text("Under the pointer")
    page.mouse.click(*place(disk, 13122))
    expect(disk.locator("#facts")).to_contain_text("13122")
    disk.locator("#near button").first.click()
    page.mouse.move(0, 0)
    expect(disk.locator("#which")).to_have_text("Chosen")


def test_what_is_dragged_stays_under_the_hand(disk: Any) -> None:
    page = disk.locator("#disk").page
    (x, y), far = place(disk, 0), canvas(disk, "RADIUS[0]")
    box = disk.locator("#disk").bounding_box()
    # Towards the middle: at the rim the disk ends.
    x_to = x + math.copysign(90, box["x"] + box["width"] / 2 - x)
    y_to = y + math.copysign(40, box["y"] + box["height"] / 2 - y)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x_to, y_to, steps=5)
    page.mouse.up()
    drawn(disk)
    assert place(disk, 0) == pytest.approx((x_to, y_to), abs=4)
    assert canvas(disk, "RADIUS[0]") == far
    before = place(disk, 4374)
    page.mouse.move(*before)
    page.mouse.wheel(0, -400)
    until(lambda: canvas(disk, "state.zoom") > 1.5)
    drawn(disk)
    assert place(disk, 4374) == pytest.approx(before, abs=2)


def test_a_movement_keeps_hyperbolic_distances(disk: Any) -> None:
    def apart() -> float:
        return float(canvas(disk, """(() => {
            const [a, b] = [5, 15633].map(i => seen(X[i], Y[i])), d = Math.hypot(a[0] - b[0], a[1] - b[1]);
            const shares = [5, 15633].map(i => CONFORMAL[i] / seen(X[i], Y[i])[2]);
            return Math.acosh(1 + 2 * d * d / shares[0] / shares[1]);
        })()"""))  # fmt: skip

    before = apart()
    disk.locator("#disk").focus()
    for key in ["ArrowLeft"] * 9 + ["ArrowUp"] * 7 + ["+"] * 3 + ["ArrowDown"] * 4:
        disk.locator("#disk").press(key)
    assert canvas(disk, "Math.hypot(...state.b)") > 0.3
    assert apart() == pytest.approx(before, rel=1e-6)
    disk.locator("#disk").press("Home")
    assert canvas(disk, "state.zoom") == 1


def test_the_disk_is_used_by_keyboard_alone(disk: Any) -> None:
    keys = disk.locator("#disk")
    keys.focus()
    keys.press(".")
    expect(disk.locator("#name")).to_have_text("Operation 1")
    keys.press(",")
    keys.press(",")
    expect(disk.locator("#name")).to_have_text("constant +")
    keys.press("Escape")
    expect(disk.locator("#which")).to_have_text("Operation 0")
    keys.press("/")
    expect(disk.locator("#find")).to_be_focused()
    level = disk.get_by_role("button", name="valuation 0, 13122 operations")
    level.press("Enter")
    assert level.get_attribute("aria-pressed") == "false"
    disk.get_by_role("button", name="3-adic").press("Enter")
    expect(disk.locator("#angle-note")).to_contain_text("Not learned")


def test_the_disk_moves_smoothly(disk: Any) -> None:
    """A screen shows a picture every 17 ms. The quickest of many, since others may use the machine."""
    took = canvas(disk, "Array.from({length: 15}, () => { const t = performance.now(); translate([0.01, 0]); draw(); "
                  "pen.getImageData(0, 0, 1, 1); return performance.now() - t; })")  # fmt: skip
    assert min(took) < 35


def test_the_disk_asks_the_network_for_nothing(work: Work, visit: Visit) -> None:
    path = work.desk.artifact(work.run("finetune c=2 seed=0"), "plots/disk.html")
    assert path.stat().st_size < 2_000_000
    with alone(visit, path) as page:
        heading(page, "19,683 operations in the Poincaré disk")
        page.locator("#find").fill("nand")
        page.locator("#find").press("Enter")
        page.wait_for_timeout(1500)


def test_the_verdict_is_shown_and_names_the_file_of_the_run(work: Work, visit: Visit) -> None:
    page = visit(work.page(work.run("finetune c=2 seed=0"), "/artifacts/verification.json"))
    sees(
        page,
        '"checkpoint/checkpoint.safetensors"',
        '"Structure, architecture, digest and finite weights were checked."',
    )


def test_the_epochs_are_shown_as_a_table(work: Work, visit: Visit) -> None:
    page = visit(work.page(work.run("finetune c=2 seed=0"), "/artifacts/history.csv"))
    sees(page, "epoch", "term_distance", re.compile(r"^-0\.83"))


def test_settings_have_one_value_each_and_say_who_chose_it(work: Work, visit: Visit) -> None:
    run = work.run("finetune c=2 seed=1 epochs=6")
    assert "auto" not in run.data.params.values()
    page = visit(work.page(run))
    page.get_by_text("Show more").first.click()
    table = page.locator("pre").filter(has_text="setting").inner_text()
    said = dict(re.findall(r"^(\w+) +(.+)$", table, re.MULTILINE))
    assert said["seed"].split(maxsplit=1) == ["1", "the user"]
    assert said["lr"].split() == ["0.015", "default"]


def test_a_logged_model_shows_what_its_file_is_worth(work: Work, visit: Visit) -> None:
    run = work.run("finetune c=2 seed=0")
    (output,) = run.outputs.model_outputs
    model = work.desk.client.get_logged_model(output.model_id)
    page = visit(f"{work.server}/#/experiments/1/models/{output.model_id}?workflowType=machine_learning")
    assert len(model.params) > 25
    counted = ("Metrics (10)", f"Parameters ({len(model.params)})")
    sees(page, model.name, re.compile(r"^Verified: coverage 1, hierarchy -0\.8"), *counted)
    sees(page, re.compile(r"^ternary-operations \(#"), "tree_precision", "preset", run.info.run_name)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="The run that logged it").click()
    heading(opened.value, run.info.run_name)


# Parents and children


def test_a_sweep_says_first_what_follows_and_leads_to_its_trials(work: Work, visit: Visit) -> None:
    page = visit(work.page(work.run("sweep grid.json, 2 seeds")))
    sees(page, "(grid), 2 seeds: coverage 1.0", "Child runs")
    page.get_by_role("link", name="low seed=1", exact=True).click()
    heading(page, "low seed=1")
    sees(page, re.compile(r"^Hierarchy -0\.8"), "low (grid), seed 1.", "Parent run", "sweep.py")
    sees(page, "ternary-operations", "tvae.version")
    page.get_by_role("link", name="sweep grid.json, 2 seeds").click()
    heading(page, "sweep grid.json, 2 seeds")


def test_the_report_is_shown_in_its_run_and_asks_the_network_for_nothing(work: Work, visit: Visit) -> None:
    asked, complaints = list[str](), list[str]()
    page = visit("about:blank")
    page.context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(f"{said.location['url']} {said.text}"))
    page.goto(work.printed("sweep"))
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="sweep grid.json, 2 seeds")).to_be_visible()
    expect(report.get_by_role("heading", name="Phase grid")).to_be_visible()
    assert report.locator("svg").count() > 0
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {work.server.removeprefix("http://")}
    assert not [said for said in complaints if not said.startswith(work.server)]


def test_the_report_is_whole_by_itself(work: Work, visit: Visit) -> None:
    path = work.desk.artifact(work.run("sweep grid.json, 2 seeds"), "report.html")
    with alone(visit, path) as page:
        heading(page, "sweep grid.json, 2 seeds")


# The registered model


def test_the_registered_model_has_description_aliases_and_verdicts(work: Work, visit: Visit) -> None:
    page = visit(f"{work.server}/#/models/tvae?workflowType=machine_learning")
    sees(page, "Every version has passed verification", "Version 2", "champion", "previous", "verified: true")
    sees(page, "Verified: hierarchy -0.8")


def test_a_version_shows_its_verdict_and_leads_to_its_run(work: Work, visit: Visit) -> None:
    page = visit(f"{work.server}/#/models/tvae/versions/2?workflowType=machine_learning")
    heading(page, "Version 2")
    sees(page, "champion", "Verification passed", "hierarchy ceiling", "When it was registered:")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="The run that logged it").click()
    heading(opened.value, "finetune c=2 seed=1 epochs=6")
