"""A lock on a registered model: whoever changes it waits until nobody else does.

MLflow moves an alias without looking where it was. Two processes that both compare themselves with the champion and
then both move the alias would leave the later, not the better. So each takes a number, as in Lamport's bakery (A new
solution of Dijkstra's concurrent programming problem, 1974), which needs only what every store has: tags of the
registered model that are set, read and deleted. It holds between processes and between machines.

A ticket is a tag `tvae.turn.<random>` with the value `<number>.<beat> <process>`. Number 0 means that its owner still
chooses; the beat rises while it waits. A killed process leaves a ticket that does not change any more; whoever waits
for it removes it, at once if it can see that the process has ended.
"""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient

from tvae.tracking.process import own_process, process_state

__all__ = ["ABANDONED_SECONDS", "locked"]

_logger = logging.getLogger(__name__)

# Under the lock are about ten calls to the store; on a busy sqlite the slowest of them took 2 s.
ABANDONED_SECONDS = 60.0
_RENEW_SECONDS = 5.0
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 2.0
# As versions of tvae before this one have it: they wait for one another.
_PREFIX = "tvae.turn."


@contextmanager
def locked(client: MlflowClient, name: str) -> Iterator[None]:
    """Hold the lock on a registered model that exists. A long wait is logged."""
    mine = f"{_PREFIX}{secrets.token_hex(8)}"
    client.set_registered_model_tag(name, mine, f"0.0 {own_process()}")
    try:
        number = 1 + max((_number(value) for value in _tickets(client, name).values()), default=0)
        client.set_registered_model_tag(name, mine, f"{number}.0 {own_process()}")
        _wait(client, name, mine, number)
        yield
    finally:
        client.delete_registered_model_tag(name, mine)


def _wait(client: MlflowClient, name: str, mine: str, number: int) -> None:
    start = renewed = time.monotonic()
    unchanged_since: dict[tuple[str, str], float] = {}
    beat, told = 0, False
    while True:
        tickets = _tickets(client, name)
        # Whoever was not there when this list was read will see this process's number, and take a larger one.
        ahead = {
            ticket: value
            for ticket, value in tickets.items()
            if ticket != mine and (_number(value), ticket) < (number, mine)
        }
        if not ahead:
            return
        now = time.monotonic()
        unchanged_since = {ticket: unchanged_since.get(ticket, now) for ticket in ahead.items()}
        for (ticket, value), since in unchanged_since.items():
            if now - since > ABANDONED_SECONDS or process_state(value.partition(" ")[2]) == "ended":
                client.delete_registered_model_tag(name, ticket)
        if now - renewed > _RENEW_SECONDS:
            beat, renewed = beat + 1, now
            client.set_registered_model_tag(name, mine, f"{number}.{beat} {own_process()}")
        if not told and now - start > _PATIENCE_SECONDS:
            _logger.info(
                "Another process is changing %s: waiting for it, at most %g s if it died.", name, ABANDONED_SECONDS
            )
            told = True
        time.sleep(_POLL_SECONDS)


def _tickets(client: MlflowClient, name: str) -> dict[str, str]:
    tags = client.get_registered_model(name).tags
    return {key: value for key, value in tags.items() if key.startswith(_PREFIX)}


def _number(value: str) -> int:
    number = value.partition(".")[0]
    return int(number) if number.isdecimal() else 0
