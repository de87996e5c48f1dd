"""The code of a served model: a table of answers, and everything that turns a request into rows of it.

A copy of this file, the table and the checkpoint are all that a logged model holds, so this file imports nothing of
tvae, and no torch. `tvae.serving` makes the table and logs the model.

Whatever a request holds is judged here and not by MLflow. Its parser would turn 0.5 into 0, "1" into 1 and null into
NaN before anybody could see it, ignores columns that it does not know, and loses rows that have no names once the
schema has some. So the signature is marked as one that the model enforces itself (as with a type hint). The one thing
that MLflow then takes away, it is given back by `take_every_format`: keys of a request other than `inputs`.
"""

import csv
import gc
import io
import json
import logging
import math
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, Schema

__all__ = ["MAX_ROWS", "TABLE", "Answers", "ServedModel", "read_table", "schema_of", "take_every_format", "to_indices"]

# Ten times all operations: measured on two busy cores, 6 s of the server's 60, and 21 s with `embedding`.
MAX_ROWS = 200_000
TABLE = "answers.npz"
INDEX = "index"
SPLIT = "dataframe_split"

_ARRAYS = ("radius", "embedding", "valuation", "decoded")
# It loads the model as it is imported, and is imported by nobody but the server.
_SERVER_PROCESS = "mlflow.pyfunc.scoring_server.app"
_SERVER = "mlflow.pyfunc.scoring_server"
_LONGEST_QUOTE = 60
_COUNTED = "Rows and positions count from 0."
_logger = logging.getLogger("tvae.served")

