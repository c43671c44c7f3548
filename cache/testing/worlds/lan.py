"""A network that exists only for a test: one namespace per member, joined by a bridge, faults by nftables.

```
  namespace …-1          namespace …-hub             namespace …-2
  eth0 10.77.0.1 ──veth── p1 ─┐ bridge ┌─ p2 ──veth── eth0 10.77.0.2
                              └────────┘  nftables: who may send to whom, and how much gets through
```

The hub has no way out and members have no default route: no packet leaves, and nothing of the machine's own
interfaces, routes or rules changes. Only IPv4 is cut, ARP passes: otherwise a cut in one direction would
soon be one in both, for want of the answer to "who has 10.77.0.1?".

Names begin with the process they belong to, so that a later run finds and removes what a killed one left.
Linux, root, `ip` and `nft` are needed; `why_unavailable` says which is missing.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "peercache"
SUBNET: Final = "10.77.0"
MEMBERS_MAX: Final = 250
COMMAND_TIMEOUT: Final = 20.0
CLONE_NEWNET: Final = 0x40000000
NAMESPACES: Final = Path("/run/netns")
SHARES: Final = 100_000
"""Parts in which the share of lost packets is counted."""

UNLIMITED_BITS: Final = 100_000_000_000
"""Bits per second of a link whose bandwidth was not set."""

DELAYING: Final = ("latency", "jitter", "duplicate", "reorder")
"""Conditions of a link that take the kernel's netem."""

RULES: Final = """
table bridge faults {
  counter stopped { }
  counter lost { }
  set cuts { type ipv4_addr . ipv4_addr; }
  chain loss { }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip saddr . ip daddr @cuts counter name stopped drop
    jump loss
  }
}
"""

Direction = tuple[str, str]
"""Source and target, as IPv4 addresses."""


class LanError(Exception):
    """The network cannot be made or changed here; says which command failed, and how."""


