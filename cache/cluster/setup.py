"""The application's own part of a node that is started by somebody else: a function named in its settings."""

from __future__ import annotations

import importlib
from typing import Any

from cache.errors import ConfigError


def run_setup(where: str, node: Any) -> None:
    """Call the function at "module:function" with the node. Any: `Node`, which stands above this module.

    Raises:
        ConfigError: it cannot be imported or called, or is async.
    """
    module_name, _, function_name = where.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"setup={where!r}: {error}") from error
    if not callable(function):
        raise ConfigError(f"setup={where!r}: cannot be called; give a function that takes the node")
    if function(node) is not None:
        raise ConfigError(f"setup={where!r}: must be a plain function that returns nothing")
