"""The command line: usage errors, exit codes, what is printed. Real clusters are in tests/integration."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from cache.cli.commands import cli
from cache.cli.outcome import exit_code
from cache.cluster import GroupInfo
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    ConnectionLostError,
    JoinRefusedError,
    NoQuorumError,
    OperationTimeoutError,
    UnavailableError,
    WrongTypeError,
)

MEMBERS = [
    {
        "id": "ada#1", "name": "ada", "address": "10.0.0.1:7400", "state": "alive",
        "leaving": False, "seniority": 1, "owned": 600, "copies": 1024, "zone": "z1",
        "host": "h1", "tags": {}, "is_coordinator": True, "lag": 0.0,
    },
    {
        "id": "bob#1", "name": "bob", "address": "10.0.0.2:7400", "state": "suspect",
        "leaving": True, "seniority": 2, "owned": 424, "copies": 1024, "zone": None,
        "host": None, "tags": {}, "is_coordinator": False, "lag": 2.04,
    },
]  # fmt: skip


GROUP: dict[str, Any] = {
    "group": "main", "uuid": "c0ffee", "replica": "ada/01", "halted": None, "role": "leader",
    "leader": "ada/01", "term": 1003, "voters": ["ada/01", "bob/02", "eve/03"],
    "learners": ["eve/04"], "gone": ["eve/03"], "commit": 41, "applied": 40, "first_index": 12,
    "last_index": 42, "snapshot_index": 11, "lag": {"bob/02": 3, "eve/03": 30, "eve/04": 42},
    "waits_for": "", "other_groups": [],
}  # fmt: skip


class FakeClient:
    """Stands in for `MemberClient`; the results are set by the test."""

    opened: list[dict[str, Any]]  # Any: constructor arguments
    calls: list[tuple[str, str, dict[str, Any]]]  # Any: arguments of map methods
    results: dict[str, Any]  # Any: results, or an exception, by method or topic

    def __init__(self, at: str, **options: object) -> None:
        self.opened.append({"at": at, **options})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def connect(self) -> Any:  # Any: as results
        return self._answer("connect")

    async def call(self, map_name: str, method: str, **arguments: object) -> Any:  # Any: as results
        self.calls.append((map_name, method, arguments))
        return self._answer(method)

    async def inspect(self, what: str) -> Any:  # Any: as results
        return self._answer(what)

    async def drain(self, *, timeout: float) -> Any:  # Any: as results
        return self._answer("drain")

    def _answer(self, name: str) -> Any:  # Any: as results
        result = self.results.get(name)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    class Fake(FakeClient):
        opened: list[dict[str, Any]] = []  # noqa: RUF012  (new in each test)
        calls: list[tuple[str, str, dict[str, Any]]] = []  # noqa: RUF012
        results: dict[str, Any] = {}  # noqa: RUF012

    monkeypatch.setattr("cache.member_client.MemberClient", Fake)
    for name in ("CACHE_AT", "CACHE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return Fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get"], "KEY"),
        (["set", "k"], "VALUE"),
        (["delete"], "KEYS"),
        (["nonsense"], "nonsense"),
        (["set", "k", "v", "--ttl", "soon"], "--ttl"),
        (["set", "k", "v", "--ttl", "-1"], "--ttl"),
        (["set", "k", "{", "--json"], "not JSON"),
        (["incr", "k", "much"], "integer"),
        (["get", "k", "--timeout", "0"], "--timeout"),
        (["node", "--map-ttl", "users"], "NAME=TTL"),
        (["node", "--map-ttl", "users=soon"], "ttl"),
        (["node", "--preset", "moon"], "--preset"),
        (["demo", "--keys", "0"], "--keys"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_is_wrong(arguments: list[str], said: str) -> None:
    """A usage error is found before anything is connected or started."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["node", "--bind", "nowhere"], "bind"),
        (["node", "--bind", "0.0.0.0:0"], "secret"),
        (["node", "--peer", "127.0.0.1:0"], "peers"),
        (["node", "--replicas", "0"], "replica_count"),
        (["node", "--partitions", "0"], "partition_count"),
        (["node", "--write-quorum", "3", "--replicas", "2"], "write_quorum"),
        (["node", "--secret", "short"], "secret"),
        (["node", "--data-dir", ""], "data_dir"),
        (["node", "--expected-size", "0"], "expected_size"),
        (["get", "k", "--at", "nowhere"], "nowhere"),
    ],
)
def test_a_bad_setting_exits_with_2_in_one_line(arguments: list[str], field: str) -> None:
    """`ConfigError` names the field; no traceback."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert field in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["", "node", "members", "stats", "drain", "get", "set", "demo"])
def test_every_command_has_help(command: str) -> None:
    """`--help` says what the command does."""
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_help_loads_nothing_heavy() -> None:
    """Commands import what they need when they run, so that help and completion are quick."""
    program = (
        "import sys\nfrom cache.cli.commands import cli\n"
        "try: cli(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('cache.cluster', 'rich', 'msgspec', 'uvloop') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


# -- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (CodecError("x"), 2),
        (JoinRefusedError("x"), 3),
        (NoQuorumError("x"), 4),
        (UnavailableError("x"), 4),
        (WrongTypeError("x"), 4),
        (ClosedError("x"), 4),
        (OperationTimeoutError("x"), 5),
        (ConnectionLostError("x"), 5),
    ],
)
def test_the_exit_code_says_whether_it_was_applied(
    fake: type[FakeClient], error: CacheError, code: int
) -> None:
    """2 usage, 3 no connection, 4 rejected, 5 unknown."""
    fake.results["set"] = error

    result = run("set", "k", "v")

    assert code == result.exit_code == exit_code(error)
    assert result.stderr == "cache: x\n"


@pytest.mark.parametrize("error", [UnavailableError("x"), JoinRefusedError("x")])
def test_a_member_that_cannot_be_reached_exits_with_3(
    fake: type[FakeClient], error: CacheError
) -> None:
    """Refused by the system or by the member: there is no connection."""
    fake.results["connect"] = error

    result = run("get", "k", "--at", "10.0.0.1:7400")

    assert result.exit_code == 3
    assert "cannot connect to 10.0.0.1:7400" in result.stderr


@pytest.mark.parametrize(
    "command", [["members"], ["stats"], ["raft", "info"], ["drain"], ["get", "k"], ["incr", "k"]]
)
def test_a_refused_connection_exits_with_3_in_one_line(free_port: int, command: list[str]) -> None:
    """Really nobody there."""
    result = run(*command, "--at", f"127.0.0.1:{free_port}")

    assert result.exit_code == 3
    assert f"cannot connect to 127.0.0.1:{free_port}" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_address_in_use_exits_with_3() -> None:
    """`cache node` says that it cannot bind, in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"

        done = subprocess.run(
            [sys.executable, "-m", "cache", "node", "--bind", bind, "--log-level", "error"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 3
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


# -- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "options", "printed"),
    [
        ("text", [], b"text\n"),
        ("text", ["--json"], b'"text"\n'),
        ({"langs": 3}, [], b'{"langs": 3}\n'),
        (None, [], b"null\n"),
        (b"\xff\x00", [], b"\xff\x00"),
        (b"\xff\x00", ["--json"], b'{"base64": "/wA="}\n'),
    ],
)
def test_get_prints_the_value(
    fake: type[FakeClient], value: object, options: list[str], printed: bytes
) -> None:
    """Text and bytes as they are, the rest as JSON."""
    fake.results["get_many"] = {"k": value}

    result = run("get", "k", *options)

    assert result.exit_code == 0
    assert printed == result.stdout_bytes


def test_get_of_an_absent_key_exits_with_1(fake: type[FakeClient]) -> None:
    """Absent is not the same as a stored null."""
    fake.results["get_many"] = {}

    result = run("get", "k", "--map", "users")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "cache: no key 'k' in map 'users'\n"


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {"key": "k", "value": "7"}),
        (["--json"], {"key": "k", "value": 7}),
        (["--ttl", "1h30m"], {"key": "k", "value": "7", "ttl": "1h30m"}),
        (["--ttl", "90"], {"key": "k", "value": "7", "ttl": 90.0}),
        (["--ttl", "never"], {"key": "k", "value": "7", "ttl": None}),
    ],
)
def test_set_sends_what_was_typed(
    fake: type[FakeClient], options: list[str], arguments: dict[str, Any]
) -> None:
    """Text unless --json; without --ttl the map's own default applies."""
    result = run("set", "k", "7", "--map", "users", *options)

    assert result.exit_code == 0
    assert [("users", "set", arguments)] == fake.calls


