"""Options of the decorator: as users write them (`CachedOptions`), and checked (`Settings`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypedDict

from cache.clock import Clock, SystemClock
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ConfigError
from cache.keys import TAGS_MAX, Key, Ttl

TIMEOUT: Final = 1.0
"""Seconds: far over what a healthy cluster takes, far under what a person waits for."""


class CachedOptions(TypedDict, total=False):
    """What `cached` takes beside the cache."""

    ttl: Ttl
    """How long a value is fresh; by default, the cache's own time to live."""
    key: str | Callable[..., Key] | None
    """Template such as "profile:{user_id}", or a function of the same arguments that returns the key. By
    default module, qualified name and all arguments."""
    tags: Sequence[str]
    """Templates; see `Cache.invalidate_tags`."""
    stale: Ttl
    """How long after `ttl` the old value is still given, while one task loads a new one."""
    stale_if_error: Ttl
    """How long after `ttl` the old value is given if the function raises; at least `stale`."""
    soft_timeout: Ttl
    """Where the value is stale: wait so long for the new one before giving the old one."""
    early: float
    """XFetch's beta: above 0, a fresh value is loaded anew shortly before it ends, at random, the sooner the
    longer the function takes. 1 is a good value, more is earlier."""
    skip_none: bool
    """Do not store None."""
    none_ttl: Ttl
    """How long None is fresh; it is not given as stale value then."""
    jitter: float
    """Share of `ttl`, 0 to 1, by which it is cut at random."""
    timeout: Ttl
    """How long to wait for the cache's answer (not for the function) before going on without it; 1 second
    by default, None for as long as the cache itself waits."""
    clock: Clock
    """Where durations of loads, and pauses, are measured; for tests."""
    rng: Random
    """Where `early` and `jitter` come from; for tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked options; durations in seconds."""

    ttl: float | Default | None
    key: str | Callable[..., Key] | None
    tags: tuple[str, ...]
    stale: float
    grace: float
    """How long after its time a value is kept: for `stale` and for `stale_if_error`."""
    soft_timeout: float
    early: float
    skip_none: bool
    none_ttl: float | None
    jitter: float
    timeout: float | None
    clock: Clock
    rng: Random

    @property
    def needs_entry(self) -> bool:
        """Whether a hit is judged by the seconds it has left."""
        return self.grace > 0 or self.early > 0


def check_options(options: CachedOptions) -> Settings:
    """Return the options, checked.

    Raises:
        ConfigError: one is out of range or contradicts another; names it.
        TypeError: there is no such option.
    """
    unknown = sorted(options.keys() - CachedOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(CachedOptions.__annotations__)
        raise TypeError(f"cached() has no option {unknown[0]!r}; it has: {known}")
    ttl = options.get("ttl", DEFAULT)
    stale = _seconds("stale", options.get("stale"))
    settings = Settings(
        ttl=ttl if isinstance(ttl, Default) else _parsed("ttl", ttl),
        key=options.get("key"),
        tags=_checked_tags(options.get("tags", ())),
        stale=stale,
        grace=max(stale, _seconds("stale_if_error", options.get("stale_if_error"))),
        soft_timeout=_seconds("soft_timeout", options.get("soft_timeout")),
        early=options.get("early", 0.0),
        skip_none=options.get("skip_none", False),
        none_ttl=_seconds("none_ttl", options.get("none_ttl")) or None,
        jitter=options.get("jitter", 0.0),
        timeout=_parsed("timeout", options.get("timeout", TIMEOUT)),
        clock=options.get("clock") or SystemClock(),
        rng=options.get("rng") or Random(),
    )
    _check_together(settings)
    return settings


def _parsed(name: str, ttl: Ttl) -> float | None:
    if isinstance(ttl, Default):
        raise ConfigError(f"{name}: DEFAULT has no meaning here")
    try:
        return parse_ttl(ttl)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _seconds(name: str, ttl: Ttl) -> float:
    return _parsed(name, ttl) or 0.0


def _checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ConfigError(f"tags={tags!r}: a list is needed, as in tags=[{tags!r}]")
    if len(tags) > TAGS_MAX:
        raise ConfigError(f"tags: {len(tags)} of them; a value has at most {TAGS_MAX}")
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise ConfigError(f"tags: {tag!r} is not text, or empty")
    return tuple(tags)


def _check_together(settings: Settings) -> None:
    if not 0 <= settings.early < math.inf:
        raise ConfigError(f"early={settings.early!r}: must be 0 or more")
    if not 0 <= settings.jitter <= 1:
        raise ConfigError(f"jitter={settings.jitter!r}: must be a share from 0 to 1")
    if settings.skip_none and settings.none_ttl is not None:
        raise ConfigError("none_ttl: with skip_none, None is not stored at all")
    if settings.soft_timeout and not settings.stale:
        raise ConfigError("soft_timeout: it chooses when to give a stale value; stale= is missing")
    if isinstance(settings.ttl, float):
        return
    for name, needs_ttl in (
        ("stale or stale_if_error", settings.grace > 0),
        ("early", settings.early > 0),
        ("jitter", settings.jitter > 0),
    ):
        if needs_ttl:
            raise ConfigError(f"{name}: needs a ttl= of the decorator's own, which is not None")
