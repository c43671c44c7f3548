"""A cache in this process: `LocalCache`, and `NullCache` that forgets everything."""

from cache.local.cache import LocalCache
from cache.local.null import NullCache

__all__ = ["LocalCache", "NullCache"]
