"""Planted mutations of large values: detached from their message, received in place."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

FRAMES: Final = "cluster/wire/frames.py"
DETACHED: Final = "cluster/wire/detached.py"
CONNECTION: Final = "cluster/transport/connection.py"
IN_PLACE: Final = "cluster/transport/in_place.py"
LINK: Final = "cluster/transport/link.py"
INBOUND: Final = "cluster/transport/inbound.py"
READS: Final = "cluster/structures/reads.py"

FRAME_TESTS: Final = "tests/unit/cluster/wire/test_frames.py"
DETACHED_TESTS: Final = "tests/unit/cluster/wire/test_detached.py"
TESTS: Final = "tests/unit/cluster/transport/test_large_values.py"
READS_TESTS: Final = "tests/unit/cluster/structures/test_reads.py"

LARGE_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "large: memory for whatever a header announces",
        FRAMES,
        "        self.room = min(size, ROOM_FIRST)\n",
        "        self.room = size\n",
        FRAME_TESTS,
    ),
    Mutation(
        "large: a body that grows loses what it had",
        FRAMES,
        "            larger.getbuffer()[: self.received] = self._store.getbuffer()\n",
        "",
        FRAME_TESTS,
    ),
    Mutation(
        "large: a value overwrites what a message has",
        DETACHED,
        '        if index >= len(column) or _value(column[index]) != b"":\n',
        "        if index >= len(column):\n",
        DETACHED_TESTS,
    ),
    Mutation(
        "large: a value without a place is an error of ours",
        DETACHED,
        '        if index >= len(column) or _value(column[index]) != b"":\n',
        '        if _value(column[index]) != b"":\n',
        DETACHED_TESTS,
    ),
    Mutation(
        "large: values without a message are kept without end",
        CONNECTION,
        "        if self._detached_bytes > self.around.limits.frame_bytes_max:\n",
        "        if False:\n",
        TESTS,
    ),
    Mutation(
        "large: values of any small size are taken",
        CONNECTION,
        "        if len(value) < DETACHED_BYTES_MIN:\n",
        "        if False:\n",
        TESTS,
    ),
    Mutation(
        "large: an ended connection keeps its memory",
        CONNECTION,
        "        self._parser.body = None\n",
        "",
        TESTS,
    ),
    Mutation(
        "large: TLS streams change their protocol",
        CONNECTION,
        '        if is_socket and stream.get_extra_info("ssl_object") is None:\n',
        "        if is_socket:\n",
        TESTS,
    ),
    Mutation(
        "large: nothing is received in place",
        CONNECTION,
        "            self._in_place.begin()\n",
        "            pass\n",
        TESTS,
    ),
    Mutation(
        "large: the stream is not given back",
        IN_PLACE,
        "            self._active = False\n",
        "            return\n",
        TESTS,
    ),
    Mutation(
        "large: a body on its way is no sign of life",
        IN_PLACE,
        "            self._connection.heard = True\n",
        "",
        TESTS,
    ),
    Mutation(
        "large: a whole body waits for the next frame",
        IN_PLACE,
        "            if body.advance(nbytes) and body.kind != DETACHED:\n",
        "            if body.advance(nbytes) and False:\n",
        TESTS,
    ),
    Mutation(
        "large: detached bytes of a request are not counted",
        LINK,
        "        size = len(body) + bytes_of(detached) if detached else len(body)\n",
        "        size = len(body)\n",
        TESTS,
    ),
    Mutation(
        "large: detached bytes of a reply are not counted",
        INBOUND,
        "            size = len(body) + bytes_of(detached) if detached else len(body)\n",
        "            size = len(body)\n",
        TESTS,
    ),
    Mutation(
        "large: a call that waits for its link forgets its value",
        LINK,
        "            self.send_apart(frames.REQUEST, request_id, body, detached)\n",
        "            self.send(frames.REQUEST, request_id, body)\n",
        TESTS,
    ),
    Mutation(
        "large: a notice takes no heed of a value before it",
        INBOUND,
        "            notice = self.attached(notice)\n",
        "            pass\n",
        TESTS,
    ),
    Mutation(
        "large: reads are gathered however large",
        READS,
        "            is_alone = len(batch.keys) == 1 or map_name in self._large_maps\n",
        "            is_alone = len(batch.keys) == 1\n",
        READS_TESTS,
    ),
)
