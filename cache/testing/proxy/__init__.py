"""A fault-injecting proxy for streams and packets, with Toxiproxy's HTTP API in front of it."""

from cache.testing.proxy.proxies import Proxies, Proxy
from cache.testing.proxy.toxics import ProxyError, Toxic

__all__ = ["Proxies", "Proxy", "ProxyError", "Toxic"]