class Lan:
    """One such network. Calls are synchronous and take some milliseconds; `close` removes everything."""

    def __init__(self) -> None:
        self._name = f"{PREFIX}-{os.getpid()}-{_started_at(os.getpid())}-{secrets.token_hex(2)}"
        self._hub = f"{self._name}-hub"
        self._namespaces: list[str] = []
        self._links: dict[Direction, dict[str, float]] = {}
        self._shaped: dict[str, None] = {}
        # Also at the interpreter's exit, should nobody call close(); not at that of a fork of this process.
        self._remove = weakref.finalize(self, _remove_own, self._namespaces, os.getpid())

    def open(self) -> None:
        """Make the hub; remove what runs that were killed left behind.

        Raises:
            LanError: something is missing, or the kernel refuses.
        """
        if missing := _missing():
            raise LanError(missing)
        remove_leftovers()
        try:
            self._add_namespace(self._hub)
            _run(
                f"ip -n {self._hub} -batch -",
                "link add bridge type bridge forward_delay 0 mcast_snooping 0\n"
                "link set bridge addrgenmode none up\n",
            )
            self._nft(RULES)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the network; idempotent. Processes in it are killed."""
        self._remove()

    def add_host(self) -> str:
        """Add a namespace on the bridge; return its address."""
        number = len(self._namespaces)  # The hub is the first one, hosts count from 1.
        assert 1 <= number <= MEMBERS_MAX, "open, and no more hosts than addresses"
        address, namespace = f"{SUBNET}.{number}", f"{self._name}-{number}"
        self._add_namespace(namespace)
        _run(
            f"ip -n {self._hub} -batch -",
            f"link add p{number} type veth peer name eth0 netns {namespace}\n"
            f"link set p{number} master bridge addrgenmode none up\n",
        )
        _run(
            f"ip -n {namespace} -batch -",
            "link set lo up\n"
            "link set eth0 addrgenmode none up\n"
            f"address add {address}/24 dev eth0\n",
        )
        return address

    def namespace_of(self, address: str) -> str:
        """Return the name of a host's namespace."""
        return self._namespaces[_number(address)]

    def command(self, address: str) -> list[str]:
        """Return what to put before a command so that it runs on a host, under the same process id."""
        return [_tool("ip"), "netns", "exec", self.namespace_of(address)]

    def open_socket(
        self, address: str, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """Return a socket that lives on a host: what it sends to that host itself meets no fault.

        A socket stays in the network its thread was in when it was made; the thread goes in for that only.
        """
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(NAMESPACES / self.namespace_of(address), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            try:
                return socket.socket(socket.AF_INET, kind)
            finally:
                _enter(here)
        finally:
            os.close(there)
            os.close(here)

    # -- faults ------------------------------------------------------------------------------

    def set_cuts(self, cuts: Iterable[Direction]) -> None:
        """Stop all packets in these directions and let all others pass, in one step."""
        pairs = ", ".join(f"{source} . {target}" for source, target in sorted(set(cuts)))
        element = f"add element bridge faults cuts {{ {pairs} }}\n" if pairs else ""
        self._nft(f"flush set bridge faults cuts\n{element}")

    def stopped(self) -> int:
        """Return how many packets the cuts have stopped so far."""
        return self._count("stopped")

    def lost(self) -> int:
        """Return how many packets were lost on purpose so far."""
        return self._count("lost")

    def set_link(self, direction: Direction, conditions: Mapping[str, float]) -> None:
        """Give one direction these conditions and no others; none at all mends it.

        `loss` is done by nftables, `bandwidth` (bytes per second) by the kernel's htb; `latency`, `jitter`,
        `duplicate` and `reorder` take netem, which not every kernel has, see `has_netem`.

        Raises:
            LanError: the kernel cannot do it.
        """
        self._links.pop(direction, None)
        if conditions:
            self._links[direction] = dict(conditions)
        self._apply_loss()
        self._shape(direction[1])

    def has_netem(self) -> bool:
        """Return whether this kernel can delay packets."""
        try:
            _run(f"tc -n {self._hub} qdisc add dev bridge root netem delay 1ms")
        except LanError:
            return False
        _run(f"tc -n {self._hub} qdisc del dev bridge root")
        return True

    def _apply_loss(self) -> None:
        rules = [
            f"add rule bridge faults loss ip saddr {source} ip daddr {target} "
            f"numgen random mod {SHARES} < {round(link['loss'] * SHARES)} "
            "counter name lost drop\n"
            for (source, target), link in self._links.items()
            if link.get("loss")
        ]
        self._nft("flush chain bridge faults loss\n" + "".join(rules))

    def _shape(self, target: str) -> None:
        """Queue what goes to a host: a class for each source that has a condition, none for the others."""
        port = f"p{_number(target)}"
        links = {
            s: link for (s, t), link in self._links.items() if t == target and {*link} - {"loss"}
        }
        lines = []
        if port in self._shaped:
            del self._shaped[port]
            lines.append(f"qdisc del dev {port} root")
        if links:
            self._shaped[port] = None
            lines.append(f"qdisc add dev {port} root handle 1: htb")
        for source, link in links.items():
            number = _number(source)
            rate = round(link.get("bandwidth", 0.0) * 8) or UNLIMITED_BITS
            lines += [
                f"class add dev {port} parent 1: classid 1:{number:x} htb rate {rate}bit quantum 60000",
                f"filter add dev {port} parent 1: protocol ip u32 match ip src {source} flowid 1:{number:x}",
            ]
            if any(name in link for name in DELAYING):
                lines.append(f"qdisc add dev {port} parent 1:{number:x} netem {_netem(link)}")
        if lines:
            _run(f"tc -n {self._hub} -batch -", "\n".join(lines) + "\n")

    def _count(self, counter: str) -> int:
        words = self._nft(f"list counter bridge faults {counter}\n").split()
        return int(words[words.index("packets") + 1])

    def _add_namespace(self, name: str) -> None:
        self._namespaces.append(name)
        _run(f"ip netns add {name}")

    def _nft(self, commands: str) -> str:
        return _run(f"ip netns exec {self._hub} {_tool('nft')} -f -", commands)


def why_unavailable() -> str | None:
    """Return why there can be no such network here, or None; tries it out."""
    lan = Lan()
    try:
        lan.open()
        lan.set_cuts([(lan.add_host(), lan.add_host())])
    except LanError as error:
        return str(error)
    finally:
        lan.close()
    return None


def remove_leftovers() -> None:
    """Remove what processes that no longer run left behind, the members that ran there included."""
    left = [name for name in _namespaces() if name.startswith(f"{PREFIX}-") and not _is_owned(name)]
    _remove_all(left)


def _missing() -> str | None:
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if _find(tool) is None:
            return f"no `{tool}` on PATH (Debian: apt-get install {package})"
    return None


def _find(tool: str) -> str | None:
    """Look in the folders of administrators, too: a PATH need not have them."""
    return shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")


def _tool(name: str) -> str:
    return _find(name) or name


def _run(command: str, commands: str | None = None) -> str:
    """Run a tool, its commands on standard input if there are any; return what it printed."""
    tool, *arguments = command.split()
    try:
        done = subprocess.run(
            [_tool(tool), *arguments],
            input=commands,
            stdin=subprocess.DEVNULL if commands is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise LanError(f"`{command}` does not run: {error}") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        raise LanError(f"`{command}` failed: {reason[0]}")
    return done.stdout


def _remove_own(namespaces: list[str], process: int) -> None:
    if process == os.getpid():
        _remove_all(namespaces)


def _remove_all(namespaces: list[str]) -> None:
    """Kill what runs in these namespaces and delete them; a link ends with either end of it."""
    there = frozenset(_namespaces())
    while namespaces:
        name = namespaces.pop()
        if name not in there:
            continue
        with suppress(LanError):  # Somebody else may clean up the same left-overs.
            for process in _run(f"ip netns pids {name}").split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            _run(f"ip netns del {name}")


def _namespaces() -> list[str]:
    return sorted(path.name for path in NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def _is_owned(name: str) -> bool:
    """Return whether the process that made a namespace still runs: same id, same start."""
    words = name.split("-")
    return len(words) == 5 and words[1].isdigit() and _started_at(int(words[1])) == words[2]


def _started_at(process: int) -> str:
    """Return when a process started, in ticks since the machine did; empty when there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # proc(5), field 22


def _number(address: str) -> int:
    return int(address.rpartition(".")[2])


def _netem(link: Mapping[str, float]) -> str:
    words = [f"delay {link.get('latency', 0.0) * 1e6:.0f}us {link.get('jitter', 0.0) * 1e6:.0f}us"]
    words += [f"{name} {link[name]:.3%}" for name in ("duplicate", "reorder") if link.get(name)]
    return " ".join(words)


def _enter(namespace: int) -> None:
    """Let this thread use another network; `os.setns` is there from Python 3.12 on only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise LanError(f"cannot enter a network namespace: {os.strerror(number)}")
