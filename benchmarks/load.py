"""A served model under load: many clients at once, with requests that cannot be answered among the others."""

import http.client
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from model_server import HOST, Server

from tvae import ternary
from tvae.served import Answers

__all__ = ["REFUSED", "Load", "put_under_load"]

REQUEST_SECONDS = 60
ONE_IN = 10
REFUSED = "refused"
_GOOD = [0] * 9
# What cannot be answered, one of a kind: by tvae, by MLflow's parser, by its server.
_BAD = (
    '{"inputs": [[0, 0, 0, 0, 0.5, 0, 0, 0, 0]]}',
    '{"inputs": [[NaN]]}',
    '{"inputs": [[19683]]}',
    '{"inputs": [[-1]]}',
    '{"inputs": [["1"]]}',
    '{"inputs": [[0, 0, 0]]}',
    '{"inputs": [0, 0, 0, 0, 0, 0, 0, 0, 0]}',
    json.dumps({"inputs": [_GOOD, _GOOD[:4]]}),
    json.dumps({"inputs": [_GOOD] * 999 + [[2] * 9]}),
    '{"inputs": []}',
    '{"inputs": [[0]], "params": {"embedding": "yes"}}',
    '{"inputs": [[0',
    "",
)


class Request(NamedTuple):
    """What is sent, and what must come back.

    Attributes:
        kind: `REFUSED` if it cannot be answered.
        body: in JSON.
        expected: the records, None for a refusal.
    """

    kind: str
    body: str
    expected: list[dict[str, object]] | None


@dataclass(slots=True)
class Load:
    """What a server did under load.

    Attributes:
        seconds: that requests took, by their kind.
        statuses: of the answers.
        wrong: what was answered that was not what had to come back; a client stops at its first.
        resident: memory of the server in bytes by seconds since the load began, once a second.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)

    def growth(self, settled: float) -> tuple[int, int]:
        """Return the memory in bytes `settled` seconds after the load began, and at its end."""
        return next(held for at, held in self.resident if at >= settled), self.resident[-1][1]


def put_under_load(server: Server, answers: Answers, *, clients: int, seconds: float) -> Load:
    """Let clients ask one request after the other, each on a connection of its own; every tenth cannot be answered.

    Args:
        server: of the model.
        answers: what the model answers.
        clients: how many at once.
        seconds: for how long.
    """
    load, start = Load(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(_ask, server, _requests(answers, seed), start + seconds, load) for seed in range(clients)]
        while (now := time.monotonic() - start) < seconds:
            load.resident.append((now, server.resident_bytes()))
            time.sleep(min(1.0, seconds - now))
        for client in asking:
            client.result()
    load.resident.append((time.monotonic() - start, server.resident_bytes()))
    return load


def _requests(answers: Answers, seed: int) -> Iterator[Request]:
    """Yield requests for ever: one row mostly, or a hundred, as trits or as indices, with or without embedding."""
    drawn, trits = random.Random(seed), ternary.operations(answers.n_trits).tolist()
    for place in itertools.count(seed):
        if place % ONE_IN == 0:
            yield Request(REFUSED, drawn.choice(_BAD), None)
            continue
        rows, embedding = drawn.choice((1, 1, 1, 100)), drawn.random() < 0.25
        indices = [drawn.randrange(len(trits)) for _ in range(rows)]
        inputs = [trits[i] for i in indices] if drawn.random() < 0.5 else [[i] for i in indices]
        body = json.dumps({"inputs": inputs, "params": {"embedding": embedding}})
        expected = answers.records(np.array(indices), embedding=embedding)
        yield Request("one row" if rows == 1 else f"{rows} rows", body, expected)


def _ask(server: Server, requests: Iterator[Request], end: float, load: Load) -> None:
    with closing(http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_SECONDS)) as connection:
        for request in requests:
            start = time.monotonic()
            if start >= end:
                return
            connection.request("POST", "/invocations", request.body.encode(), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            # Clients share these lists: to append is one step.
            load.seconds[request.kind].append(time.monotonic() - start)
            load.statuses.append(response.status)
            said = json.loads(content)
            if not (said.get("predictions") == request.expected if request.expected else "message" in said):
                load.wrong.append(f"{request.body[:200]} was answered with {content[:200]!r}.")
                return
