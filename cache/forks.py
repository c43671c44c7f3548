"""What must happen around `os.fork`, for whoever has something that a child cannot share with its parent.

A child has its parent's memory, but none of its threads; its sockets are the parent's. A lock that another
thread held stays locked there for ever, and what that thread was changing stays half changed. So owners of
locks take them before the fork, and owners of sockets are told in the child.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ref

OwnerT = TypeVar("OwnerT")
Hook = Callable[[OwnerT], None]


@dataclass(frozen=True, slots=True)
class _Hooks:
    in_child: Callable[[Any], None]  # Any: the owner, as the hook takes it
    before: Callable[[Any], None] | None
    in_parent: Callable[[Any], None] | None


def watch(
    owner: OwnerT,
    in_child: Hook[OwnerT],
    *,
    before: Hook[OwnerT] | None = None,
    in_parent: Hook[OwnerT] | None = None,
) -> None:
    """Call the hooks at each fork from now on, while `owner` is alive; a later call replaces an earlier one.

    Args:
        owner: what the hooks are about; it is not kept alive.
        in_child: called in the child, before `os.fork` returns there; also in the child's children.
        before: called in the parent before the fork.
        in_parent: called in the parent afterwards.
    """
    watched = _watched()

    def forget(gone: ref[OwnerT]) -> None:
        watched.pop(gone, None)

    watched[ref(owner, forget)] = _Hooks(in_child, before, in_parent)


@functools.cache
def _watched() -> dict[ref[Any], _Hooks]:  # Any: owners of all types
    # One for the process, as forks are, and made on first use: a hook of the interpreter cannot be
    # taken out again, so one for each owner would stay for ever.
    watched: dict[ref[Any], _Hooks] = {}
    told: list[tuple[Any, _Hooks]] = []  # in `before`: the same ones are told afterwards

    def before() -> None:
        told[:] = [
            (owner, hooks)
            for reference, hooks in list(watched.items())  # `list` is atomic; other threads run.
            if (owner := reference()) is not None
        ]
        for owner, hooks in told:
            if hooks.before is not None:
                hooks.before(owner)

    def in_parent() -> None:
        for owner, hooks in told:
            if hooks.in_parent is not None:
                hooks.in_parent(owner)
        told.clear()

    def in_child() -> None:
        for owner, hooks in told:
            hooks.in_child(owner)
        told.clear()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
    return watched
