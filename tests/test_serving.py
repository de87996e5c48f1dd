"""The served model: right answers, and a sentence for everything that cannot be answered."""

import gc
import http.client
import importlib
import json
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pytest
import torch
from exact_model import exact_model, random_model
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations

import tvae
from tvae import poincare, ternary
from tvae.architecture import Architecture
from tvae.checkpoint import load, read, save
from tvae.errors import CheckpointError, EvaluationError
from tvae.model import COMPONENTS, TernaryVAE
from tvae.nearest import nearest
from tvae.serving import MAX_ROWS, REQUIREMENTS, answers, pip_requirements, pyfunc_arguments, to_indices

ROOT = Path(__file__).parents[1]
TRITS = ternary.operations().tolist()
INDICES = [[i] for i in range(ternary.N_OPERATIONS)]
GOOD = [0] * 9
EMBEDDING = {"embedding": True}
# Bytes that a server may come to hold in some seconds of load. It holds 600 MB.
MOST_GROWTH = 8 * 2**20


class Answer(NamedTuple):
    status: int
    content: Any
    text: str

    @property
    def message(self) -> str:
        return self.content["message"]


Ask = Callable[[str], Answer]


def body(inputs: object, **more: object) -> str:
    return json.dumps({"inputs": inputs, **more})


def in_process(model: PyFuncModel) -> Ask:
    """Answer as MLflow's server does, without one."""

    def ask(text: str) -> Answer:
        try:
            response = invocations(text.encode(), "application/json", model, model.metadata.get_input_schema())
        except MlflowException as error:
            said = error.serialize_as_json()
            return Answer(error.get_http_status_code(), json.loads(said), said)
        return Answer(response.status, json.loads(response.response), response.response)

    return ask


def write(path: Path, model: TernaryVAE) -> Path:
    save(path, model, trained=COMPONENTS[:3], training={}, metrics={})
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trained") / "checkpoint.safetensors", random_model(Architecture()))