Record = dict[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What can be said of every operation, in index order.

    Attributes:
        n_trits: number of trits; there are N = 3^n_trits operations.
        radius: hyperbolic distance from the origin, shape `(N,)`.
        embedding: points in the ball, float32 values, shape `(N, D)`. A radius computed from them is within
            2e-4/sqrt(c) of `radius`, up to unit norm 0.9995: rounding is seen most near the boundary.
        valuation: 3-adic valuation, shape `(N,)`, in 0 … n_trits.
        decoded: trits of the operation that is read back from `embedding`, shape `(N, n_trits)`.
    """

    n_trits: int
    radius: Floats
    embedding: Floats
    valuation: npt.NDArray[np.int64]
    decoded: npt.NDArray[np.int8]

    def records(self, indices: npt.NDArray[np.int64], *, embedding: bool) -> list[Record]:
        """Return one record an operation.

        A list of dicts is the quickest thing to return that MLflow writes as one record an operation: from a DataFrame
        it would make the same list first.

        Args:
            indices: shape `(n,)`, in 0 … N - 1.
            embedding: whether to say more than the radius.

        Returns:
            `n` dicts with `radius`, and with `embedding` also `embedding`, `valuation` and `decoded`.
        """
        radius = self.radius[indices].tolist()
        if not embedding:
            return [{"radius": r} for r in radius]
        columns = (array[indices].tolist() for array in (self.embedding, self.valuation, self.decoded))
        return [
            {"radius": r, "embedding": e, "valuation": v, "decoded": d}
            for r, e, v, d in zip(radius, *columns, strict=True)
        ]

    def write(self, path: Path, digest: str) -> None:
        """Write the table, with the digest of the checkpoint that it was made from."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(path, allow_pickle=False, digest=np.array(digest), **arrays)

    def same(self, other: "Answers") -> bool:
        """Return whether two tables hold the same bits."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in _ARRAYS]
        return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def read_table(path: Path) -> tuple[Answers, str]:
    """Read what `Answers.write` wrote: the table, and the digest of its checkpoint.

    Raises:
        ValueError: if the file is missing, damaged, or holds no such table.
    """
    try:
        # NumPy reads a member to its last value and not to its end, where the sum of the whole would be checked.
        with zipfile.ZipFile(path) as members:
            if damaged := members.testzip():
                raise ValueError(f"its member {damaged} is damaged")
        with np.load(path, allow_pickle=False) as file:
            digest, arrays = str(file["digest"]), {name: file[name] for name in _ARRAYS}
    # A damaged zip file is one of many errors.
    except Exception as error:
        raise ValueError(
            f"{path} must be the table of a served model, got a file that cannot be read: {error}"
        ) from error
    n_trits = arrays["decoded"].shape[-1]
    rows = {len(array) for array in arrays.values()}
    if rows != {3**n_trits} or not all(np.isfinite(arrays[name]).all() for name in ("radius", "embedding")):
        raise ValueError(f"{path} must hold a finite answer for each of 3^{n_trits} operations; got {rows} rows.")
    for array in arrays.values():
        array.flags.writeable = False
    return Answers(n_trits, **arrays), digest


class InputError(MlflowException):
    """A request that cannot be answered, with the one sentence that says why.

    MLflow's server assigns a new message that begins with the whole input. The sentence already names the row, the
    position and the value, so it stays as it is.
    """

    @property
    def message(self) -> str:
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        if not hasattr(self, "_message"):
            self._message = text


class Answering(Protocol):
    """What a model answers from: `Answers`, or a network."""

    @property
    def n_trits(self) -> int:
        """Number of trits of an operation."""

    def records(self, indices: npt.NDArray[np.int64], *, embedding: bool) -> list[Record]:
        """Return one record an operation, as `Answers.records` does."""


class ServedModel:
    """What MLflow loads and serves."""

    def __init__(self, answers: "Answering") -> None:
        self.answers = answers
        if _SERVER in sys.modules:
            take_every_format(sys.modules[_SERVER])
        if _SERVER_PROCESS in sys.modules:
            # Parsing a large body makes enough lists to start full collections, which would walk through everything
            # that mlflow has made: more than half of the request's time. This process only serves, and nothing in it
            # now will be garbage later.
            gc.collect()
            gc.freeze()

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[Record] | pd.DataFrame:
        """Answer a request.

        Args:
            model_input: as `to_indices` takes it.
            params: `embedding`: whether to say more than the radius.

        Returns:
            One record an operation, as `Answers.records` has them; of a DataFrame or a Series a DataFrame of them, with
            the same row labels.

        Raises:
            MlflowException: 4xx if the input is anything else; 500 if something is wrong here.
        """
        try:
            indices = to_indices(model_input, self.answers.n_trits)
            records = self.answers.records(indices, embedding=bool((params or {}).get("embedding", False)))
            if not isinstance(model_input, pd.DataFrame | pd.Series):
                return records
            labels = model_input.index if len(model_input.index) == len(records) else None
            return pd.DataFrame.from_records(records, index=labels)
        except InputError:
            raise
        except Exception:
            # MLflow would answer any other exception with 400 and the stack trace.
            _logger.exception("A request could not be answered.")
            raise InputError("The request could not be answered; the server's log says why.") from None


def _load_pyfunc(path: str) -> ServedModel:
    """Return the model, for MLflow: `path` is the folder of the table."""
    return ServedModel(read_table(Path(path) / TABLE)[0])


def trit_names(n_trits: int) -> list[str]:
    """Return the names of the trits' columns, least significant first."""
    return [f"t{i}" for i in range(n_trits)]


def schema_of(n_trits: int) -> Schema:
    """Return the columns of a request: `index`, or `t0` and those after it; their names settle their order."""
    return Schema([ColSpec(DataType.long, name, required=False) for name in (INDEX, *trit_names(n_trits))])


class _Rows(NamedTuple):
    """A request, read: what is a number, and what was given.

    Attributes:
        numbers: shape `(n, width)`; NaN for what is no number.
        given: returns a cell by row and column, as it was given.
        names: of the columns; None where positions stand for them.
    """

    numbers: Floats
    given: Callable[[int, int], object]
    names: list[Any] | None = None


def to_indices(model_input: Any, n_trits: int) -> npt.NDArray[np.int64]:
    """Return the indices of the operations in a request.

    Args:
        model_input: rows with names (a DataFrame, a dict of columns, a list of dicts, a dict of `dataframe_split`) or
            without (an array or lists, each row `n_trits` trits or one index), or indices in one dimension (a Series,
            an array, a list). Cells may be of any type.
        n_trits: number of trits of an operation.

    Returns:
        Shape `(n,)`, in 0 … 3^n_trits - 1.

    Raises:
        InputError: if the input is anything else; names row, column or position, and value.
    """
    rows = _read(model_input, n_trits)
    if not 1 <= len(rows.numbers) <= MAX_ROWS:
        raise _refusal(f"A request must have 1 to {MAX_ROWS} rows, {_form(n_trits)}; got {len(rows.numbers)} rows.")
    if rows.names is not None:
        rows = _in_order(rows, n_trits)
    numbers = rows.numbers
    if numbers.shape[1] == 1:
        index = numbers[:, 0]
        _require(rows, (index >= 0) & (index < 3**n_trits) & (index == np.rint(index)), n_trits)
        return index.astype(np.int64)
    _require(rows, (numbers == 0) | (np.abs(numbers) == 1), n_trits)
    # In float64, exact.
    return ((numbers + 1) @ _powers(n_trits)).astype(np.int64)


def _read(given: Any, n_trits: int) -> _Rows:
    """Return the rows of a request in any form, or refuse what has no rows of one width."""
    if isinstance(given, pd.Series):
        trits = trit_names(n_trits)
        # A row of a table, one of its trits' columns, or a column of indices.
        named = given.to_frame(given.name if given.name in trits else INDEX)
        given = given.to_frame().T if {*given.index} & {INDEX, *trits} else named
    if isinstance(given, pd.DataFrame):
        if INDEX in given.columns and len(given):
            # Spark's function of one column comes with all that the schema names, and null in them.
            given = given.dropna(axis=1, how="all") if given.shape[1] > 1 else given
        columns = [given.iloc[:, j].to_numpy() for j in range(given.shape[1])]
        numbers = np.stack([_numbers(c) for c in columns], axis=1) if columns else np.empty((len(given), 0))
        names = None if _numbered(given.columns.tolist()) else given.columns.tolist()
        return _of_width(_Rows(numbers, lambda i, j: columns[j][i], names), n_trits)
    if isinstance(given, dict):
        return _read_table(given, n_trits)
    if not isinstance(given, list | tuple | np.ndarray) and hasattr(given, "__array__"):
        given = np.asarray(given)
    if isinstance(given, np.ndarray) and given.dtype.kind != "O":
        if given.ndim not in (1, 2):
            raise _refusal(f"A request must be rows, {_form(n_trits)}; got an array of shape {given.shape}.")
        array = given if given.ndim == 2 else given[:, None]
        numbers = _numbers(array)
        _require_clear(numbers, given.ndim, n_trits)
        return _of_width(_Rows(numbers, lambda i, j: array[i, j]), n_trits)
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if isinstance(given, list | tuple) and given and isinstance(given[0], dict):
        names = list(given[0])
        return _read_lists(_of_records(given), n_trits, len(names))._replace(names=names)
    return _read_lists(given, n_trits, None)


def _read_table(given: dict[Any, Any], n_trits: int) -> _Rows:
    """Return the rows of a dict of columns, or of one of `dataframe_split`."""
    if given.keys() != {SPLIT}:
        return _read_lists(_transposed(given), n_trits, len(given))._replace(names=list(given))
    table = given[SPLIT]
    if not isinstance(table, dict) or "data" not in table or not table.keys() <= {"columns", "data", "index"}:
        found = _quote(list(table) if isinstance(table, dict) else table)
        raise _refusal(f"`{SPLIT}` must be an object with columns and data; got {found}.")
    names = table.get("columns")
    if names is None:
        return _read(table["data"], n_trits)
    if not isinstance(names, list):
        raise _refusal(f"`columns` must be a list of names; got {_quote(names)}.")
    return _read_lists(table["data"], n_trits, len(names))._replace(names=names)


def _read_lists(given: Any, n_trits: int, width: int | None) -> _Rows:
    """Return rows given as lists, of `width` or else of one of the two widths, or indices given as one list."""
    if not isinstance(given, list | tuple):
        raise _refusal(f"A request must be a list of rows, {_form(n_trits)}; got {_quote(given)}.")
    rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in given]
    kinds = set(map(type, rows))
    if not kinds & {list, tuple} and not kinds & {dict, str} and width is None:
        numbers = _numbers_of(rows)[:, None]
        _require_clear(numbers, 1, n_trits)
        return _Rows(numbers, lambda i, _: rows[i])
    if not kinds <= {list, tuple}:
        number = next(i for i, row in enumerate(rows) if not isinstance(row, list | tuple))
        raise _refusal(f"Row {number} must be {_row_form(n_trits, width)}, got {_quote(rows[number])}. {_COUNTED}")
    widths = set(map(len, rows))
    if len(widths) > 1 or widths - ({1, n_trits} if width is None else {width}):
        raise _ragged(rows, n_trits, width)
    flat = list(chain.from_iterable(rows))
    return _Rows(_numbers_of(flat).reshape(len(rows), -1 if flat else width or 1), lambda i, j: rows[i][j])


