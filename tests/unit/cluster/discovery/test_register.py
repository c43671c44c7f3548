"""The files of siblings: who lives, who is removed, one secret, one at a time, and nothing left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache.cluster.discovery.register import Register
from cache.cluster.ids import Address
from cache.errors import ConfigError

HERE = Address("127.0.0.1:7001")
THERE = Address("127.0.0.1:7002")


class _Registers:
    """Makes registers of one folder, as different processes would, and lets go of their locks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Register] = []

    def one(self) -> Register:
        self._made.append(Register(self.folder))
        return self._made[-1]

    def locked(self) -> Register:
        register = self.one()
        assert register.try_lock()
        return register

    def member(self, address: Address = HERE) -> Register:
        """A member that has joined, and lets the next one start."""
        register = self.locked()
        register.secret()
        register.enrol(address)
        register.promote()
        register.unlock()
        return register

    def close(self) -> None:
        for register in self._made:
            register.forget()


@pytest.fixture
def registers(place: Path) -> Iterator[_Registers]:
    made = _Registers(place / "app")
    yield made
    made.close()


# -- who lives -----------------------------------------------------------------------------------


def test_a_live_process_is_seen_by_others_and_by_itself(registers: _Registers) -> None:
    """With where it listens."""
    first, second = registers.member(HERE), registers.member(THERE)

    seen = [{entry.address: entry.pid for entry in one.entries()} for one in (first, second)]

    assert seen == [{HERE: os.getpid(), THERE: os.getpid()}] * 2


def test_a_process_that_looks_for_the_cluster_has_not_joined(registers: _Registers) -> None:
    """It cannot be joined through, but streams to it may use its socket."""
    register = registers.locked()
    register.enrol(HERE)
    assert [entry.has_joined for entry in register.entries()] == [False]

    register.promote()

    assert [entry.has_joined for entry in register.entries()] == [True]


def test_what_a_dead_process_left_is_removed_by_whoever_sees_it(registers: _Registers) -> None:
    """The system has let go of its lock."""
    dead, alive = registers.member(HERE), registers.member(THERE)
    dead.socket_path().touch()
    dead.release()

    assert [entry.address for entry in alive.entries()] == [THERE]
    assert not list(registers.folder.glob(f"{dead.id}.*"))


def test_two_that_look_at_once_do_not_take_each_other_for_the_dead(registers: _Registers) -> None:
    """Looking takes a shared lock for a moment; members hold theirs alone."""
    members = [registers.member(Address(f"127.0.0.1:{7000 + n}")) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        seen = [len(found) for found in pool.map(lambda n: members[n % 4].entries(), range(400))]

    assert [4] * 400 == seen


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"address": "nowhere"}', b"\xff" * 10])
def test_an_entry_that_cannot_be_read_is_passed_over(registers: _Registers, content: bytes) -> None:
    """Written by another version, perhaps: it is alive, so it is left alone."""
    strange, register = registers.member(THERE), registers.member(HERE)
    path = registers.folder / f"{strange.id}.member"
    path.write_bytes(content)

    assert [entry.address for entry in register.entries()] == [HERE]
    assert path.exists()


# -- one at a time -------------------------------------------------------------------------------


def test_one_starts_at_a_time(registers: _Registers) -> None:
    """The next one gets the lock when the first is done."""
    first, second = registers.locked(), registers.one()
    assert not second.try_lock()

    first.unlock()

    assert second.try_lock()


def test_the_lock_of_a_process_that_ended_is_free(registers: _Registers) -> None:
    """However it ended: the system closes its files."""
    first, second = registers.locked(), registers.one()
    assert first._lock is not None
    os.close(first._lock)
    first._lock = None

    assert second.try_lock()


