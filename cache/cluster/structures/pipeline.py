"""Operations of one map that leave together: one message per member, and an outcome for each operation.

An operation is the very coroutine of `DistributedMap`, on an access whose router records what it is asked. It
runs as far as its request; when the pipeline is left, the requests travel, and it runs on with its reply.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.keyed import KeyOperations
from cache.cluster.structures.outcomes import BATCH_SHARE, each, raise_failed, uncertain
from cache.cluster.structures.router import RETRIED, Router
from cache.cluster.structures.state import MapState
from cache.cluster.transport.failures import failure_to_exception
from cache.cluster.wire.encoding import decode_reply, encode_message
from cache.cluster.wire.messages import Failure, Get, Pipelined, PipelineReplies, Reply, Set, Value
from cache.durations import DEFAULT
from cache.errors import CacheError, ClosedError, IndeterminateError
from cache.keys import Key, Ttl

V = TypeVar("V")
T = TypeVar("T")
D = TypeVar("D")


class Pending(Generic[T]):
    """The result of one operation, once its pipeline was left."""

    __slots__ = ("_error", "_is_settled", "_value")

    def __init__(self) -> None:
        self._is_settled = False
        self._value: T | None = None
        self._error: Exception | None = None

    def result(self) -> T:
        """Return what the operation returned, or raise what it raised.

        Raises:
            ClosedError: the pipeline was not left yet, or was left by an exception, and nothing was sent.
        """
        if not self._is_settled:
            raise ClosedError(
                "the operation was not sent: leave the `async with` of its pipeline first"
            )
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # It was settled with a T, which may be None.

    def _settle(self, value: T | None, error: Exception | None) -> None:
        self._is_settled, self._value, self._error = True, value, error


class _Request:
    """What an operation asks for; awaiting it gives the reply."""

    __slots__ = ("message", "partition")

    def __init__(self, partition: int, message: Any) -> None:  # Any: a map request
        self.partition = partition
        self.message = message

    def __await__(self) -> Generator[_Request, Reply, Reply]:
        reply = yield self
        return reply


class Recorder:
    """Stands where operations on single keys expect a router."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.clock = router.clock

    async def write(self, partition: int, request: Any) -> Reply:  # Any: a map request
        """Ask for a write."""
        return await _Request(partition, request)

    async def begin_set(
        self, map_name: str, partition: int, key: bytes, value: bytes, ttl: float
    ) -> None:
        """Ask for a plain write."""
        await _Request(partition, Set(map_name, partition, key, value, ttl, b""))

    def begin_read(self, map_name: str, partition: int, key: bytes) -> None:
        """Begin nothing: it is recorded."""

    async def read(self, map_name: str, partition: int, key: bytes, deadline: None) -> bytes | None:
        """Ask for a value."""
        reply = await _Request(partition, Get(map_name, partition, key, False))
        assert isinstance(reply, Value)
        return reply.value


class _Operation:
    """One operation that waits for its reply."""

    __slots__ = ("coroutine", "error", "key", "pending", "request")

    def __init__(self, key: Key, coroutine: Coroutine[Any, Any, Any]) -> None:
        # Any: what the operation returns.
        self.key = key
        self.coroutine = coroutine
        self.request: _Request = coroutine.send(None)
        self.pending: Pending[Any] = Pending()
        self.error: Exception | None = None
        """How it failed, or the batch it was in."""

    def reply(self, reply: Reply) -> None:
        """Let the operation run on."""
        self.error = None
        try:
            self.coroutine.send(reply)
        except StopIteration as done:
            self.pending._settle(done.value, None)
        except Exception as error:  # noqa: BLE001  It is this operation's outcome.
            self._settle(error)
        else:
            raise AssertionError("an operation on one key asks once")

    def fail(self, error: Exception) -> None:
        """End the operation."""
        self.end()
        self._settle(error)

    def end(self) -> None:
        """Let the coroutine go if it waits for a reply; compiled ones must not be closed after their end."""
        if not self.pending._is_settled:
            self.coroutine.close()

    def _settle(self, error: Exception) -> None:
        self.error = error
        self.pending._settle(None, error)