@pytest.fixture(scope="module")
def saved(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "model"
    mlflow.pyfunc.save_model(path, **pyfunc_arguments(read(checkpoint)))
    return path


@pytest.fixture(scope="module")
def pyfunc(saved: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def ask(pyfunc: PyFuncModel) -> Ask:
    return in_process(pyfunc)


@pytest.fixture(scope="module")
def radii(checkpoint: Path) -> np.ndarray:
    return tvae.evaluate(load(checkpoint)).radii


def ask_radii(ask: Ask, inputs: object) -> np.ndarray:
    return np.array([record["radius"] for record in ask(body(inputs)).content["predictions"]])


class TestAnswers:
    @pytest.mark.parametrize("inputs", [TRITS, INDICES], ids=["trits", "indices"])
    def test_radii_of_all_operations_are_those_of_the_evaluation(
        self, ask: Ask, radii: np.ndarray, inputs: list
    ) -> None:
        served = ask_radii(ask, inputs)
        assert np.array_equal(served.astype(np.float32), radii.astype(np.float32))

    def test_rows_are_answered_in_their_order_and_as_often_as_asked(self, ask: Ask, radii: np.ndarray) -> None:
        assert ask_radii(ask, [[7], [0], [7]]) == pytest.approx(radii[[7, 0, 7]], rel=1e-7)

    def test_a_record_is_only_a_radius_unless_more_is_asked_for(self, ask: Ask) -> None:
        assert [list(record) for record in ask(body([GOOD])).content["predictions"]] == [["radius"]]

    def test_a_record_with_embedding_has_the_documented_fields(self, ask: Ask) -> None:
        (record,) = ask(body([GOOD], params=EMBEDDING)).content["predictions"]
        assert {name: np.shape(value) for name, value in record.items()} == {
            "radius": (),
            "embedding": (16,),
            "valuation": (),
            "decoded": (9,),
        }

    def test_an_index_gives_the_record_of_its_trits(self, ask: Ask) -> None:
        some = [0, 1, 9841, 19682]
        by_index = ask(body([[i] for i in some], params=EMBEDDING)).content
        assert by_index == ask(body([TRITS[i] for i in some], params=EMBEDDING)).content

    def test_the_embedding_is_the_models_point(self, ask: Ask, checkpoint: Path) -> None:
        records = ask(body(TRITS[:100], params=EMBEDDING)).content["predictions"]
        with torch.no_grad():
            points = load(checkpoint)(torch.tensor(TRITS[:100], dtype=torch.float32))
        assert np.allclose([r["embedding"] for r in records], points, atol=1e-6)

    def test_the_radius_is_the_distance_of_the_embedding_from_the_origin(self, ask: Ask) -> None:
        records = ask(body(TRITS[:100], params=EMBEDDING)).content["predictions"]
        points = torch.tensor([r["embedding"] for r in records], dtype=torch.float64)
        distance = poincare.distance_between_points(points, torch.zeros_like(points), curvature=2.0)
        assert np.allclose([r["radius"] for r in records], distance, atol=1e-5)

    def test_the_valuation_is_the_operations(self, ask: Ask) -> None:
        records = ask(body([[0], [1], [3], [18]], params=EMBEDDING)).content["predictions"]
        assert [r["valuation"] for r in records] == [9, 0, 1, 2]

    def test_decoded_is_what_is_read_back_from_the_embedding_that_is_served(self, ask: Ask, checkpoint: Path) -> None:
        records = ask(body(INDICES[::50], params=EMBEDDING)).content["predictions"]
        read = tvae.decode([r["embedding"] for r in records], load(checkpoint))
        assert [r["decoded"] for r in records] == read.trits.tolist() == TRITS[::50]

    def test_operations_of_one_point_are_decoded_as_the_first_of_them(self) -> None:
        model = exact_model(4)
        with torch.no_grad():
            model.encoder.hidden[0].weight[:, 1] = 0.0
        served = answers(model)
        found, distance = nearest(torch.tensor(served.embedding), torch.tensor(served.embedding), curvature=2.0)
        assert not distance.any()
        assert np.array_equal(ternary.to_index(served.decoded), found[:, 0])
        assert len(set(map(tuple, served.decoded.tolist()))) == 27

    def test_a_perfect_model_gives_every_operation_back(self) -> None:
        assert np.array_equal(answers(exact_model(4)).decoded, ternary.operations(4))

    def test_an_operation_of_another_space_has_that_spaces_width(self, tmp_path: Path) -> None:
        model = exact_model(3)
        mlflow.pyfunc.save_model(
            tmp_path / "model", **pyfunc_arguments(read(write(tmp_path / "checkpoint.safetensors", model)))
        )
        ask = in_process(mlflow.pyfunc.load_model(str(tmp_path / "model")))
        served = ask_radii(ask, ternary.operations(3).tolist())
        assert served == pytest.approx(tvae.evaluate(model).radii, rel=1e-6)

    @pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64, object])
    def test_a_python_caller_may_use_any_number_type(self, pyfunc: PyFuncModel, dtype: type) -> None:
        expected = pyfunc.predict(np.array([[5]]))
        assert pyfunc.predict(ternary.to_trits([5]).astype(dtype)) == expected

    @pytest.mark.parametrize("row", [[1.0] * 9, [-0.0] * 9, [5.0]])
    def test_a_whole_number_may_be_written_as_a_float(self, ask: Ask, row: list[float]) -> None:
        assert ask(body([row])).content == ask(body([[int(value) for value in row]])).content

    def test_changing_a_record_changes_no_later_answer(self, pyfunc: PyFuncModel) -> None:
        first = pyfunc.predict(np.array([[5]]), params=EMBEDDING)
        first[0]["embedding"][0] = first[0]["radius"] = 7.0
        again = pyfunc.predict(np.array([[5]]), params=EMBEDDING)
        assert 7.0 not in (again[0]["radius"], again[0]["embedding"][0])

    def test_numbers_are_written_with_at_most_nine_digits(self, ask: Ask) -> None:
        numbers = ask(body([[i] for i in range(100)])).text.split('"radius": ')[1:]
        assert max(len(number.split("}")[0].replace(".", "").lstrip("0")) for number in numbers) <= 9


