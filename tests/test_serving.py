"""The served model: right answers, and a sentence for everything that cannot be answered."""

import gc
import http.client
import importlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from exact_model import exact_model, random_model
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, get_model_info
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations
from mlflow.types import ColSpec, Schema
from registry_store import tracking_in

import tvae
from tvae import ternary
from tvae.checkpoint import load, read, save
from tvae.config.architecture import Architecture
from tvae.embedding.export import embeddings
from tvae.errors import EvaluationError
from tvae.metrics import posterior_mean
from tvae.metrics.nearest import nearest
from tvae.model import COMPONENTS, TernaryVAE
from tvae.registry import address
from tvae.served import MAX_ROWS, TABLE, read_table, to_indices
from tvae.serving import answers, pip_requirements, pyfunc_arguments, require_same_answers

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


Ask = Callable[..., Answer]


def body(inputs: object, **more: object) -> str:
    return json.dumps({"inputs": inputs, **more})


def answer_of(error: MlflowException) -> Answer:
    said = error.serialize_as_json()
    return Answer(error.get_http_status_code(), json.loads(said), said)


def in_process(model: PyFuncModel) -> Ask:
    """Answer as MLflow's server does, without one."""

    def ask(text: str | bytes, kind: str = "application/json") -> Answer:
        sent = text.encode() if isinstance(text, str) else text
        try:
            response = invocations(sent, kind, model, model.metadata.get_input_schema())
        except MlflowException as error:
            return answer_of(error)
        return Answer(response.status, json.loads(response.response), response.response)

    return ask


def write(path: Path, model: TernaryVAE) -> Path:
    save(path, model, trained=COMPONENTS[:3], training={}, metrics={})
    return path


def save_model(folder: Path, checkpoint: Path) -> Path:
    mlflow.pyfunc.save_model(folder / "model", **pyfunc_arguments(read(checkpoint), folder / "files"))
    return folder / "model"


