"""Every example of README.md and docs/ runs as it stands, prints what it says, and names what exists."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from tests.docs.documented import (
    AFTERWARDS,
    BEFORE,
    FRAGMENT,
    LANGUAGES,
    PAGES,
    ROOT,
    Block,
    blocks_of,
)
from tests.redis_servers import RedisServers

SERVER_URL: Final = "CACHE_URL"
"""Examples that read this from the environment need a redis-server; skipped where there is none."""

PYTEST: Final = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

FRAGMENTS_MAX: Final = 2
"""Blocks in all that are compiled only: a reader should be able to copy what he reads."""

BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]
PYTHON: Final = [block for block in BLOCKS if block.language == "python"]
SECTIONS: Final = [
    list(found) for _, found in itertools.groupby(PYTHON, key=lambda block: block.place)
]
SHELL: Final = [block for block in BLOCKS if block.language == "sh"]


def name_of(blocks: list[Block] | Block) -> str:
    return (blocks if isinstance(blocks, Block) else blocks[0]).place.replace(", ", ":")


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A runtime directory of its own: no other run's siblings, and nothing left behind."""
    with tempfile.TemporaryDirectory(prefix="pc") as made:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"XDG_RUNTIME_DIR": made, "PYTHONPATH": paths, "SHOP_SECRET": "only for examples"}
        yield {**os.environ, **own}


def run(arguments: list[str], folder: Path, environment: dict[str, str], given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "" == done.stderr
    return done.stdout


def said(blocks: list[Block]) -> list[str]:
    """Return what the comments after `print(…)` say is printed."""
    lines = "\n".join(block.text for block in blocks).splitlines()
    prints = [line for line in lines if line.lstrip().startswith("print(")]
    for line in prints:
        assert ")  # " in line, f"say what is printed, as in print(…)  # 3: {line!r}"
    return [line.rpartition(")  # ")[2] for line in prints]


def assert_printed(blocks: list[Block], output: str) -> None:
    """A comment is what is printed, or that and an explanation after a mark."""
    comments, printed = said(blocks), output.splitlines()
    assert len(comments) == len(printed), output
    for comment, line in zip(comments, printed, strict=True):
        rest = comment.removeprefix(line)
        assert len(rest) < len(comment), f"printed {line!r}, the comment says {comment!r}"
        assert rest == "" or rest[0] in " :,;", f"printed {line!r}, the comment says {comment!r}"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("print(x)  # 3", "4"),
        ("print(x)  # 34, more", "3"),
        ("print(x)  # 3", "3\n3"),
        ("print(x)  # 3", ""),
        ("print(x)", "3"),
    ],
)
def test_a_comment_that_does_not_say_what_is_printed_is_noticed(text: str, output: str) -> None:
    """The check below would otherwise be worth nothing."""
    with pytest.raises(AssertionError):
        assert_printed([Block("page", "section", 1, "python", text)], output)


@pytest.mark.sockets
@pytest.mark.parametrize("blocks", SECTIONS, ids=name_of)
def test_the_examples_of_a_section_run_and_print_what_their_comments_say(
    blocks: list[Block],
    environment: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """A newcomer copies them first of all."""
    for block in blocks:
        block.code()
    if any(SERVER_URL in block.text for block in blocks):
        servers: RedisServers = request.getfixturevalue("redis_servers")
        environment[SERVER_URL] = servers.single().url

    if any(re.search(r"^(async )?def test_", block.text, re.MULTILINE) for block in blocks):
        (tmp_path / "test_documented.py").write_text("\n".join(block.text for block in blocks))
        (tmp_path / "pytest.ini").write_text(PYTEST)
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_documented.py"]
        assert " passed" in run(arguments, tmp_path, environment)
        return
    given = json.dumps([asdict(block) for block in blocks])
    output = run(["-m", "tests.docs.documented"], tmp_path, environment, given)

    assert_printed(blocks, output)


def test_every_block_names_its_language_and_few_are_fragments() -> None:
    """Python that nobody runs is wrong sooner or later: give it what it needs, or mark it."""
    fragments = [block for block in BLOCKS if block.language == FRAGMENT]

    assert {block.language for block in BLOCKS} <= set(LANGUAGES)
    assert len(fragments) <= FRAGMENTS_MAX, [block.place for block in fragments]
    for block in fragments:
        block.code()
    assert {*BEFORE, *AFTERWARDS} <= {block.place for block in PYTHON}


def check_command(words: list[str]) -> None:
    """Check one line of a shell block as far as that goes without running it."""
    match words:
        case ["PEERCACHE_ACCELERATE=1" | "PEERCACHE_PURE=1", *others]:
            check_command(others)
        case ["cache", command, *arguments]:
            parse_command(command, arguments)
        case ["./task", *names]:
            tasks = set(re.findall(r"^  ([a-z-]+):$", (ROOT / "Taskfile.yml").read_text(), re.M))
            assert {name for name in names[:1] if name != "--"} <= tasks
        case ["pip", "install", *packages]:
            known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
            extras = re.findall(r"peercache\[([\w,]+)\]", " ".join(packages))
            assert {extra for found in extras for extra in found.split(",")} <= known
        case ["uvicorn" | "gunicorn" | "celery" | "pytest" | "curl", *_]:
            pass  # Of others; `test_workers.py` runs the first two.
        case ["python" | ".venv/bin/python", "-m", module, *_]:
            assert importlib.util.find_spec(module.partition(".")[0]) is not None
        case ["python", "-c", program]:
            compile(program, "<shell>", "exec")
        case ["python", path, *_]:
            assert (ROOT / path).exists()
        case _:
            raise AssertionError(f"no rule for this command: {' '.join(words)}")


def parse_command(name: str, arguments: list[str]) -> None:
    from cache.cli.commands import cli

    cli.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("block", SHELL, ids=name_of)
def test_the_commands_of_a_shell_block_exist(block: Block) -> None:
    """With the options that they are given."""
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]

    for words in filter(None, lines):
        check_command([word for word in words if word != "&"])


def anchors_of(page: Path) -> set[str]:
    """Return what headings of a page are called in links, as GitHub does it."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    """Those into this repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())

    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link
