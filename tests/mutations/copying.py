"""Planted mutations of copying partitions: many entries at once."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

DIGEST: Final = "cluster/replication/digest.py"
REPLICA: Final = "cluster/replication/replica.py"

FILL_TESTS: Final = "tests/unit/cluster/replication/test_fill.py"

COPYING_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "copying: an entry is put over a later one",
        REPLICA,
        "            known = [key for key in fresh if key in held] if held else []\n",
        "            known = []\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: of two versions of a key in one batch the last one stays",
        REPLICA,
        "        if is_watched or len(fresh) < len(keys):\n",
        "        if is_watched:\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a listener hears nothing",
        REPLICA,
        "is_watched = self.listener is not None or map_name in self._views",
        "is_watched = map_name in self._views",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a view misses what is filled in",
        REPLICA,
        "is_watched = self.listener is not None or map_name in self._views or ",
        "is_watched = self.listener is not None or ",
        FILL_TESTS,
    ),
    Mutation(
        "copying: no books are kept of what is filled in",
        REPLICA,
        "map_name in self._views or map_name in self.kept\n",
        "map_name in self._views\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: entries that are filled in never end",
        REPLICA,
        "            if entry.expires_at < NO_END:\n                self._remember_expiry(map_name, key, ",
        "            if entry.expires_at < 0:\n                self._remember_expiry(map_name, key, ",
        FILL_TESTS,
    ),
    Mutation(
        "copying: memory of what is filled in does not count",
        REPLICA,
        "        self._count(size, ENTRY_BYTES * len(fresh))\n",
        "        self._count(size)\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: the total of a digest misses what is filled in",
        DIGEST,
        "        self.total = total\n",
        "",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a digest goes by the first origin only",
        REPLICA,
        "[e.origin for e in entries])",
        "[e.origin for e in entries][:1] * len(fresh))",
        FILL_TESTS,
    ),
)