def _ragged(rows: list[Sequence[object]], n_trits: int, width: int | None) -> InputError:
    """Return what to say of the first row that has not the width it must have."""
    for number, row in enumerate(rows):
        found = f"got {_values(len(row))}: {_quote(list(row))}. {_COUNTED}"
        if len(row) not in ((1, n_trits) if width is None else (width,)):
            return _refusal(f"Row {number} must be {_row_form(n_trits, width)}, {found}")
        if len(row) != len(rows[0]):
            return _refusal(
                f"Row {number} must have {_values(len(rows[0]))} as row 0 has, {found} "
                "A request holds trits or indices, not both."
            )
    raise AssertionError("no row is at fault")


def _of_records(records: Sequence[Any]) -> list[list[Any]]:
    """Return the cells of records, or refuse the first whose columns are not those of the first record."""
    names = list(records[0])
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise _refusal(f"Row {number} must be an object as row 0 is, got {_quote(record)}. {_COUNTED}")
        if record.keys() != records[0].keys():
            odd = next(name for name in (*record, *names) if (name in record) != (name in records[0]))
            which = "has" if odd in record else "lacks"
            raise _refusal(
                f"Row {number} must have the columns that row 0 has; it {which} column {_quote(odd)}. {_COUNTED}"
            )
    return [[record[name] for name in names] for record in records]


