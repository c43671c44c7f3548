"""`cached`: a decorator that keeps what functions return in a cache."""

from cache.decorator.blocking import BlockingCache
from cache.decorator.cached import (
    AsyncDecorator,
    BlockingCached,
    BlockingDecorator,
    Cached,
    cached,
)
from cache.decorator.options import CachedOptions
from cache.decorator.policy import CacheInfo

__all__ = [
    "AsyncDecorator",
    "BlockingCache",
    "BlockingCached",
    "BlockingDecorator",
    "CacheInfo",
    "Cached",
    "CachedOptions",
    "cached",
]
