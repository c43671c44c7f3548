"""Clients of a simulated group: they write, read and retry, and tell the checks what they were told."""

from __future__ import annotations

from random import Random
from typing import Final

from cache.cluster.raft.messages import Kind
from cache.cluster.raft.outputs import Cancel, Propose, Read, Reason, Role
from cache.cluster.raft.sessions import Applied, Effect
from cache.testing.raft.world import Host, World

PATIENCE: Final = 0.6
"""Virtual seconds until a client gives a request up; its outcome is then unknown."""


class Client:
    """One client, with one request at a time. Some have a session, and retry what is unknown."""

    def __init__(self, world: World, name: str, *, with_session: bool, pace: float) -> None:
        self._world = world
        self._name = name
        self._rng = Random(f"{name} {world.rng.random()}")
        self._with_session = with_session
        self._pace = pace
        self._session = 0
        self._sequence = 0
        self._retry: bytes | None = None
        self._number = 0
        self._stopped = False
        self._wait()

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopped = True

    def _wait(self) -> None:
        self._world.later(self._rng.uniform(0, self._pace), self._next)

    def _next(self) -> None:
        if self._stopped:
            return
        up = [host for host in self._world.hosts.values() if host.up]
        host = self._rng.choice(up) if up else None
        leaders = [one for one in up if one.machine.role is Role.LEADER]
        if leaders and self._rng.random() < 0.6:
            host = self._rng.choice(leaders)  # Perhaps one that was replaced, and does not know.
        if host is None:
            self._wait()
        elif self._retry is None and self._rng.random() < 0.4:
            self._read(host)
        else:
            self._write(host)

    def _read(self, host: Host) -> None:
        floor = self._world.checks.answered
        lease = self._rng.random() < 0.5
        world = self._world

        def answer(result: Applied | Reason | int, place: int) -> None:
            if isinstance(result, Reason):
                world.counts["reads failed"] += 1
            else:
                world.counts["reads"] += 1
                how = "lease" if lease else "round"
                world.checks.read(host.name, place, floor, how=how)
            self._wait()

        request = host.ask(answer)
        host.post(Read(request=request, lease=lease))
        self._give_up_later(host, request)

    def _write(self, host: Host) -> None:
        if self._with_session and not self._session:
            return self._open(host)
        command = self._retry
        if command is None:
            self._number += 1
            self._sequence += 1
            command = f"x={self._name}.{self._number}".encode()

        def answer(result: Applied | Reason | int, place: int) -> None:
            self._answered(command, result, place)
            self._wait()

        request = host.ask(answer)
        sequence = self._sequence if self._with_session else 0
        event = Propose(
            request=request,
            data=command,
            session=self._session,
            sequence=sequence,
            answered=max(0, sequence - 1),
        )
        host.post(event)
        return self._give_up_later(host, request)

    def _answered(self, command: bytes, result: Applied | Reason | int, place: int) -> None:
        counts, checks = self._world.counts, self._world.checks
        first, self._retry = self._retry is None, None
        match result:
            case Applied(effect=Effect.SESSION_UNKNOWN):
                self._session = 0
                counts["sessions lost"] += 1
            case Applied(effect=effect):
                counts[f"writes {effect.value}"] += 1
                checks.answered = max(checks.answered, place)
            case Reason.LOST:
                counts["writes unknown"] += 1
                self._retry = command if self._with_session else None
            case _:
                counts["writes refused"] += 1
                if first:
                    checks.definite(command)
                elif self._with_session:
                    self._retry = command

    def _open(self, host: Host) -> None:
        def answer(result: Applied | Reason | int, place: int) -> None:
            if isinstance(result, Applied) and result.effect is Effect.APPLIED:
                self._session, self._sequence = int(result.answer), 0
            self._wait()

        request = host.ask(answer)
        host.post(Propose(request=request, kind=Kind.OPEN_SESSION, data=b"30"))
        self._give_up_later(host, request)

    def _give_up_later(self, host: Host, request: int) -> None:
        def give_up() -> None:
            answer = host.answers.pop(request, None)
            if answer is not None:
                host.post(Cancel(request))
                answer(Reason.LOST, 0)

        self._world.later(PATIENCE, give_up)
