"""`cache get`, `set`, `delete`, `incr`: one key or a few, through any member."""

from __future__ import annotations

import json
import sys

import click

from cache.cli.options import (
    Target,
    json_option,
    map_option,
    target_options,
    ttl_argument,
    ttl_option,
)
from cache.cli.outcome import NOT_FOUND, fail, run


@click.command()
@click.argument("key")
@map_option
@json_option
@target_options
def get(key: str, map_name: str, *, as_json: bool, target: Target) -> None:
    """Print the value of KEY; exit with 1 if it is absent.

    Text is printed as it is, bytes too, anything else as JSON. With --json everything is JSON, with bytes
    as {"base64": …}.
    """
    found, value = run(_get(target, map_name, key))
    if not found:
        fail(f"no key {key!r} in map {map_name!r}", NOT_FOUND)
    if as_json or not isinstance(value, str | bytes):
        click.echo(json.dumps(value, ensure_ascii=False, default=_json_bytes))
    elif isinstance(value, str):
        click.echo(value)
    else:
        sys.stdout.buffer.write(value)


async def _get(target: Target, map_name: str, key: str) -> tuple[bool, object]:
    async with target.connect() as client:
        found = await client.call(map_name, "get_many", keys=[key])
    return key in found, found.get(key)


def _json_bytes(value: object) -> object:
    import base64

    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} has no JSON form")


@click.command("set")
@click.argument("key")
@click.argument("value")
@map_option
@ttl_option
@click.option("--json", "as_json", is_flag=True, help="VALUE is JSON, not text.")
@target_options
def set_(
    key: str, value: str, map_name: str, ttl: str | None, *, as_json: bool, target: Target
) -> None:
    """Store VALUE, text unless --json is given, under KEY."""
    stored: object = value
    if as_json:
        try:
            stored = json.loads(value)
        except ValueError as error:
            raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from error
    run(_call(target, map_name, "set", key=key, value=stored, **ttl_argument(ttl)))
    click.echo("ok")


@click.command()
@click.argument("keys", nargs=-1, required=True)
@map_option
@target_options
def delete(keys: tuple[str, ...], map_name: str, target: Target) -> None:
    """Remove KEYS; print how many were there, exit with 1 if none was."""
    count = run(_call(target, map_name, "delete_many", keys=list(keys)))
    click.echo(count)
    if count == 0:
        raise SystemExit(NOT_FOUND)


@click.command()
@click.argument("key")
@click.argument("delta", default=1, type=int)
@map_option
@ttl_option
@click.option("--initial", default=0, show_default=True, help="Where an absent key starts.")
@target_options
def incr(
    key: str, delta: int, map_name: str, ttl: str | None, initial: int, target: Target
) -> None:
    """Add DELTA (default 1; after "--" if it is negative) to KEY and print the sum."""
    arguments = {"key": key, "delta": delta, "initial": initial, **ttl_argument(ttl)}
    click.echo(run(_call(target, map_name, "incr", **arguments)))


async def _call(target: Target, map_name: str, method: str, **arguments: object) -> object:
    async with target.connect() as client:
        result: object = await client.call(map_name, method, **arguments)
        return result