def test_a_lock_on_a_file_that_is_gone_does_not_count(
    registers: _Registers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last member removes the folder between another's opening of the lock and its turn."""
    late, last = registers.one(), registers.member()
    real_open = os.open

    def open_then_lose(path: Path, *arguments: int) -> int:
        descriptor = real_open(path, *arguments)
        monkeypatch.setattr(os, "open", real_open)
        assert last.try_lock()
        last.withdraw()
        last.remove_if_deserted()
        last.unlock()
        return descriptor

    monkeypatch.setattr(os, "open", open_then_lose)

    assert not late.try_lock()
    assert late.try_lock()


# -- the secret ----------------------------------------------------------------------------------


def test_all_have_the_secret_that_the_first_one_drew(registers: _Registers) -> None:
    """256 bits, readable by nobody else."""
    first, second = registers.locked(), registers.one()

    assert first.secret() == second.secret()
    assert len(first.secret()) == 64
    assert (registers.folder / "secret").stat().st_mode & 0o777 == 0o600


def test_many_that_draw_at_once_agree(registers: _Registers) -> None:
    """The first link wins; nobody sees half of one, and nobody's draft is left."""
    registers.locked()
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: registers.one().secret(), range(64)))

    assert len(set(drawn)) == 1
    assert not list(registers.folder.glob("*.new"))


@pytest.mark.parametrize("damage", ["", "short", "x" * 100])
def test_a_damaged_secret_is_refused(registers: _Registers, damage: str) -> None:
    """An empty one above all."""
    register = registers.locked()
    register.secret()
    (registers.folder / "secret").write_text(damage)

    with pytest.raises(ConfigError, match="damaged"):
        register.secret()


# -- nothing left --------------------------------------------------------------------------------


def test_the_last_one_removes_everything(registers: _Registers) -> None:
    """The first one to leave does not."""
    first, second = registers.member(HERE), registers.member(THERE)
    for leaver, is_last in ((first, False), (second, True)):
        leaver.withdraw()
        assert leaver.try_lock()
        leaver.remove_if_deserted()
        leaver.unlock()

        assert registers.folder.exists() is not is_last


def test_files_of_others_are_left_alone(registers: _Registers) -> None:
    """Somebody's notes in the folder stay, and with them the folder."""
    register = registers.locked()
    (registers.folder / "notes").touch()

    register.remove_if_deserted()

    assert [path.name for path in registers.folder.iterdir()] == ["notes"]


def test_a_start_removes_what_crashes_left_half_done(registers: _Registers) -> None:
    """A socket whose entry was never made, a draft."""
    alive, register = registers.member(), registers.locked()
    alive.socket_path().touch()
    for name in ("0123456789ab.sock", "0123456789ab.new"):
        (registers.folder / name).touch()

    register.sweep()

    assert sorted(path.suffix for path in registers.folder.iterdir()) == [
        "",
        "",
        ".member",
        ".sock",
    ]


def test_what_a_cleaner_removed_is_put_back(registers: _Registers) -> None:
    """The secret is the old one: members that run would refuse another."""
    register = registers.member()
    secret = register.secret()
    for path in registers.folder.iterdir():
        path.unlink()
    registers.folder.rmdir()

    register.refresh()

    assert [entry.address for entry in register.entries()] == [HERE]
    assert registers.one().secret() == secret


def test_a_secret_that_another_drew_meanwhile_is_told(
    registers: _Registers, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody removed the files while members ran, and a process started before they were put back."""
    register = registers.member()
    for path in registers.folder.iterdir():
        path.unlink()
    registers.locked().secret()

    register.refresh()

    assert "siblings.secret_differs" in caplog.text


def test_a_withdrawal_can_be_repeated(registers: _Registers) -> None:
    """By a node that fails while it leaves."""
    register = registers.member()
    register.withdraw()
    register.withdraw()

    assert register.entries() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the child does next to nothing
def test_a_forked_child_does_not_keep_its_parent_alive(registers: _Registers) -> None:
    """A child has copies of all descriptors, and with them of the locks."""
    register = registers.member()
    forgotten, told = os.pipe()
    ending, end = os.pipe()
    child = os.fork()
    if child == 0:
        register.forget()
        os.write(told, b"x")
        os.close(end)
        os.read(ending, 1)  # until the parent has looked
        os._exit(0)
    os.read(forgotten, 1)
    register.release()

    try:
        assert registers.one().entries() == []
    finally:
        for descriptor in (end, ending, forgotten, told):
            os.close(descriptor)
        os.waitpid(child, 0)
