"""Every command on a page is one that the program takes: its target, entry point, options and values are there.

Running them all would take an hour. What they do is tested where it is built; here no page can name an option that was
renamed, or a target that is gone.
"""

import re
import shlex
from pathlib import Path

import click
import pytest
from test_contract import PROJECT, PYPROJECT, command_of

ROOT = Path(__file__).parent.parent
# tests/test_server.py reads the page on a team's server, and runs it.
RUN_ELSEWHERE = {"team-server.md"}
DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in RUN_ELSEWHERE]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
MAKEFILE = (ROOT / "Makefile").read_text()

# Other programmes' commands, by how they begin, and where each is run or why it is not.
OTHERS = {
    ".": "activates the environment of `make setup` in the reader's own shell",
    "cd": "of the same",
    "curl": "tests/test_serving.py sends these bodies to a served model",
    "export": "sets a variable of MLflow's",
    "git clone": "needs an address that is the reader's own",
    "mlflow models predict": "tests/test_serving.py runs it on CSV and JSON",
    "mlflow models serve": "what `make serve` runs; tests/test_security.py starts it",
    "printf": "tests/test_serving.py sends CSV to a served model",
}


def commands(page: Path) -> list[str]:
    found = []
    for language, block in re.findall(
        r"^```(sh|text)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "sh" and line.strip():
                found.append(line)
            elif line.startswith("$ "):
                found.append(line[2:])
    return found


COMMANDS = [pytest.param(command, id=f"{page.name}: {command}"[:90]) for page in PAGES for command in commands(page)]


def parse(entry_point: str, words: list[str]) -> None:
    command_of(entry_point).make_context(entry_point, words)


def check_make(words: list[str]) -> None:
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    for target in (word for word in words if "=" not in word):
        rule = re.search(rf"^{target}:.*\n((?:\t.*\n)+)?", MAKEFILE, re.MULTILINE)
        assert rule, f"the Makefile has no target {target}"
        entry = re.search(r"-m entry_points\.(\w+) \$\(ARGS\)", rule[0])
        if entry:
            parse(entry[1], shlex.split(settings.pop("ARGS", "")))
        for name in settings:
            assert f"$({name})" in rule[0], f"make {target} takes no {name}"


def check_mlflow_run(words: list[str]) -> None:
    at = words.index("-e") + 1 if "-e" in words else None
    entry_point = words[at] if at else "main"
    given = [words[place + 1].partition("=") for place, word in enumerate(words) if word == "-P"]
    assert {name for name, _, _ in given} <= PROJECT["entry_points"][entry_point]["parameters"].keys()
    parse(entry_point, [part for name, _, value in given for part in (f"--{name}", value)])


def check(command: str) -> None:
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["make", *rest]:
            check_make(rest)
        case ["mlflow", "run", *rest]:
            check_mlflow_run(rest)
        case ["python", "-m", module, *rest] if module.startswith("entry_points."):
            parse(module.removeprefix("entry_points."), rest)
        case ["pip", "install", wanted] if wanted.startswith("tvae["):
            assert set(wanted[5:-1].split(",")) <= PYPROJECT["project"]["optional-dependencies"].keys()
        case _:
            known = any(words[: len(start.split())] == start.split() for start in OTHERS)
            assert known or not words, f"nothing says where `{command}` is run, or why it is not"


def test_there_are_commands_on_the_pages() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_the_program_takes_every_command_on_a_page(command: str) -> None:
    check(command)


@pytest.mark.parametrize(
    "wrong",
    [
        "make nothing",
        "make finetune ARGS='--curvatur 2'",
        "make ui SPEED=3",
        "python -m entry_points.sweep --phase none",
        "python -m entry_points.nothing",
        "mlflow run . -e finetune -P curvature=flat",
        "mlflow run . -e finetune -P bend=2",
        "pip install 'tvae[gold]'",
        "rm -rf .",
    ],
)
def test_a_command_that_it_does_not_take_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, click.UsageError, ModuleNotFoundError)):
        check(wrong)