@pytest.mark.parametrize(("count", "code"), [(2, 0), (0, 1)])
def test_delete_prints_how_many_were_there(fake: type[FakeClient], count: int, code: int) -> None:
    """Exit code 1 when none was."""
    fake.results["delete_many"] = count

    result = run("delete", "a", "b")

    assert code == result.exit_code
    assert f"{count}\n" == result.stdout
    assert fake.calls[0][2] == {"keys": ["a", "b"]}


def test_incr_prints_the_sum(fake: type[FakeClient]) -> None:
    """Delta and initial value are whole numbers; negative ones follow `--`."""
    fake.results["incr"] = 7

    result = run("incr", "--initial", "10", "--", "k", "-3")

    assert result.stdout == "7\n"
    assert fake.calls[0][2] == {"key": "k", "delta": -3, "initial": 10}


# -- inspection ----------------------------------------------------------------------------------


def test_members_shows_a_row_for_each(fake: type[FakeClient]) -> None:
    """Name, state and what each holds."""
    fake.results["members"] = MEMBERS

    result = run("members")

    assert result.exit_code == 0
    for text in ("ada", "10.0.0.1:7400", "coordinator", "600", "bob", "leaving", "z1/h1", "2.0 s"):
        assert text in result.stdout


def test_members_as_json_is_complete(fake: type[FakeClient]) -> None:
    """For programs: everything the member said."""
    fake.results["members"] = MEMBERS

    assert json.loads(run("members", "--json").stdout) == MEMBERS