def _transposed(columns: dict[Any, Any]) -> list[list[Any]]:
    """Return a dict of columns as rows; a cell may stand for a column of one."""
    lists = [
        c.tolist() if isinstance(c, np.ndarray | pd.Series) else list(c) if isinstance(c, list | tuple) else [c]
        for c in columns.values()
    ]
    lists = [c if isinstance(c, list) else [c] for c in lists]
    lengths = dict(zip(columns, map(len, lists), strict=True))
    if len(set(lengths.values())) > 1:
        raise _refusal(f"Columns must have equally many rows; got {_quote(lengths)}.")
    return [list(row) for row in zip(*lists, strict=True)]


def _numbered(names: list[Any]) -> bool:
    """Return whether columns have only numbers for names, in order: those of pandas, or of MLflow's data sets."""
    digits = math.ceil(math.log10(len(names) + 1))
    return names in (list(range(len(names))), [f"feature_{i + 1:0{digits}d}" for i in range(len(names))])


def _of_width(rows: _Rows, n_trits: int) -> _Rows:
    """Refuse columns without names that are neither one nor as many as trits."""
    width = rows.numbers.shape[1]
    if rows.names is None and width not in (1, n_trits):
        raise _refusal(
            f"Row 0 must be {_row_form(n_trits, None)}, got {_values(width)}: "
            f"{_quote([_plain(rows.given(0, j)) for j in range(width)] if len(rows.numbers) else [])}. {_COUNTED}"
        )
    return rows


def _in_order(rows: _Rows, n_trits: int) -> _Rows:
    """Return the columns by their names, in the order of the trits; refuse names that do not settle it."""
    names, trits = list(rows.names or ()), trit_names(n_trits)
    known = f"The columns must be `{INDEX}`, or `t0` to `{trits[-1]}`"
    for place, name in enumerate(names):
        if name not in (INDEX, *trits):
            advice = ""
            if name == "" or str(name).startswith("Unnamed: "):
                advice = " Row labels have no name: leave them out, as to_csv(index=False) does."
            raise _refusal(f"{known}; got column {_quote(name)}.{advice}")
        if name in names[:place]:
            raise _refusal(f"{known}; got column {_quote(name)} twice.")
    if INDEX in names and len(names) > 1:
        raise _refusal(f"{known}, not both; got {INDEX} and {next(name for name in names if name != INDEX)}.")
    wanted = [INDEX] if INDEX in names else trits
    missing = [name for name in wanted if name not in names]
    if missing:
        raise _refusal(f"{known}; missing: {', '.join(missing)}.")
    places = [names.index(name) for name in wanted]
    return _Rows(rows.numbers[:, places], lambda i, j: rows.given(i, places[j]), wanted)


def _require_clear(numbers: Floats, dimensions: int, n_trits: int) -> None:
    """Refuse one list of as many numbers as trits that could be either: an operation, or as many indices."""
    if dimensions == 1 and len(numbers) == n_trits and bool((np.abs(numbers) <= 1).all()):
        raise _refusal(
            f"One list of {n_trits} numbers from -1 to 1 could be the trits of an operation or {n_trits} indices. "
            f"Write [[...]] for trits, or [[0], [1], ...] for indices."
        )


def _require(rows: _Rows, allowed: npt.NDArray[np.bool_], n_trits: int) -> None:
    """Refuse the first cell that is not allowed."""
    first = int(allowed.argmin())
    if allowed.item(first):
        return
    row, position = divmod(first, rows.numbers.shape[1])
    place = f"position {position}" if rows.names is None else f"column {rows.names[position]}"
    trits = rows.numbers.shape[1] == n_trits
    must = "-1, 0 or 1" if trits else f"an index, an integer from 0 to {3**n_trits - 1}"
    value = _quote(rows.given(row, position))
    raise _refusal(f"Row {row}, {place} must be {must}, got {value}. {_COUNTED}")