def files_of(model: Path) -> list[Path]:
    """What was saved, without what Python compiled where the model was loaded."""
    return [path for path in model.rglob("*") if path.is_file() and path.suffix != ".pyc"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trained") / "checkpoint.safetensors", random_model(Architecture()))


@pytest.fixture(scope="module")
def saved(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("mlflow"), checkpoint)


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
        # Nine digits of a float64.
        assert np.allclose(ask_radii(ask, inputs), radii, rtol=5.1e-9, atol=0)

    def test_a_record_is_a_radius_and_with_embedding_has_the_documented_fields(self, ask: Ask) -> None:
        (brief,), (whole,) = (ask(body([GOOD], params=p)).content["predictions"] for p in ({}, EMBEDDING))
        assert list(brief) == ["radius"]
        shapes = {"radius": (), "embedding": (16,), "valuation": (), "decoded": (9,)}
        assert {name: np.shape(value) for name, value in whole.items()} == shapes

    def test_a_record_has_the_models_point_the_valuation_and_what_is_read_back_from_the_point_that_is_served(
        self, ask: Ask, checkpoint: Path
    ) -> None:
        records = ask(body(INDICES[::50], params=EMBEDDING)).content["predictions"]
        model, trits = load(checkpoint), TRITS[::50]
        with torch.no_grad():
            points = model(torch.tensor(trits, dtype=torch.float32))
        assert np.allclose([r["embedding"] for r in records], points, atol=1e-6)
        assert [r["valuation"] for r in records] == ternary.valuations(9)[::50].tolist()
        read = tvae.decode([r["embedding"] for r in records], model)
        assert [r["decoded"] for r in records] == read.trits.tolist() == trits

    @pytest.mark.parametrize("curvature", [0.5, 2.0, 5.0])
    def test_near_the_boundary_float32_points_give_operations_and_radii_back(self, curvature: float) -> None:
        model = random_model(Architecture(curvature=curvature))
        with torch.no_grad():
            # All in all directions, about as far out as they can be: up to twice as far from operation 0.
            model.encoder.mean.bias.sub_(posterior_mean(model).mean(0))
            model.projection.radius_net[-2].bias.fill_(7.0)
        served = answers(model)
        points = served.embedding.astype(np.float32)
        norms = np.linalg.norm(points.astype(np.float64), axis=1) * curvature**0.5
        assert 0.999 < norms.max() < 0.9995
        assert np.array_equal(served.decoded, ternary.operations())
        some = np.arange(0, ternary.N_OPERATIONS, 41)
        found = tvae.decode(points[some], model)
        assert np.array_equal(found.index, some)
        assert found.distance.max() < 2e-4 / curvature**0.5
        assert np.allclose(2 / curvature**0.5 * np.arctanh(norms), served.radius, rtol=0, atol=2e-4 / curvature**0.5)
        table = embeddings(model)
        of_table = 2 * np.arctanh(np.linalg.norm(table["z"], axis=1) * curvature**0.5) / curvature**0.5
        assert np.allclose(of_table, table["radius"], rtol=1e-11, atol=1e-15)
        assert table["z"].dtype == table["radius"].dtype == np.float64

    def test_operations_of_one_point_are_decoded_as_the_first_of_them(self) -> None:
        model = exact_model(4)
        with torch.no_grad():
            model.encoder.hidden[0].weight[:, 1] = 0.0
        served = answers(model)
        found, distance = nearest(torch.tensor(served.embedding), torch.tensor(served.embedding), curvature=2.0)
        assert not distance.any()
        assert np.array_equal(ternary.to_index(served.decoded), found[:, 0])
        assert len(set(map(tuple, served.decoded.tolist()))) == 27

    def test_an_operation_of_another_space_has_that_spaces_width(self, tmp_path: Path) -> None:
        model = exact_model(3)
        saved = save_model(tmp_path, write(tmp_path / "checkpoint.safetensors", model))
        ask = in_process(mlflow.pyfunc.load_model(str(saved)))
        served = ask_radii(ask, ternary.operations(3).tolist())
        assert served == pytest.approx(tvae.evaluate(model).radii, rel=1e-6)
        named = ask(body([{"t2": 1, "t0": -1, "t1": 0}], params=EMBEDDING)).content["predictions"]
        assert named == ask(body([[-1, 0, 1]], params=EMBEDDING)).content["predictions"]
        assert "missing: t2." in ask(body([{"t0": -1, "t1": 0}])).message

    def test_changing_a_record_changes_no_later_answer(self, pyfunc: PyFuncModel) -> None:
        first = pyfunc.predict(np.array([[5]]), params=EMBEDDING)
        first[0]["embedding"][0] = first[0]["radius"] = 7.0
        again = pyfunc.predict(np.array([[5]]), params=EMBEDDING)
        assert 7.0 not in (again[0]["radius"], again[0]["embedding"][0])

    def test_numbers_are_written_with_at_most_nine_digits(self, ask: Ask) -> None:
        numbers = ask(body([[i] for i in range(100)])).text.split('"radius": ')[1:]
        assert max(len(number.split("}")[0].split("e")[0].replace(".", "").lstrip("0")) for number in numbers) <= 9


COLUMNS = [f"t{i}" for i in range(9)]
SOME = [5, 9841, 19682, 0, 5]
ROWS = [TRITS[i] for i in SOME]
REVERSED = [row[::-1] for row in ROWS]
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
FRAME = pd.DataFrame(ROWS, columns=COLUMNS)


def split(columns: object, data: object) -> str:
    return json.dumps({"dataframe_split": {"columns": columns, "data": data}})


def csv_of(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False)


def parquet_of(frame: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.to_parquet(stream)
    return stream.getvalue()


BY_INDEX = pd.DataFrame({"index": SOME})
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
# Every way to ask a server for SOME.
SENT: dict[str, tuple[str | bytes, str]] = {
    "inputs, trits": (body(ROWS), JSON),
    "inputs, rows of an index": (body([[i] for i in SOME]), JSON),
    "inputs, indices": (body(SOME), JSON),
    "inputs, floats": (body([float(i) for i in SOME]), JSON),
    "inputs, trits as floats": (body([[-0.0 if trit == 0 else float(trit) for trit in row] for row in ROWS]), JSON),
    "inputs, records": (body(RECORDS), JSON),
    "inputs, columns": (body({name: FRAME[name].tolist() for name in reversed(COLUMNS)}), JSON),
    "inputs, a column": (body({"index": SOME}), JSON),
    "instances, trits": (json.dumps({"instances": ROWS}), JSON),
    "instances, indices": (json.dumps({"instances": SOME}), JSON),
    "instances, records": (json.dumps({"instances": RECORDS}), JSON),
    "instances, index": (json.dumps({"instances": [{"index": i} for i in SOME]}), JSON),
    "split": (split(COLUMNS, ROWS), JSON),
    "split, reversed": (split(COLUMNS[::-1], REVERSED), JSON),
    "split, of pandas": (json.dumps({"dataframe_split": FRAME.to_dict(orient="split")}), JSON),
    "split, index": (split(["index"], [[i] for i in SOME]), JSON),
    "split, no names": (json.dumps({"dataframe_split": {"data": ROWS}}), JSON),
    "records": (json.dumps({"dataframe_records": [dict(reversed(r.items())) for r in RECORDS]}), JSON),
    "records, index": (json.dumps({"dataframe_records": [{"index": i} for i in SOME]}), JSON),
    "csv": (csv_of(FRAME), CSV),
    "csv, reversed, floats": (csv_of(FRAME[COLUMNS[::-1]].astype(float)), CSV),
    "csv, index": (csv_of(BY_INDEX), CSV),
    "csv, byte order mark, CRLF": ("\ufeff" + csv_of(BY_INDEX).replace("\n", "\r\n"), CSV),
    "parquet": (parquet_of(FRAME[COLUMNS[::-1]]), PARQUET),
    "parquet, index": (parquet_of(BY_INDEX), PARQUET),
}
# Every way to ask for SOME in Python.
GIVEN: dict[str, Any] = {
    "frame": FRAME,
    "frame, reversed": FRAME[COLUMNS[::-1]],
    "frame, floats": FRAME.astype(np.float16),
    "frame, nullable": FRAME.astype("Int64"),
    "frame, objects": FRAME.astype(object),
    "frame, mixed": FRAME.astype({"t0": float, "t1": "int8", "t2": object}),
    "frame, no names": pd.DataFrame(ROWS),
    "frame, names of mlflow.evaluate": FRAME.set_axis([f"feature_{i}" for i in range(1, 10)], axis=1),
    "frame, index": BY_INDEX,
    "frame, index among nulls, as Spark gives it": BY_INDEX.reindex(columns=["index", *COLUMNS]),
    "frame, index, unsigned": BY_INDEX.astype(np.uint16),
    "series": pd.Series(SOME),
    "series, floats": pd.Series(SOME, dtype=float, name="operation"),
    "list of lists": ROWS,
    "list of tuples": list(map(tuple, ROWS)),
    "list of arrays": list(map(np.array, ROWS)),
    "list of indices": SOME,
    "list of numpy integers": list(np.array(SOME)),
    "list of records": RECORDS,
    "tuple": tuple(SOME),
    "columns": {name: FRAME[name].to_numpy() for name in COLUMNS},
    "tensor": torch.tensor(ROWS),
    "array of lists": np.array([*ROWS, None], object)[:-1],
    **{f"array, {t}": np.array(ROWS, t) for t in ("int8", "int16", "int32", "int64", "f2", "f4", "f8", "g", "O")},
    **{f"indices, {t}": np.array(SOME, t) for t in ("uint16", "int32", "uint64", "float32", "float64", "O")},
    "column of indices": np.array(SOME)[:, None],
}


@pytest.fixture(scope="module")
def expected(pyfunc: PyFuncModel, radii: np.ndarray) -> list[dict[str, Any]]:
    records = pyfunc.predict(np.array(SOME))
    assert [record["radius"] for record in records] == pytest.approx(radii[SOME], rel=1e-7)
    assert len({record["radius"] for record in records}) == len(set(SOME))
    return list(records)


class TestFormats:
    """Every input format that MLflow has means the same."""

    @pytest.mark.parametrize("name", SENT)
    def test_a_server_answers_each(self, ask: Ask, expected: list[dict[str, Any]], name: str) -> None:
        answer = ask(*SENT[name])
        assert (answer.status, answer.content) == (200, {"predictions": expected})

    @pytest.mark.parametrize("name", GIVEN)
    def test_python_answers_each(self, pyfunc: PyFuncModel, expected: list[dict[str, Any]], name: str) -> None:
        answer = pyfunc.predict(GIVEN[name])
        assert isinstance(answer, pd.DataFrame) == isinstance(GIVEN[name], pd.DataFrame | pd.Series)
        assert (answer.to_dict("records") if isinstance(answer, pd.DataFrame) else answer) == expected

    def test_a_table_keeps_its_row_labels(self, pyfunc: PyFuncModel) -> None:
        assert pyfunc.predict(FRAME.set_axis(list("abcde"))).index.tolist() == list("abcde")

    def test_a_row_of_a_table_is_an_operation(self, pyfunc: PyFuncModel, expected: list[dict[str, Any]]) -> None:
        assert pyfunc.predict(FRAME.iloc[1]).to_dict("records") == expected[1:2]

    @pytest.mark.integration
    @pytest.mark.filterwarnings("ignore")  # the evaluator's own
    def test_mlflow_evaluates_it(self, saved: Path, tmp_path: Path) -> None:
        indices = np.arange(100, 120)
        whole = pd.DataFrame(ternary.to_trits(indices).astype(int), columns=COLUMNS).assign(index=indices)
        radius = mlflow.pyfunc.load_model(str(saved)).predict(indices)
        target = np.array([record["radius"] for record in radius])
        errors = {}
        with tracking_in(tmp_path), mlflow.start_run():
            for columns, form in itertools.product((COLUMNS, ["index"]), ("frame", "floats", "numpy")):
                frame = whole[columns]
                data = {"frame": frame, "floats": frame.astype(float), "numpy": frame.to_numpy()}[form]
                found = mlflow.models.evaluate(
                    str(saved),
                    data if form == "numpy" else data.assign(target=target),
                    targets=target if form == "numpy" else "target",
                    model_type="regressor",
                )
                errors[columns[0], form] = found.metrics["max_error"]
        assert len(errors) == 6
        assert not {case: error for case, error in errors.items() if error != 0}

    @pytest.mark.long
    @pytest.mark.integration
    @pytest.mark.parametrize("name", ["csv, reversed, floats", "split, reversed"])
    def test_mlflow_models_predict_answers_it(
        self, saved: Path, tmp_path: Path, expected: list[dict[str, Any]], name: str
    ) -> None:
        sent, kind = SENT[name]
        (tmp_path / "asked").write_text(str(sent))
        command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", str(saved), "--env-manager", "local"]
        command += ["-i", str(tmp_path / "asked"), "-t", "csv" if kind == CSV else "json"]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        assert json.loads(done.stdout.splitlines()[-1]) == {"predictions": expected}

    @pytest.mark.filterwarnings("ignore:.*input example")
    def test_other_models_are_parsed_as_before(self, ask: Ask, tmp_path: Path) -> None:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "echo_model.py").write_text(
            "class Echo:\n def predict(self, data): return type(data).__name__\ndef _load_pyfunc(path): return Echo()"
        )
        mlflow.pyfunc.save_model(
            tmp_path / "model",
            loader_module="echo_model",
            code_paths=[str(tmp_path / "code" / "echo_model.py")],
            signature=ModelSignature(Schema([ColSpec("long", "x")])),
            pip_requirements=[],
        )
        echo = in_process(mlflow.pyfunc.load_model(str(tmp_path / "model")))
        assert echo('{"dataframe_records": [{"x": 1}]}').content == {"predictions": "DataFrame"}
        assert echo("x\n1\n", CSV).content == {"predictions": "DataFrame"}
        assert echo('{"dataframe_records": [{"y": 1}]}').status == 400


MUST = "The columns must be `index`, or `t0` to `t8`"
INDEX = "must be an index, an integer from 0 to 19682, got"
KEYS = "A request must be a JSON object with one of the keys"
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
    (
        "a string for all",
        body("abc"),
        'A request must be a list of rows, each a list of 9 trits or of one index; got "',
    ),
    ("a number for all", body(5), "A request must be a list of rows, each a list of 9 trits or of one index; got 5."),
    ("null for all", body(None), "A request must be a list of rows, each a list of 9 trits or of one index; got null."),
    ("no rows", body([]), "A request must have 1 to 200000 rows, each a list of 9 trits or of one index; got 0 rows."),
    ("no columns", body({}), "A request must have 1 to 200000 rows"),
    ("objects", body([{"a": 1}, {"a": 0}]), 'The columns must be `index`, or `t0` to `t8`; got column "a".'),
    ("an object", body({"a": [1]}), 'The columns must be `index`, or `t0` to `t8`; got column "a".'),
    ("no inputs", "{}", f"{KEYS} dataframe_records, dataframe_split, inputs"),
    ("a misspelt key", '{"input": [[0]]}', KEYS),
    ("two inputs", body([[0]], instances=[[0]]), KEYS),
    ("a boolean", body([[*GOOD[:8], True]]), "Row 0, position 8 must be -1, 0 or 1, got true."),
    ("nested cell", body([GOOD, [0, [1], *GOOD[2:]]]), "Row 1, position 1 must be -1, 0 or 1, got [1]."),
    ("nested cells", body([[[0]] * 9]), "Row 0, position 0 must be -1, 0 or 1, got [0]."),
    ("nested rows", body([[GOOD]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got [0, 0,"),
    ("nested deeply", body([[json.loads("[" * 80 + "]" * 80)]]), "Row 0, position 0 must be an index"),
    ("ragged", body([GOOD, GOOD[:4]]), "Row 1 must be a list of 9 trits or of one index, got 4 values: [0, 0, 0, 0]."),
    ("trits and index", body([GOOD, [5]]), "Row 1 must have 9 values as row 0 has, got 1 value: [5]."),
    ("flat", body(GOOD), "One list of 9 numbers from -1 to 1 could be the trits of an operation or 9 indices."),
    ("flat, out of range", body([5, 19683]), "Row 1, position 0 must be an index, an integer from 0 to 19682, got"),
    ("flat and a row", body([5, [5]]), "Row 0 must be a list of 9 trits or of one index, got 5."),
    ("empty row", body([[]]), "Row 0 must be a list of 9 trits or of one index, got 0 values: []."),
    ("object in a row", body([[{"a": 1}, *GOOD[1:]]]), 'Row 0, position 0 must be -1, 0 or 1, got {"a": 1}.'),
    ("object for a row", body([GOOD, {"a": 1}]), 'Row 1 must be a list of 9 trits or of one index, got {"a": 1}.'),
    ("index 19683", body([[0], [19683]]), "Row 1, position 0 must be an index, an integer from 0 to 19682, got 19683."),
    ("index -1", body([[-1]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got -1."),
    ("index 0.5", body([[0.5]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got 0.5."),
    ("index null", body([[None]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got null."),
    ("index true", body([[True]]), "Row 0, position 0 must be an index, an integer from 0 to 19682, got true."),
    ("too many rows", body([[0]] * (MAX_ROWS + 1)), "A request must have 1 to 200000 rows"),
]
# What MLflow answers before tvae is asked.
REFUSED_BY_MLFLOW = [
    ("broken JSON", '{"inputs": [[0, 0', "valid JSON"),
    ("empty body", "", "valid JSON"),
    ("a list", "[[0]]", "must be a JSON dictionary"),
    ("a param that is no boolean", body([[0]], params={"embedding": "yes"}), "boolean"),
    ("params that are no object", body([[0]], params=[1]), "must be a dictionary"),
]


# (name, columns, rows, what the sentence says).
TABLES_REFUSED: list[tuple[str, list[str], list[list[Any]], str]] = [
    ("0.5", COLUMNS, [GOOD, [*GOOD[:3], 0.5, *GOOD[4:]]], "Row 1, column t3 must be -1, 0 or 1, got 0.5."),
    ("2", COLUMNS, [[*GOOD[:8], 2]], "Row 0, column t8 must be -1, 0 or 1, got 2"),
    ("nan", COLUMNS, [[*GOOD[:8], float("nan")]], "Row 0, column t8 must be -1, 0 or 1, got "),
    ("text", COLUMNS, [[*GOOD[:8], "a"]], 'Row 0, column t8 must be -1, 0 or 1, got "a".'),
    ("index 0.5", ["index"], [[0], [0.5]], f"Row 1, column index {INDEX} 0.5"),
    ("index -1", ["index"], [[-1]], f"Row 0, column index {INDEX} -1."),
    ("missing", COLUMNS[:3] + COLUMNS[4:], [GOOD[:8]], f"{MUST}; missing: t3."),
    ("unknown", [*COLUMNS, "t9"], [[*GOOD, 0]], f'{MUST}; got column "t9".'),
    ("both", ["index", *COLUMNS], [[0, *GOOD]], f"{MUST}, not both; got index"),
    ("no rows", COLUMNS, [], "A request must have 1 to 200000 rows"),
]
# Tables that only some formats can hold.
JSON_REFUSED: list[tuple[str, str, str]] = [
    ("a row too long", split(["index"], [[1], [1, 2]]), "Row 1 must be a list of "),
    ("a row too short", split(["t0", "t1"], [[1]]), "Row 0 must be a list of "),
    ("no list", split(["index"], [1]), "Row 0 must be a list of 1 value, got 1."),
    ("no data", '{"dataframe_split": {"columns": ["index"]}}', "`dataframe_split` must be an object with columns"),
    ("a list", '{"dataframe_split": [[1]]}', "`dataframe_split` must be an object with columns and data; got [[1]]."),
    ("names", split(5, [[1]]), "`columns` must be a list of names; got 5."),
    ("twice", split(["index", "index"], [[1, 2]]), "The columns must be `index`, or"),
    ("text", split(["index"], [["1"]]), "Row 0, column index must be an index"),
    ("true", '{"dataframe_records": [{"index": 0}, {"index": true}]}', "Row 1, column index must be an index"),
    ("true", '{"instances": [{"index": 0}, {"index": true}]}', "Row 1, column index must be an index"),
    ("null", '{"dataframe_records": [{"index": 0}, {"index": null}]}', "Row 1, column index must be an index"),
    ("lacks", '{"dataframe_records": [{"index": 0}, {}]}', "Row 1 must have the columns that row 0 has; it lacks"),
    ("has", '{"instances": [{"index": 0}, {"index": 0, "t0": 0}]}', "Row 1 must have the columns that row 0 has; it"),
    ("a row", '{"dataframe_records": [{"index": 0}, [0]]}', "Row 1 must be an object as row 0 is, got [0]."),
    ("lengths", '{"inputs": {"index": [0, 1], "t0": [1]}}', "Columns must have equally many rows; got"),
]
CSV_REFUSED: list[tuple[str, str, str]] = [
    ("csv, too long", "index\n1,2\n3,4\n", "Row 0 must be a list of 1 value, got 2 values: [1, 2]."),
    ("csv, too short", "t0,t1\n0\n", "Row 0 must be a list of 2 values, got 1 value: [0]."),
    ("csv, an empty cell", "t0,index\n,1\n", "The columns must be"),
    ("csv, empty", "", "A CSV must begin with a line of names of columns; got nothing."),
    ("csv, no names", "5\n6\n", f'{MUST}; got column "5".'),
    ("csv, row labels", ",index\n0,5\n", f'{MUST}; got column "". Row labels'),
    ("csv, semicolons", "t0;t1\n0;0\n", f"{MUST}; got column"),
    ("csv, true", "index\n1\nTrue\n", f'Row 1, column index {INDEX} "True".'),
    ("csv, underscore", "index\n1_0\n", f'Row 0, column index {INDEX} "1_0".'),
    ("csv, huge", f"index\n{'1' * 200_000}\n", "The CSV could not be read: field larger than field limit"),
]


def ask_table(ask: Ask, where: str, names: list[str], rows: list[list[Any]]) -> Answer:
    """Ask with a table in one of MLflow's formats."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    frame = pd.DataFrame(rows, columns=names)
    match where:
        case "split":
            return ask(split(names, rows))
        case "records":
            return ask(json.dumps({"dataframe_records": records}))
        case "instances":
            return ask(json.dumps({"instances": records}))
        case "csv":
            return ask(frame.to_csv(index=False, na_rep="nan"), CSV)
        case _:
            return ask(parquet_of(frame), PARQUET)


def predict_refused(pyfunc: PyFuncModel, given: Any) -> Answer:
    with pytest.raises(MlflowException) as refused:
        pyfunc.predict(given)
    return answer_of(refused.value)


def sentence_of(answer: Answer) -> str:
    """What a refusal says, of a request that cannot be answered: a short sentence, and no trace."""
    assert answer.status == 400
    assert set(answer.content) == {"error_code", "message", "sqlstate", "error_class"}
    assert len(answer.message) < 250
    return answer.message


def cases(rows: list[tuple[str, str, str]]) -> list[Any]:
    return [pytest.param(text, sentence, id=name) for name, text, sentence in rows]


class TestRefusal:
    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED + JSON_REFUSED))
    def test_bad_input_is_answered_with_a_sentence_that_names_it(self, ask: Ask, text: str, sentence: str) -> None:
        assert sentence_of(ask(text)).startswith(sentence)

    @pytest.mark.parametrize(("text", "sentence"), cases(CSV_REFUSED))
    def test_a_bad_csv_is_refused_with_a_sentence(self, ask: Ask, text: str, sentence: str) -> None:
        assert sentence_of(ask(text, CSV)).startswith(sentence)

    @pytest.mark.parametrize("where", ["split", "records", "instances", "csv", "frame", "parquet"])
    @pytest.mark.parametrize(
        ("names", "rows", "sentence"), [pytest.param(*rest, id=name) for name, *rest in TABLES_REFUSED]
    )
    def test_a_bad_table_is_refused_in_every_format_by_row_and_column(
        self, ask: Ask, pyfunc: PyFuncModel, where: str, names: list[str], rows: list[list[Any]], sentence: str
    ) -> None:
        if where == "frame":
            answer = predict_refused(pyfunc, pd.DataFrame(rows, columns=names))
        else:
            answer = ask_table(ask, where, names, rows)
        assert sentence_of(answer).startswith(sentence)

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            (FRAME["t0"], "missing: t1, t2"),
            (FRAME.assign(extra=1), 'got column "extra"'),
            (pd.DataFrame(ROWS, columns=range(9, 0, -1)), "got column 9."),
            (pd.DataFrame({"index": pd.array([1, None], "Int64")}), "Row 1, column index"),
            (pd.DataFrame({"index": pd.to_datetime(["2020-01-01"])}), "Row 0, column index"),
            (pd.DataFrame({"index": [True]}), "got true."),
            (pd.DataFrame(), "got 0 values"),
            (np.array([5j]), "Row 0, position 0"),
            (np.array([[0.5]]), "got 0.5."),
            (np.zeros((2, 0)), "got 0 values"),
            (np.zeros((1, 1, 1)), "an array of shape (1, 1, 1)"),
            (np.zeros(9), "One list of 9 numbers from -1 to 1 could be"),
            ([np.zeros(9), np.zeros(8)], "Row 1 must be a list of 9 trits or of one index, got 8 values"),
            (np.int64(5), "A request must be"),
            (object(), "got a value of type object."),
        ],
    )
    def test_what_a_python_caller_gives_is_judged_alike(self, pyfunc: PyFuncModel, given: Any, sentence: str) -> None:
        assert sentence in sentence_of(predict_refused(pyfunc, given))

    @pytest.mark.parametrize(("text", "sentence"), cases(REFUSED_BY_MLFLOW))
    def test_what_mlflow_refuses_has_a_sentence_and_no_trace(self, ask: Ask, text: str, sentence: str) -> None:
        assert sentence in sentence_of(ask(text))

    def test_a_path_in_a_request_is_not_read(self, ask: Ask, tmp_path: Path) -> None:
        (tmp_path / "rows.json").write_text("[[5]]")
        assert "must be a list of rows" in sentence_of(ask(body(str(tmp_path / "rows.json"))))

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

    def test_a_fault_of_ours_is_a_500_without_a_trace_and_is_in_the_servers_log(
        self, saved: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = mlflow.pyfunc.load_model(str(saved))
        broken._model_impl.answers = None
        with caplog.at_level(logging.ERROR, "tvae.served"):
            answer = in_process(broken)(body([GOOD]))
        assert (answer.status, answer.content["error_code"]) == (500, "INTERNAL_ERROR")
        assert answer.message == "The request could not be answered; the server's log says why."
        assert "AttributeError" in caplog.text
        assert "stack_trace" not in answer.content


class TestLoading:
    @pytest.mark.parametrize("place", [100, 1_000_000, -1_000])
    def test_a_damaged_table_is_refused(self, saved: Path, tmp_path: Path, place: int) -> None:
        path = Path(shutil.copytree(saved, tmp_path / "model"))
        table = path / "data" / "served" / TABLE
        content = bytearray(table.read_bytes())
        content[place] ^= 0x55
        table.write_bytes(content)
        with pytest.raises(ValueError, match=r"answers\.npz must be the table of a served model"):
            mlflow.pyfunc.load_model(str(path))

    def test_a_table_of_another_length_is_refused(self, tmp_path: Path) -> None:
        whole = answers(exact_model(3))
        replace(whole, radius=whole.radius[1:]).write(tmp_path / TABLE, "digest")
        with pytest.raises(ValueError, match="must hold a finite answer for each of 3\\^3 operations"):
            read_table(tmp_path / TABLE)

    def test_loading_imports_no_torch_and_nothing_of_tvae(self, saved: Path, tmp_path: Path) -> None:
        script = (
            f"import sys, mlflow; print(mlflow.pyfunc.load_model({str(saved)!r}).predict([[5]]))\n"
            "print(*sorted(n for n in sys.modules if n.split('.')[0] in ('torch', 'tvae', 'safetensors')))"
        )
        assert run(script, tmp_path, PYTHONPATH=str(ROOT)).splitlines()[1:] == [""]

    @pytest.mark.long
    def test_above_a_size_the_network_answers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tvae.serving.MOST_OPERATIONS", 26)
        saved = save_model(tmp_path, write(tmp_path / "checkpoint.safetensors", exact_model(3)))
        assert not list(saved.rglob(TABLE))
        assert any(line.startswith("torch==") for line in (saved / "requirements.txt").read_text().splitlines())
        script = (
            f"import sys, mlflow; print(mlflow.pyfunc.load_model({str(saved)!r}).predict(list(range(27))))\n"
            "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'tvae'), sep='\\n')"
        )
        said, *files = run(script, tmp_path, PYTHONPATH="").splitlines()
        assert said == str(answers(exact_model(3)).records(np.arange(27), embedding=False))
        assert not [file for file in files if not file.startswith(str(saved))]

    def test_a_model_with_a_radius_that_is_nan_is_refused(self) -> None:
        model = random_model(Architecture(n_trits=3))
        with torch.no_grad():
            model.projection.radius_net[0].weight.fill_(float("nan"))
        with pytest.raises(EvaluationError, match="operation 0"):
            answers(model)

    @pytest.mark.parametrize("server", [False, True])
    def test_the_server_alone_keeps_the_garbage_collector_from_what_is_loaded(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch, server: bool
    ) -> None:
        frozen: list[bool] = []
        monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
        if server:
            monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", gc)
        mlflow.pyfunc.load_model(str(saved))
        assert frozen == [True] * server


def test_a_model_that_was_logged_when_the_network_answered_is_still_served(tmp_path: Path) -> None:
    """A registered model as it was before there were tables: its own server code, and a checkpoint of version 1."""
    data = Path(__file__).parent / "data"
    shutil.unpack_archive(data / "served-model-of-the-network.zip", tmp_path)
    served = mlflow.pyfunc.load_model(str(tmp_path))
    found = served.predict(np.arange(27)[:, None], params={"embedding": True})
    model = tvae.load(data / "format-version-1.safetensors")
    assert [record["radius"] for record in found] == pytest.approx(tvae.evaluate(model).radii, rel=1e-6)
    assert np.allclose([record["embedding"] for record in found], tvae.codebook(model).points, atol=1e-7)
    assert [record["valuation"] for record in found] == ternary.valuations(3).tolist()


class TestLogging:
    def test_the_model_names_the_checkpoint_it_holds(self, pyfunc: PyFuncModel, checkpoint: Path) -> None:
        assert pyfunc.metadata.metadata == {
            "digest": read(checkpoint).digest,
            "trained": ["encoder", "decoder", "projection"],
        }

    def test_requirements_are_the_installed_mlflow_and_numpy_without_a_local_version(self, saved: Path) -> None:
        assert pip_requirements() == [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "numpy")]
        assert (saved / "requirements.txt").read_text().split() == pip_requirements()
        assert pip_requirements(("torch",)) == [f"torch=={version('torch').split('+')[0]}"]

    def test_it_holds_only_the_files_that_it_needs(self, saved: Path) -> None:
        files = sorted(path.relative_to(saved).as_posix() for path in files_of(saved))
        (code,) = (file for file in files if file.startswith("code/"))
        assert re.fullmatch(r"code/tvae_served_[0-9a-f]{8}\.py", code)
        assert files == [
            "MLmodel",
            code,
            "conda.yaml",
            "data/served/answers.npz",
            "data/served/checkpoint.safetensors",
            "input_example.json",
            "python_env.yaml",
            "requirements.txt",
            "serving_input_example.json",
        ]

    def test_no_file_names_a_folder_of_this_machine(self, saved: Path, checkpoint: Path) -> None:
        texts = [path.read_bytes() for path in files_of(saved)]
        assert not [
            place
            for place in (ROOT, saved.parent, checkpoint.parent, Path.home(), sys.prefix)
            for text in texts
            if str(place).encode() in text
        ]

    def test_the_table_is_the_networks_answers_bit_for_bit(self, saved: Path, checkpoint: Path) -> None:
        table, digest = read_table(saved / "data" / "served" / TABLE)
        assert table.same(answers(load(checkpoint)))
        assert digest == read(checkpoint).digest

    def test_a_table_that_differs_in_one_bit_or_is_of_another_checkpoint_is_refused(self, tmp_path: Path) -> None:
        digest = read(write(tmp_path / "checkpoint.safetensors", exact_model(3))).digest
        table = answers(exact_model(3))
        table.write(tmp_path / TABLE, digest)
        require_same_answers(tmp_path)
        table.write(tmp_path / TABLE, "another")
        with pytest.raises(EvaluationError, match="bit for bit; it holds others, of another"):
            require_same_answers(tmp_path)
        radius = table.radius.copy()
        radius[7] = np.nextafter(radius[7], 1)
        replace(table, radius=radius).write(tmp_path / TABLE, digest)
        with pytest.raises(EvaluationError, match="bit for bit"):
            require_same_answers(tmp_path)
        (tmp_path / TABLE).write_bytes(b"no table")
        with pytest.raises(EvaluationError, match="cannot be read"):
            require_same_answers(tmp_path)

    def test_the_schema_names_the_columns_and_the_example_uses_them(self, saved: Path, pyfunc: PyFuncModel) -> None:
        schema = get_model_info(str(saved)).signature.inputs
        assert schema.input_names() == ["index", *COLUMNS]
        assert schema.required_input_names() == []
        example = pyfunc.input_example
        assert list(example.columns) == COLUMNS
        assert example.to_numpy().tolist() == TRITS[:2]
        assert pyfunc.predict(example).equals(pyfunc.predict(pd.DataFrame({"index": [0, 1]})))

    def test_its_address_leads_to_the_checkpoint(self, saved: Path, checkpoint: Path, tmp_path: Path) -> None:
        assert read(address.fetch(str(saved), tmp_path)).digest == read(checkpoint).digest

    @pytest.mark.long
    def test_it_logs_and_loads_without_a_warning_from_a_folder_without_the_repository(
        self, checkpoint: Path, tmp_path: Path, radii: np.ndarray
    ) -> None:
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        log = (
            "import mlflow; from tvae.checkpoint import read; from tvae.serving import pyfunc_arguments\n"
            "from pathlib import Path\n"
            f"arguments = pyfunc_arguments(read({str(checkpoint)!r}), Path('files'))\n"
            "model = mlflow.pyfunc.log_model(**arguments, name='model')\n"
            "print(model.model_uri)"
        )
        uri = run(log, tmp_path, MLFLOW_TRACKING_URI=store).split()[-1]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        ask = (
            "import json, sys, mlflow, numpy as np\n"
            f"model = mlflow.pyfunc.load_model({uri!r})\n"
            "radii = [record['radius'] for record in model.predict(np.arange(19683)[:, None])]\n"
            "ours = [m.__file__ for n, m in sys.modules.items() if n.startswith('tvae')]\n"
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


@pytest.mark.long
class TestServer:
    """The same over HTTP, from a server process as `mlflow models serve` starts it."""

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
