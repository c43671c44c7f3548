"""How values of one function are kept and judged: lifetimes, freshness, early reloads, counts.

A value is stored for `ttl` and the grace that follows it; the seconds it has left tell where it stands:

    stored                          ttl                    stale            stale_if_error
      |------------- fresh ----------|-------- stale --------|------- spare -------|  absent
    left = ttl + grace            grace               grace - stale                0

Source of early reloads: XFetch, in "Optimal Probabilistic Cache Stampede Prevention" (Vattani, Chierichetti,
Lowenstein, 2015).
"""

from __future__ import annotations

import enum
import logging
import math
from dataclasses import dataclass
from typing import Any, Final

from cache.decorator.options import Settings
from cache.durations import Default, parse_ttl
from cache.errors import IndeterminateError, RejectedError
from cache.flights import Loaded
from cache.interface import CacheEntry
from cache.keys import Key, Ttl

logger = logging.getLogger(__name__)

FAULTS: Final = (RejectedError, IndeterminateError)
"""What a cache raises that could not do its work; the function is called without it then."""

MISSING: Final[Any] = object()  # Any: stands in for a value
LOG_INTERVAL: Final = 60.0
"""Seconds between two warnings of one function: its calls may fail thousands of times a second."""
RETRY_PAUSE: Final = 1.0
"""Seconds without a reload of a key after a failed one: old values keep callers calm, and so the source."""
PAUSES_MAX: Final = 1_000
"""Keys with such a pause; of more, the oldest is forgotten, and its key reloaded sooner."""
REFRESHES_MAX: Final = 1_000
"""Background reloads of one function at once; beyond, stale values are given without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """Counts of one decorated function in this process. Its calls are `hits + stale + misses`."""

    hits: int
    """Calls that got a fresh value from the cache."""
    misses: int
    """Calls that waited for a load, their own or another caller's, or found the cache failing."""
    stale: int
    """Calls that got a value whose time was over."""
    loads: int
    """Calls of the function itself, those in the background included."""
    errors: int
    """Loads that raised."""
    failures: int
    """Times the cache failed and the function was called without it, or a reload was given up."""


class Counts:
    """The numbers of `CacheInfo` as they grow."""

    __slots__ = ("errors", "failures", "hits", "loads", "misses", "stale")

    def __init__(self) -> None:
        self.hits = self.misses = self.stale = self.loads = self.errors = self.failures = 0

    def snapshot(self) -> CacheInfo:
        """Return them as they are now."""
        return CacheInfo(**{name: getattr(self, name) for name in self.__slots__})


class Freshness(enum.Enum):
    """What to do with a value that was found."""

    FRESH = "give it"
    EARLY = "give it, and load a new one meanwhile"
    STALE = "give it although its time is over, and load a new one meanwhile"
    SPARE = "load a new one, and give it only if that fails"


class Policy:
    """The decisions for one function; knows no cache."""

    def __init__(self, settings: Settings, function_name: str) -> None:
        self.settings = settings
        self.counts = Counts()
        self.load_seconds = 0.0
        """How long the last load in this process took."""
        self._function_name = function_name
        self._grace, self._early = settings.grace, settings.early
        self._logged_at = -math.inf
        self._paused_until: dict[Key, float] = {}

    def judge(self, entry: CacheEntry[Any]) -> Freshness:  # Any: of any function
        """Return where an entry stands; asks the dice if early reloads are on."""
        fresh_seconds = entry.ttl - self._grace
        if fresh_seconds >= 0:
            if self._early > 0 and fresh_seconds <= self._early_seconds():
                return Freshness.EARLY
            return Freshness.FRESH
        settings = self.settings
        is_none = entry.value is None and settings.none_ttl is not None
        if is_none or entry.ttl < settings.grace - settings.stale:
            return Freshness.SPARE
        return Freshness.STALE

    def _early_seconds(self) -> float:
        luck = 1.0 - self.settings.rng.random()  # above 0
        return self.load_seconds * self._early * -math.log(luck)

    def min_ttl(self, entry: CacheEntry[Any], freshness: Freshness) -> float:  # Any: as above
        """Return the seconds below which what the cache holds is to be replaced by now.

        What somebody else loaded meanwhile has more, so it is not loaded once more.
        """
        if freshness is not Freshness.EARLY:
            return self.settings.grace
        assert isinstance(self.settings.ttl, float), "checked with the options"
        full_ttl = self.settings.ttl + self.settings.grace
        return entry.ttl + max(full_ttl - entry.ttl, 0.0) / 10 + 0.001

    def loaded(self, made: Any, seconds: float) -> Loaded[Any]:  # Any: of any function
        """Return what the function made with how long to keep it; `seconds` is how long it took."""
        self.load_seconds = seconds
        result = made if isinstance(made, Loaded) else Loaded(made)
        settings = self.settings
        if result.value is None and settings.skip_none:
            return Loaded(None, store=False)
        ttl: Ttl = result.ttl
        if isinstance(ttl, Default):
            is_short = result.value is None and settings.none_ttl is not None
            ttl = settings.none_ttl if is_short else settings.ttl
        if not isinstance(ttl, Default):
            ttl = self._lifetime(parse_ttl(ttl))
        return Loaded(result.value, ttl=ttl, tags=result.tags, store=result.store)

    def _lifetime(self, ttl: float | None) -> float | None:
        if ttl is None:
            return None
        if self.settings.jitter > 0:
            # Not down to nothing: a share of 1 may cut all of it.
            ttl = max(ttl * (1 - self.settings.jitter * self.settings.rng.random()), ttl / 1_000)
        return ttl + self.settings.grace

    def cache_failed(self, error: Exception) -> None:
        """Count that the cache failed, and log it once per interval."""
        self.counts.failures += 1
        now = self.settings.clock.monotonic()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.warning(
                "decorator.cache_failed function=%s error=%s failures=%d",
                self._function_name,
                type(error).__name__,
                self.counts.failures,
            )

    def reload_failed(self, key: Key, error: Exception) -> None:
        """Let a key rest whose reload failed while there is an old value."""
        logger.debug("decorator.reload_failed function=%s", self._function_name, exc_info=error)
        while len(self._paused_until) >= PAUSES_MAX:
            self._paused_until.pop(next(iter(self._paused_until)), None)
        self._paused_until[key] = self.settings.clock.monotonic() + RETRY_PAUSE

    def may_reload(self, key: Key) -> bool:
        """Return whether a key with an old value may be loaded: not just after that failed."""
        until = self._paused_until.get(key)
        if until is None:
            return True
        if self.settings.clock.monotonic() < until:
            return False
        self._paused_until.pop(key, None)
        return True