def _numbers(cells: npt.NDArray[Any]) -> Floats:
    """Return an array as float64, NaN for what is no number; a boolean, a text and a time are none."""
    if cells.dtype.kind in "iuf":
        return cells.astype(np.float64)
    if cells.dtype.kind == "O":
        return _numbers_of(cells.ravel().tolist()).reshape(cells.shape)
    return np.full(cells.shape, math.nan)


def _numbers_of(cells: list[Any]) -> Floats:
    if set(map(type, cells)) <= {int, float}:
        try:
            return np.array(cells, dtype=np.float64)
        except OverflowError:
            pass
    return np.array(list(map(_number, cells)), dtype=np.float64)


def _number(cell: object) -> float:
    if isinstance(cell, bool | np.timedelta64) or not isinstance(cell, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.nan


@lru_cache
def _powers(n_trits: int) -> Floats:
    return np.power(3.0, np.arange(n_trits), dtype=np.float64)


def _form(n_trits: int) -> str:
    return f"each {_row_form(n_trits, None)}"


def _row_form(n_trits: int, width: int | None) -> str:
    return f"a list of {n_trits} trits or of one index" if width is None else f"a list of {_values(width)}"


def _values(count: int) -> str:
    return f"{count} value{'s' * (count != 1)}"


def _refusal(sentence: str) -> InputError:
    return InputError(sentence, error_code=INVALID_PARAMETER_VALUE)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.number | np.bool_ | np.str_) else value


def _quote(value: object) -> str:
    """Return a value as JSON writes it, cut to a readable length."""
    try:
        text = json.dumps(_plain(value), ensure_ascii=False)
    # An integer of thousands of digits is a ValueError; a Python caller can pass anything.
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def take_every_format(server: ModuleType) -> None:
    """Let MLflow's server give this model every format of a request, as it was sent.

    Of a model that enforces its own schema, MLflow 3.17.2 takes JSON under the key `inputs` only, and converts CSV to
    the types of the schema, with a stack trace where that fails. Of other models in the process, only CSV that comes
    without a schema is read otherwise than by MLflow. What is handed on is of plain types, for the code of another
    version may have been here first.

    Args:
        server: `mlflow.pyfunc.scoring_server`.
    """
    if hasattr(server._parse_json_data, "every_format"):
        return
    parse_json, parse_csv = server._parse_json_data, server.parse_csv_input

    def parse_json_data(data: Any, metadata: Any, input_schema: Schema | None) -> Any:
        if not _is_ours(input_schema):
            return parse_json(data, metadata, input_schema)
        body = server._decode_json_input(data)
        keys = sorted(body.keys() & server.SUPPORTED_FORMATS)
        if len(keys) != 1:
            raise _refusal(
                "A request must be a JSON object with one of the keys dataframe_records, dataframe_split, inputs and "
                f"instances; got {_quote(list(body))}."
            )
        rows = {SPLIT: body[SPLIT]} if keys == [SPLIT] else body[keys[0]]
        return server.ParsedJsonInput(rows, body.get(server.SERVING_PARAMS_KEY), False)

    def parse_csv_input(csv_input: Any, schema: Schema | None = None) -> Any:
        return _of_csv(csv_input) if schema is None or _is_ours(schema) else parse_csv(csv_input, schema)

    parse_json_data.every_format = True  # type: ignore[attr-defined]
    server._parse_json_data, server.parse_csv_input = parse_json_data, parse_csv_input  # type: ignore[attr-defined]


def _is_ours(schema: Schema | None) -> bool:
    names = schema.input_names() if schema is not None else []
    return names[:1] == [INDEX] and schema == schema_of(len(names) - 1)


def _of_csv(given: Any) -> dict[str, Any]:
    """Return a CSV text as `dataframe_split`, whose cells are numbers where they can be.

    Not with pandas, which takes the first value of a row that is too long for the row's label, and shifts the others.

    Args:
        given: what MLflow gives its own parser: a stream, or the path of a file.
    """
    try:
        text = Path(given).read_text("utf-8") if isinstance(given, str) else given.read()
        lines = [line for line in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if line]
    except (ValueError, csv.Error) as error:
        raise _refusal(f"The CSV could not be read: {error}.") from error
    if not lines:
        raise _refusal("A CSV must begin with a line of names of columns; got nothing.")
    names, *rows = lines
    return {SPLIT: {"columns": names, "data": [list(map(_of_text, row)) for row in rows]}}


def _of_text(cell: str) -> int | float | str:
    if "_" not in cell:
        for number in (int, float):
            try:
                return number(cell)
            except ValueError:
                pass
    return cell