class Pipeline(Generic[V]):
    """Operations of one map that leave together when the `async with` block ends.

    Each member gets one message with all operations on keys it owns, and answers with one. Operations on one
    key take effect in their order. It is no transaction: others may come in between, and some operations may
    fail while others are applied. Leaving raises `BatchError` if any failed, `RejectedError` if all were
    refused; each result is asked for with `Pending.result`. If the block raises, nothing is sent.
    """

    def __init__(self, access: MapAccess, state: MapState) -> None:
        self._router = access.router
        self._map: KeyOperations[V] = KeyOperations(
            access.recording(Recorder(access.router)), state
        )
        self._operations: list[_Operation] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        operations, self._operations = self._operations, []
        if error is not None:
            for operation in operations:
                operation.end()
            return
        await self._send(operations)

    def _add(self, key: Key, coroutine: Coroutine[Any, Any, T]) -> Pending[T]:
        operation = _Operation(key, coroutine)
        self._operations.append(operation)
        return operation.pending

    # -- operations --------------------------------------------------------------------------

    @overload
    def get(self, key: Key) -> Pending[V | None]: ...
    @overload
    def get(self, key: Key, default: D) -> Pending[V | D]: ...
    def get(self, key: Key, default: object = None) -> Pending[Any]:
        """As `DistributedMap.get`."""
        return self._add(key, self._map.get(key, default))

    def exists(self, key: Key) -> Pending[bool]:
        """As `DistributedMap.exists`."""
        return self._add(key, self._map.exists(key))

    def ttl(self, key: Key) -> Pending[float | None]:
        """As `DistributedMap.ttl`."""
        return self._add(key, self._map.ttl(key))

    def set(self, key: Key, value: V, **options: Any) -> Pending[bool]:
        """As `DistributedMap.set`, with its options."""
        return self._add(key, self._map.set(key, value, **options))

    def add(self, key: Key, value: V, **options: Any) -> Pending[bool]:
        """As `DistributedMap.add`, with its options."""
        return self._add(key, self._map.add(key, value, **options))

    def replace(self, key: Key, value: V, **options: Any) -> Pending[bool]:
        """As `DistributedMap.replace`, with its options."""
        return self._add(key, self._map.replace(key, value, **options))

    def compare_and_set(self, key: Key, expected: V, value: V, **options: Any) -> Pending[bool]:
        """As `DistributedMap.compare_and_set`, with its options."""
        return self._add(key, self._map.compare_and_set(key, expected, value, **options))

    def get_and_set(self, key: Key, value: V, **options: Any) -> Pending[V | None]:
        """As `DistributedMap.get_and_set`, with its options."""
        return self._add(key, self._map.get_and_set(key, value, **options))

    def delete(self, key: Key) -> Pending[bool]:
        """As `DistributedMap.delete`."""
        return self._add(key, self._map.delete(key))

    def pop(self, key: Key, default: object = None) -> Pending[Any]:
        """As `DistributedMap.pop`."""
        return self._add(key, self._map.pop(key, default))

    def touch(self, key: Key, ttl: Ttl = DEFAULT) -> Pending[bool]:
        """As `DistributedMap.touch`."""
        return self._add(key, self._map.touch(key, ttl))

    def persist(self, key: Key) -> Pending[bool]:
        """As `DistributedMap.persist`."""
        return self._add(key, self._map.persist(key))

    def incr(self, key: Key, delta: float = 1, **options: Any) -> Pending[Any]:
        """As `DistributedMap.incr`, with its options."""
        return self._add(key, self._map.incr(key, delta, **options))

    def decr(self, key: Key, delta: float = 1, **options: Any) -> Pending[Any]:
        """As `DistributedMap.decr`, with its options."""
        return self._add(key, self._map.decr(key, delta, **options))

    def execute(self, key: Key, function: str, *arguments: Any) -> Pending[Any]:
        """As `DistributedMap.execute`."""
        return self._add(key, self._map.execute(key, function, *arguments))

    # -- sending -----------------------------------------------------------------------------

    async def _send(self, operations: Sequence[_Operation]) -> None:
        near, deadline = self._router.near, self._router.deadline()
        for operation in operations:
            near.outdate(operation.request.message)
        try:
            batches = self._router.by_owner(operations, lambda one: one.request.partition)
            replies = await self._router.to_members(
                [
                    (member, Pipelined([encode_message(one.request.message) for one in batch]))
                    for member, batch in batches
                ],
                share=BATCH_SHARE,
            )
            for (_, batch), reply in zip(batches, replies, strict=True):
                _settle(batch, reply)
            left = [one for one in operations if isinstance(one.error, RETRIED)]
            await self._again(left, deadline)
        finally:
            for operation in operations:
                near.outdate(operation.request.message)
                operation.end()
        failed = [operation for operation in operations if operation.error is not None]
        errors: dict[Key, Exception] = {}
        for operation in failed:
            assert operation.error is not None, "filtered by it"
            errors.setdefault(operation.key, operation.error)
        raise_failed(errors, len(failed), len(operations), "operations")

    async def _again(self, operations: Sequence[_Operation], deadline: float) -> None:
        """Do alone what a batch did not: each key's operations one after the other."""
        of_key: dict[tuple[type, Key], list[_Operation]] = {}
        for operation in operations:
            of_key.setdefault((type(operation.key), operation.key), []).append(operation)

        async def one_by_one(key: tuple[type, Key]) -> None:
            for operation in of_key[key]:
                partition, request = operation.request.partition, operation.request.message
                try:
                    reply = await self._router.write(partition, request, deadline)
                except CacheError as error:
                    before = operation.error
                    was_sent = isinstance(before, IndeterminateError)
                    operation.fail(uncertain(operation.key, error) if was_sent else error)
                else:
                    operation.reply(reply)

        await each(of_key, one_by_one)


def _settle(batch: Sequence[_Operation], reply: Reply | CacheError) -> None:
    """Give each operation of a batch what came of it; those that are to be tried again keep their error."""
    if isinstance(reply, CacheError):
        for operation in batch:
            operation.error = reply
        return
    assert isinstance(reply, PipelineReplies)
    for operation, body in zip(batch, reply.replies, strict=True):
        answer = decode_reply(body)
        if not isinstance(answer, Failure):
            operation.reply(answer)
            continue
        error = failure_to_exception(answer)
        if isinstance(error, RETRIED):
            operation.error = error
        else:
            operation.fail(error)
