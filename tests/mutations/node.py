"""Planted mutations of what carries consensus on a node: notices, stored logs, disks that survive."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

LINK: Final = "cluster/transport/link.py"
RPC: Final = "cluster/transport/rpc.py"
INBOUND: Final = "cluster/transport/inbound.py"
NOTICES: Final = "tests/unit/cluster/transport/test_notices.py"

STORED: Final = "cluster/raft/stored.py"
STORED_TESTS: Final = "tests/unit/cluster/raft/test_stored.py"

DATA_DIR: Final = "cluster/data_dir.py"
DATA_DIR_TESTS: Final = "tests/unit/cluster/test_data_dir.py"

CLUSTER: Final = "testing/cluster.py"
DISK_TESTS: Final = "tests/unit/testing/test_disks.py"

NODE_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "transport: a stream that is just being accepted stays open",
        "cluster/transport/sockets.py",
        "            await asyncio.sleep(0)\n        finally:\n",
        "            pass\n        finally:\n",
        "tests/unit/cluster/transport/test_sockets.py",
    ),
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
        "        if kind == frames.PONG and request_id <= self._notice_count:\n",
        "        if kind == frames.PONG:\n",
        NOTICES,
    ),
    Mutation(
        "notices: a notice with the id of a request",
        INBOUND,
        "        if request_id:\n",
        "        if False:\n",
        NOTICES,
    ),
    Mutation(
        "stored log: hard state apart from entries",
        STORED,
        "            writes.append(store.SetHardState(group, store.HardState(hard.term, hard.vote)))\n",
        "            await self._commit(store.SetHardState(group, store.HardState(hard.term, hard.vote)))\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: a snapshot apart from what it replaces",
        STORED,
        "            writes.append(await self._write_chunks(group, snapshot))\n",
        "            await self._commit(await self._write_chunks(group, snapshot))\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: checksum ignored",
        "storage/records.py",
        "    if sealed[:CHECKSUM_BYTES] != xxh3_64_digest(position + content):\n",
        "    if len(sealed) < CHECKSUM_BYTES:\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: without its state it is a new one",
        STORED,
        "        if kept is None or group not in self._storage.groups():\n",
        "        if kept is None:\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: any entry in any place",
        STORED,
        "    if found != expected:\n",
        "    if False:\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: acknowledged before it is durable",
        STORED,
        "        await future\n",
        "        await asyncio.sleep(0.0001)\n",
        STORED_TESTS,
    ),
    Mutation(
        "stored log: stop where others have to drain",
        STORED,
        "                if not self._under_way:\n",
        "                if True:\n",
        STORED_TESTS,
    ),
    Mutation(
        "data_dir: the last name wins",
        DATA_DIR,
        "            os.link(draft, path)\n",
        "            path.write_bytes(draft.read_bytes())\n",
        DATA_DIR_TESTS,
    ),
    Mutation(
        "data_dir: a new name beside old data",
        DATA_DIR,
        "    if (folder / DATABASE).exists():\n",
        "    if False:\n",
        DATA_DIR_TESTS,
    ),
    Mutation(
        "data_dir: any text is a name",
        DATA_DIR,
        "    if not NAME_PATTERN.fullmatch(name):\n",
        "    if not name:\n",
        DATA_DIR_TESTS,
    ),
    Mutation(
        "data_dir: a node keeps its store open",
        "cluster/node.py",
        "        await self._storage.close()\n",
        "",
        DATA_DIR_TESTS,
    ),
    Mutation(
        "disks: a restart loses them",
        CLUSTER,
        "        if keep_disk is False:\n",
        "        if keep_disk is not True:\n",
        DISK_TESTS,
    ),
    Mutation(
        "disks: keep_disk=False keeps them",
        CLUSTER,
        "            self._world.drop_disk(index)\n",
        "",
        DISK_TESTS,
    ),
    Mutation(
        "disks: a fault that never happened passes",
        CLUSTER,
        "        missing = [name for name, count in happened.items() if not count]\n",
        "        missing: list[str] = []\n",
        DISK_TESTS,
    ),
    Mutation(
        "disks: a loss of power leaves no torn commit",
        "testing/sim/disk.py",
        "            if self.rng.random() < self.faults.torn:\n",
        "            if self.rng.random() < 0:\n",
        DISK_TESTS,
    ),
)