# What is answered by tvae: (name, inputs as JSON, what the sentence says after the place).
REFUSED = [
    ("width 8", body([GOOD, GOOD[:8]]), "Row 1 must be a list of 9 trits or of one index, got 8 values: [0, 0,"),
    ("width 10", body([[*GOOD, 0]]), "Row 0 must be a list of 9 trits or of one index, got 10 values: [0, 0,"),
    ("2", body([GOOD, [*GOOD[:8], 2]]), "Row 1, position 8 must be -1, 0 or 1, got 2."),
    ("-2", body([[-2, *GOOD[1:]]]), "Row 0, position 0 must be -1, 0 or 1, got -2."),
    ("300", body([[*GOOD[:3], 300, *GOOD[4:]]]), "Row 0, position 3 must be -1, 0 or 1, got 300."),
    ("1e30", body([[*GOOD[:8], 1e30]]), "Row 0, position 8 must be -1, 0 or 1, got 1e+30."),
    ("10**30", body([[*GOOD[:8], 10**30]]), f"Row 0, position 8 must be -1, 0 or 1, got {10**30}."),
    ("10**400", body([[*GOOD[:8], 10**400]]), "Row 0, position 8 must be -1, 0 or 1, got 1000"),
    ("0.5", body([[*GOOD[:8], 0.5]]), "Row 0, position 8 must be -1, 0 or 1, got 0.5."),
    ("nan", body([[float("nan"), *GOOD[1:]]]), "Row 0, position 0 must be -1, 0 or 1, got NaN."),
    ("inf", body([[*GOOD[:8], float("inf")]]), "Row 0, position 8 must be -1, 0 or 1, got Infinity."),
    ("1e400", '{"inputs": [[1e400]]}', "Row 0, position 0 must be an index, an integer from 0 to 19682, got Infinity."),
    ("null", body([GOOD, [*GOOD[:8], None]]), "Row 1, position 8 must be -1, 0 or 1, got null."),
    ("a string", body([[*GOOD[:8], "a"]]), 'Row 0, position 8 must be -1, 0 or 1, got "a".'),
    ("a number as string", body([["1"] * 9]), 'Row 0, position 0 must be -1, 0 or 1, got "1".'),
    ("a long string", body([["x" * 10_000]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got"),
    ("strings for rows", body(["abc", "def"]), 'Row 0 must be a list of 9 trits or of one index, got "abc".'),
    ("a string for all", body("abc"), '`inputs` must be a list of rows, each a list of 9 trits or of one index; got "'),
    ("a number for all", body(5), "`inputs` must be a list of rows, each a list of 9 trits or of one index; got 5."),
    ("a boolean", body([[*GOOD[:8], True]]), "Row 0, position 8 must be -1, 0 or 1, got true."),
    ("nested cell", body([GOOD, [0, [1], *GOOD[2:]]]), "Row 1, position 1 must be -1, 0 or 1, got [1]."),
    ("nested cells", body([[[0]] * 9]), "Row 0, position 0 must be -1, 0 or 1, got [0]."),
    ("nested rows", body([[GOOD]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got [0, 0,"),
    ("nested deeply", body([[json.loads("[" * 80 + "]" * 80)]]), "Row 0, position 0 must be an index"),
    ("ragged", body([GOOD, GOOD[:4]]), "Row 1 must be a list of 9 trits or of one index, got 4 values: [0, 0, 0, 0]."),
    ("trits and index", body([GOOD, [5]]), "Row 1 must have 9 values as row 0 has, got 1: [5]."),
    ("flat", body(GOOD), "Row 0 must be a list of 9 trits or of one index, got 0."),
    ("flat index", body([5]), "Row 0 must be a list of 9 trits or of one index, got 5."),
    ("empty row", body([[]]), "Row 0 must be a list of 9 trits or of one index, got 0 values: []."),
    ("object in a row", body([[{"a": 1}, *GOOD[1:]]]), 'Row 0, position 0 must be -1, 0 or 1, got {"a": 1}.'),
    ("object for a row", body([GOOD, {"a": 1}]), 'Row 1 must be a list of 9 trits or of one index, got {"a": 1}.'),
    ("index 19683", body([[0], [19683]]), "Row 1, position 0 must be an index, an integer from 0 to 19682, got 19683."),
    ("index -1", body([[-1]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got -1."),
    ("index 0.5", body([[0.5]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got 0.5."),
    ("index null", body([[None]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got null."),
    ("index true", body([[True]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got true."),
    ("too many rows", body([[0]] * (MAX_ROWS + 1)), "`inputs` must have 1 to 200000 rows"),
]
# What MLflow answers before tvae is asked.
REFUSED_BY_MLFLOW = [
    ("no rows", body([]), "which suggests a numpy array input"),
    ("null for all", body(None), "NoneType"),
    ("objects", body([{"a": 1}, {"a": 0}]), "which suggests a numpy array input"),
    ("an object", body({"a": [1]}), "expects a single n-dimensional array"),
    ("broken JSON", '{"inputs": [[0, 0', "valid JSON"),
    ("empty body", "", "valid JSON"),
    ("a list", "[[0]]", "must be a JSON dictionary"),
    ("no inputs", "{}", "must be a JSON dictionary"),
    ("two inputs", body([[0]], instances=[[0]]), "must be a JSON dictionary"),
    ("a param that is no boolean", body([[0]], params={"embedding": "yes"}), "boolean"),
    ("params that are no object", body([[0]], params=[1]), "must be a dictionary"),
]


def cases(rows: list[tuple[str, str, str]]) -> list[Any]:
    return [pytest.param(text, sentence, id=name) for name, text, sentence in rows]


class TestRefusal:
    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED))
    def test_bad_input_is_answered_with_a_sentence_that_names_it(self, ask: Ask, text: str, sentence: str) -> None:
        answer = ask(text)
        assert answer.status == 400
        assert answer.message.startswith(sentence)

    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED))
    def test_a_refusal_is_short_and_without_a_trace(self, ask: Ask, text: str, sentence: str) -> None:
        answer = ask(text)
        assert len(answer.message) < 250
        assert set(answer.content) == {"error_code", "message", "sqlstate", "error_class"}

    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED_BY_MLFLOW))
    def test_what_mlflow_refuses_has_a_sentence_and_no_trace(self, ask: Ask, text: str, sentence: str) -> None:
        answer = ask(text)
        assert answer.status == 400
        assert sentence in answer.message
        assert "stack_trace" not in answer.content

    def test_a_path_in_a_request_is_not_read(self, ask: Ask, tmp_path: Path) -> None:
        (tmp_path / "rows.json").write_text("[[5]]")
        answer = ask(body(str(tmp_path / "rows.json")))
        assert answer.status == 400
        assert "must be a list of rows" in answer.message

    def test_as_many_rows_as_allowed_are_answered(self) -> None:
        assert len(to_indices(np.zeros((MAX_ROWS, 1), object), 9)) == MAX_ROWS

    def test_a_row_of_the_array_and_not_of_the_cells_is_named(self) -> None:
        trits = np.zeros((1_000, 9), np.int8)
        trits[987, 6] = 3
        with pytest.raises(MlflowException, match=r"^Row 987, position 6 must be -1, 0 or 1, got 3\."):
            to_indices(trits, 9)

    @pytest.mark.parametrize("array", [np.zeros((0, 9)), np.zeros((1, 9), bool), np.zeros((1, 1), str), np.zeros(())])
    def test_other_arrays_of_a_python_caller_are_refused(self, array: np.ndarray) -> None:
        with pytest.raises(MlflowException, match="must"):
            to_indices(array, 9)

    def test_rows_hidden_in_cells_of_a_python_caller_are_refused(self) -> None:
        rows = np.empty(2, object)
        rows[:] = [[0] * 9, [0] * 9]
        with pytest.raises(MlflowException, match=r"must be an array of shape \(n, 9\) or \(n, 1\), got \(2,\)"):
            to_indices(rows, 9)

    def test_a_fault_of_ours_is_a_500_without_a_trace_and_is_in_the_servers_log(
        self, saved: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = mlflow.pyfunc.load_model(str(saved))
        broken.unwrap_python_model().answers = None
        with caplog.at_level(logging.ERROR, "tvae.serving"):
            answer = in_process(broken)(body([GOOD]))
        assert (answer.status, answer.content["error_code"]) == (500, "INTERNAL_ERROR")
        assert answer.message == "The request could not be answered; the server's log says why."
        assert "AttributeError" in caplog.text
        assert "stack_trace" not in answer.content


class TestLoading:
    def test_a_damaged_checkpoint_is_refused(self, checkpoint: Path, tmp_path: Path) -> None:
        path = tmp_path / "model"
        mlflow.pyfunc.save_model(path, **pyfunc_arguments(read(checkpoint)))
        weights = path / "artifacts" / "checkpoint.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="digest"):
            mlflow.pyfunc.load_model(str(path))

    def test_a_model_with_a_radius_that_is_nan_is_refused(self) -> None:
        model = random_model(Architecture(n_trits=3))
        with torch.no_grad():
            model.projection.radius_net[0].weight.fill_(float("nan"))
        with pytest.raises(EvaluationError, match="operation 0"):
            answers(model)

    def test_the_garbage_collector_is_left_alone(self, saved: Path) -> None:
        before = gc.get_freeze_count()
        mlflow.pyfunc.load_model(str(saved))
        assert gc.get_freeze_count() == before

    def test_the_server_keeps_the_garbage_collector_from_what_is_loaded(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", gc)
        mlflow.pyfunc.load_model(str(saved))
        frozen = gc.get_freeze_count()
        gc.unfreeze()
        assert frozen > 10_000


class TestLogging:
    def test_the_model_names_the_checkpoint_it_holds(self, pyfunc: PyFuncModel, checkpoint: Path) -> None:
        assert pyfunc.metadata.metadata == {
            "digest": read(checkpoint).digest,
            "trained": ["encoder", "decoder", "projection"],
        }

    def test_requirements_are_the_projects_pins(self) -> None:
        pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        assert set(pip_requirements()) <= set(pins)

    def test_requirements_carry_no_local_version(self) -> None:
        assert f"torch=={version('torch').split('+')[0]}" in pip_requirements()

    def test_loading_imports_nothing_else_that_has_to_be_installed(self) -> None:
        declared = {"click", "joblib", "matplotlib", "mlflow", "numpy", "safetensors", "scipy", "sklearn", "torch"}
        script = "import sys, tvae.checkpoint, tvae.metrics; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
        assert (declared & set(loaded.stdout.split())) <= set(REQUIREMENTS)

    def test_as_a_module_it_sets_no_model_and_knows_nothing_of_tracking(self) -> None:
        script = (
            "import sys, tvae.serving, mlflow.models.model as m;"
            "assert m.__mlflow_model__ is None; assert not any(n.startswith('tvae.tracking') for n in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

    @pytest.mark.integration
    def test_it_logs_and_loads_without_a_warning_from_a_folder_without_the_repository(
        self, checkpoint: Path, tmp_path: Path, radii: np.ndarray
    ) -> None:
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        log = (
            "import mlflow; from tvae.checkpoint import read; from tvae.serving import pyfunc_arguments\n"
            f"model = mlflow.pyfunc.log_model(**pyfunc_arguments(read({str(checkpoint)!r})), name='model')\n"
            "print(model.model_uri)"
        )
        uri = run(log, tmp_path, MLFLOW_TRACKING_URI=store).split()[-1]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        ask = (
            "import json, sys, mlflow, numpy as np\n"
            f"model = mlflow.pyfunc.load_model({uri!r})\n"
            "radii = [record['radius'] for record in model.predict(np.arange(19683)[:, None])]\n"
            "from tvae import serving\n"
            "ours = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'tvae']\n"
            "print(json.dumps({'radii': radii, 'files': ours}))"
        )
        found = json.loads(run(ask, elsewhere, MLFLOW_TRACKING_URI=store).splitlines()[-1])
        assert np.abs(np.array(found["radii"]) - radii).max() <= 1e-5
        assert found["files"]
        assert not [file for file in found["files"] if file.startswith(str(ROOT / "tvae"))]


def run(script: str, folder: Path, **environment: str) -> str:
    """Run Python elsewhere and return what it printed; it must not warn of anything."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    return done.stdout


def benchmark(name: str) -> ModuleType:
    """A module of the benchmarks: they know how to start a server, and what to put it under."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def server(saved: Path) -> Iterator[Any]:
    with benchmark("model_server").serve(saved) as server:
        yield server


@pytest.fixture(scope="module")
def served(server: Any) -> Ask:
    def ask(text: str) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.request("POST", "/invocations", text.encode(), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode()
            return Answer(response.status, json.loads(content), content)

    return ask


@pytest.mark.integration
class TestServer:
    """The same over HTTP, from a server process as `mlflow models serve` starts it."""

    @pytest.mark.parametrize("inputs", [TRITS, INDICES], ids=["trits", "indices"])
    def test_radii_of_all_operations_in_one_request_are_those_of_the_evaluation(
        self, served: Ask, radii: np.ndarray, inputs: list
    ) -> None:
        assert np.abs(ask_radii(served, inputs) - radii).max() <= 1e-5

    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED + REFUSED_BY_MLFLOW))
    def test_a_refused_request_is_answered_and_the_next_one_works(
        self, served: Ask, ask: Ask, text: str, sentence: str
    ) -> None:
        refused, good = served(text), body([GOOD, TRITS[5]], params=EMBEDDING)
        assert refused.status == 400
        assert sentence in refused.message
        assert str(ROOT) not in refused.text
        assert "Traceback" not in refused.text
        assert served(good) == ask(good)

    def test_under_load_every_answer_is_right_and_memory_does_not_grow(self, server: Any, checkpoint: Path) -> None:
        load = benchmark("load").put_under_load(server, answers(tvae.load(checkpoint)), clients=8, seconds=5)
        assert load.wrong == []
        assert set(load.statuses) == {200, 400}
        assert load.statuses.count(400) == pytest.approx(len(load.statuses) / 10, abs=8)
        before, after = load.growth(2)
        assert after < before + MOST_GROWTH
