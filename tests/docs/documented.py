"""The examples of the documentation: what there is to run, and a process to run it in.

Examples below one `## ` heading belong together: they run in order, in one namespace, in a process of their
own (`python -m tests.docs.documented`, examples as JSON on standard input). An `await` outside of a
function is allowed, as in `python -m asyncio`; those of one section share an event loop. What a framework
would do with an example, its function in `AFTERWARDS` does: it calls the application that was made.

A block that cannot run by itself begins with ```python title="fragment", and is compiled only.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = tuple(
    str(path.relative_to(ROOT))
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
)
FRAGMENT: Final = 'python title="fragment"'
LANGUAGES: Final = ("", "python", FRAGMENT, "sh", "toml", "yaml", "text")
BLOCK: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$|^## ([^\n]*)$", re.MULTILINE | re.DOTALL)

Names = dict[str, Any]  # Any: whatever an example defines


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    section: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for tracebacks."""
        return f"{self.page}, {self.section or 'top'}"

    def code(self) -> CodeType:
        """Compile it; lines are those of the page."""
        text = "\n" * self.line + self.text
        code: CodeType = compile(
            text, self.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        return code


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text("utf-8")
    found, section = [], ""
    for match in BLOCK.finditer(text):
        if match[3] is not None:
            section = match[3].strip()
            continue
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, section, line, match[1].strip(), match[2]))
    return found


def _nothing(_: Names) -> None:
    pass


def _flask(names: Names) -> None:
    client = names["app"].test_client()
    assert client.get("/price/apple").json == client.get("/price/apple").json == {"price": 3}
    assert client.put("/price/apple").status_code == 204
    assert names["price"].cache_info().loads == 1
    client.get("/price/apple")
    assert names["price"].cache_info().loads == 2


async def _ask(app: Any, method: str, path: str) -> bytes:  # Any: an ASGI application
    sent: list[dict[str, Any]] = []  # Any: ASGI's messages
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
    }

    async def receive() -> dict[str, Any]:  # Any: as above
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:  # Any: as above
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return b"".join(message.get("body", b"") for message in sent[1:])


async def _fastapi(names: Names) -> None:
    app = names["app"]
    async with app.router.lifespan_context(app):
        assert await _ask(app, "GET", "/price/apple") == b"3"
        assert await _ask(app, "GET", "/price/apple") == b"3"
        assert names["price"].cache_info().loads == 1
        await _ask(app, "PUT", "/price/apple/4")
        assert await _ask(app, "GET", "/price/apple") == b"4"
        assert await _ask(app, "POST", "/views/apple") == b"1"
        assert await _ask(app, "POST", "/views/apple") == b"2"
        assert await _ask(app, "GET", "/report/today") == b'"report of today"'


async def _lifespan(names: Names) -> None:
    app = names["app"]
    async with app.router.lifespan_context(app):
        pass


def _django_settings(_: Names) -> None:
    memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    import_module("django.conf").settings.configure(DATABASES={"default": memory})
    import_module("django").setup()


def _django(names: Names) -> None:
    request = import_module("django.test").RequestFactory().get("/")
    assert names["show"](request, "apple").content == b'{"price": 3}'
    assert names["show"](request, "apple").content == b'{"price": 3}'
    assert names["price"].cache_info().loads == 1
    names["change"](request, "apple")
    names["show"](request, "apple")
    assert names["price"].cache_info().loads == 2
    asyncio.run(names["show_async"](request, "apple"))
    names["shop"].close()


def _celery(names: Names) -> None:
    names["set_price"].apply(args=["apple", 3]).get()
    assert names["shop"].get("apple") == 3
    names["leave"]()


BEFORE: Final[Mapping[str, Callable[[Names], None]]] = {
    "docs/recipes.md, Django": _django_settings,
}
"""What must be there first: by place."""

AFTERWARDS: Final[Mapping[str, Callable[[Names], Any]]] = {  # Any: None, or an awaitable of None
    "docs/recipes.md, FastAPI": _fastapi,
    "docs/recipes.md, Flask": _flask,
    "docs/recipes.md, Django": _django,
    "docs/recipes.md, Celery": _celery,
    "docs/siblings.md, Recipes": _lifespan,
    "docs/quick_start.md, Worker processes": _lifespan,
    "README.md, Worker processes": _lifespan,
}
"""What uses what a section has made: by place."""


def run(blocks: list[Block]) -> None:
    """Run the blocks of one section."""
    module = sys.modules["__main__"] = ModuleType("__main__")  # Pickle looks for classes in it.
    names: Names = module.__dict__
    place = blocks[0].place
    BEFORE.get(place, _nothing)(names)
    with asyncio.Runner() as runner:

        async def finish(step: Any) -> None:  # Any: an awaitable
            await step

        for block in blocks:
            code = block.code()
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(finish(eval(code, names)))
            else:
                exec(code, names)
        done = AFTERWARDS.get(place, _nothing)(names)
        if done is not None:
            runner.run(finish(done))


if __name__ == "__main__":
    run([Block(**fields) for fields in json.load(sys.stdin)])
