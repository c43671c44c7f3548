"""Planted mutations of what carries consensus on a node: notices, stored logs, disks that survive."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

LINK: Final = "cluster/transport/link.py"
RPC: Final = "cluster/transport/rpc.py"
INBOUND: Final = "cluster/transport/inbound.py"
NOTICES: Final = "tests/unit/cluster/transport/test_notices.py"

NODE_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "notices: a drop is not counted",
        RPC,
        "            self._around.notices_dropped.add()\n",
        "",
        NOTICES,
    ),
    Mutation(
        "notices: those lost with a link are not counted",
        LINK,
        "        self.around.notices_dropped.add(len(self._unsent_notices))\n",
        "",
        NOTICES,
    ),
    Mutation(
        "notices: no bound while a link opens",
        LINK,
        "        self._check_limits(len(body), len(self._unsent_notices))\n",
        "        self._check_limits(len(body), 0)\n",
        NOTICES,
    ),
    Mutation(
        "notices: nobody watches the link",
        LINK,
        "        is_noticed = self._arrived_count < self._notice_count\n",
        "        is_noticed = False\n",
        NOTICES,
    ),
    Mutation(
        "notices: any PONG confirms everything",
        LINK,
        "            self._arrived_count = max(self._arrived_count, request_id)\n",
        "            self._arrived_count = self._notice_count\n",
        NOTICES,
    ),
    Mutation(
        "notices: a PONG from the future",
        LINK,
        "        elif kind == frames.PONG and request_id <= self._notice_count:\n",
        "        elif kind == frames.PONG:\n",
        NOTICES,
    ),
    Mutation(
        "notices: a notice with the id of a request",
        INBOUND,
        "        if request_id:\n",
        "        if False:\n",
        NOTICES,
    ),
)