def test_raft_info_shows_each_group(fake: type[FakeClient]) -> None:
    """Who leads, how far it is, who votes and how late they are."""
    fake.results["consensus"] = {"main": GROUP}

    printed = run("raft", "info", "--at", "10.0.0.1:7400").stdout

    assert (
        printed
        == """\
group main as seen by 10.0.0.1:7400
  role         leader (ada/01)
  leader       ada/01
  term         1,003
  commit       41
  applied      40
  log          12 to 42
  snapshot to  11
  voter        ada/01  leads
  voter        bob/02  lag 3
  voter        eve/03  its log is lost
  learner      eve/04  lag 42
"""
    )


def test_raft_info_says_why_there_is_no_group_yet(fake: type[FakeClient]) -> None:
    """What is missing to found one."""
    fake.results["consensus"] = {
        "main": GROUP | {"uuid": "", "waits_for": "it waits for 3 members, sees 2"}
    }

    assert "none yet     it waits for 3 members, sees 2" in run("raft", "info").stdout


def test_raft_info_as_json_has_every_field(fake: type[FakeClient]) -> None:
    """Those of `GroupInfo`."""
    fake.results["consensus"] = {"main": GROUP}

    assert json.loads(run("raft", "info", "--json").stdout) == {"main": GROUP}
    assert list(GROUP) == list(GroupInfo.__slots__)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"role": "follower", "lag": {}}, "voter        bob/02\n"),
        ({"role": None, "replica": None}, "role         no replica\n"),
        ({"role": None, "halted": "a write failed"}, "role         stopped (ada/01)\n"),
        ({"role": None, "halted": "a write failed"}, "stopped      a write failed\n"),
        ({"leader": ""}, "leader       nobody\n"),
        ({"other_groups": ["beef"]}, "other groups beef: members were started apart"),
    ],
)
def test_raft_info_of_a_member_that_does_not_lead(
    fake: type[FakeClient], fields: dict[str, Any], said: str
) -> None:
    """It does not know how late others are; a stopped replica says why."""
    fake.results["consensus"] = {"main": GROUP | fields}

    assert said in run("raft", "info").stdout


def test_stats_prints_status_and_counters(fake: type[FakeClient]) -> None:
    """One line per reading."""
    fake.results.update(status={"name": "ada", "entries": 12_345}, stats={"rpc.calls": 2.5})

    result = run("stats")

    assert result.stdout == "name       ada\nentries    12,345\nrpc.calls  2.500\n"


@pytest.mark.parametrize(("complete", "code"), [(True, 0), (False, 1)])
def test_drain_exits_by_its_receipt(fake: type[FakeClient], *, complete: bool, code: int) -> None:
    """1 when something could not be handed over."""
    fake.results["drain"] = {
        "complete": complete, "partitions": 9, "keys": 99, "seconds": 0.5, "remaining": 3,
    }  # fmt: skip

    result = run("drain")

    assert code == result.exit_code
    assert "9 partitions, 99 keys in 0.50 s" in result.stdout


def test_target_comes_from_the_environment(
    fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CACHE_AT and CACHE_SECRET, so that they need not be typed; options win."""
    monkeypatch.setenv("CACHE_AT", "10.0.0.9:7400")
    monkeypatch.setenv("CACHE_SECRET", "from the environment")
    fake.results["incr"] = 1

    run("incr", "k")
    run("incr", "k", "--at", "10.0.0.8:7400")

    assert [options["at"] for options in fake.opened] == ["10.0.0.9:7400", "10.0.0.8:7400"]
    assert fake.opened[0]["secret"] == "from the environment"


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"settled": True}, 0, "ready"),
        ({"settled": False, "migrating": 3, "orphans": 1}, 1, "migrating=3, orphans=1"),
        ({"settled": False}, 1, "joining"),
    ],
)
def test_ready_says_what_is_unfinished(
    fake: type[FakeClient], status: dict[str, Any], code: int, said: str
) -> None:
    """An orchestrator goes on with 0 only."""
    work = dict.fromkeys(("under_replicated", "migrating", "unsettled", "orphans"), 0)
    fake.results["status"] = {**work, **status}

    result = CliRunner().invoke(cli, ["ready"])

    assert code == result.exit_code
    assert said in result.output
