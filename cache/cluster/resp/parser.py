"""Bytes of a client to commands: arrays of bulk strings, and inline commands as people type them.

`RequestParser` is fed what a read brought and asked for one command at a time, so that what is not
executed yet is not parsed either. Every length is checked before anything is made for it. After a
`ProtocolError` nothing more can be read: where the next command begins is not known.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/ ("Sending commands", "Inline commands").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.cluster.resp.numbers import whole_number
from cache.errors import RemoteProtocolError

LINE_BYTES_MAX: Final = 64 * 1024
"""Bytes of an inline command, and of a line that holds a length."""

ARGUMENT_OVERHEAD: Final = 64
"""Bytes that an argument counts for besides its own: what Python takes for it, roughly."""

LARGE_BYTES: Final = 32 * 1024
"""A bulk string above it is gathered in place; parts of shorter ones are joined with what follows."""

ARRAY: Final = ord("*")
BULK: Final = ord("$")

HEAD_BYTES_MAX: Final = 6
_LENGTHS: Final = {b"$%d" % length: length for length in range(1000)}
"""Lengths of short strings by their line."""

_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


class ProtocolError(RemoteProtocolError):
    """What a client sent is no command; its connection is closed. The text is Redis's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What one command of a client may be; reaching a limit ends the connection."""

    arguments_max: int
    """Elements of the array."""

    bulk_bytes_max: int
    """Bytes of one argument."""

    request_bytes_max: int
    """Bytes of all arguments, each counted with `ARGUMENT_OVERHEAD`."""

    prefix: str = ""
    """What stands before the names of limits in errors."""


class RequestParser:
    """Gathers the bytes of one connection, and takes commands out of them."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        """May be replaced between two commands."""
        self._data = b""
        self._at = 0
        self._arguments: list[bytes] = []
        self._wanted = 0
        """Arguments that the command begun still needs."""
        self._size = 0
        self._length = -1
        """Bytes of the bulk string begun, -1 when none is."""
        self._large: bytearray | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were fed and belong to no command that was returned."""
        gathered = 0 if self._large is None else len(self._large)
        return len(self._data) - self._at + self._size + gathered

    def feed(self, data: bytes) -> None:
        """Take what a read brought."""
        if self._large is not None:
            missing = self._length + 2 - len(self._large)
            self._large += data[:missing]
            data = data[missing:]
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> list[bytes] | None:
        """Return the next command, not empty; None until more bytes come.

        Raises:
            ProtocolError: there is none, and will never be one.
        """
        while True:
            if not self._wanted:
                if self._at == len(self._data):
                    return None
                if self._data[self._at] != ARRAY:
                    line = self._line(b"\n", "inline request")
                    if line is None:
                        return None
                    if arguments := split_line(line.removesuffix(b"\r")):
                        return arguments
                    continue
                if not self._begin():
                    return None
                continue
            if not self._take_arguments():
                return None
            arguments, self._arguments, self._size = self._arguments, [], 0
            return arguments

    def _begin(self) -> bool:
        """Read the head of an array; return whether it was there."""
        line = self._line(b"\r\n", "mbulk count string")
        if line is None:
            return False
        count = whole_number(line[1:])
        limits = self.limits
        if count is None or count > limits.arguments_max:
            raise ProtocolError(f"Protocol error: {_named(limits, count)} multibulk length")
        self._wanted = max(0, count)  # An empty one, or a null, is no command: it is skipped.
        return True

    def _take_arguments(self) -> bool:
        """Read bulk strings until the command is whole; return whether it is."""
        if self._length < 0:
            self._take_short()
        while self._wanted:
            if self._length < 0 and not self._begin_bulk():
                return False
            argument = self._bulk()
            if argument is None:
                return False
            self._arguments.append(argument)
            self._wanted -= 1
            self._length = -1
        return True

    def _take_short(self) -> None:
        """Read short strings that have come whole, until there is something else: the common case.

        What is taken here is what the loop that goes on would take; anything odd is left to it.
        """
        data, at, size, arguments = self._data, self._at, self._size, self._arguments
        length_max = self.limits.bulk_bytes_max
        for _ in range(self._wanted):
            end = data.find(b"\r\n", at, at + HEAD_BYTES_MAX)
            length = _LENGTHS.get(data[at:end])
            if end < 0 or length is None or length > length_max:
                break
            stop = end + 2 + length
            if data[stop : stop + 2] != b"\r\n":
                break
            size += length + ARGUMENT_OVERHEAD
            if size > self.limits.request_bytes_max:
                break
            arguments.append(data[end + 2 : stop])
            at = stop + 2
            self._at, self._size = at, size
            self._wanted -= 1

    def _begin_bulk(self) -> bool:
        data, at = self._data, self._at
        if at < len(data) and data[at] != BULK:
            raise ProtocolError(f"Protocol error: expected '$', got '{_printable(data[at])}'")
        line = self._line(b"\r\n", "bulk count string")
        if line is None:
            return False
        length = whole_number(line[1:])
        limits = self.limits
        if length is None or not 0 <= length <= limits.bulk_bytes_max:
            raise ProtocolError(f"Protocol error: {_named(limits, length)} bulk length")
        self._size += length + ARGUMENT_OVERHEAD
        if self._size > limits.request_bytes_max:
            raise ProtocolError(f"Protocol error: command is over {limits.request_bytes_max} bytes")
        self._length = length
        return True

    def _bulk(self) -> bytes | None:
        """Return the bulk string begun, None until all of it has come."""
        end = self._at + self._length
        if self._large is not None:
            gathered = self._large
            if len(gathered) < self._length + 2:
                return None
            self._large = None
            argument, ending = bytes(memoryview(gathered)[:-2]), bytes(gathered[-2:])
        elif end + 2 <= len(self._data):
            argument, ending = self._data[self._at : end], self._data[end : end + 2]
            self._at = end + 2
        else:
            if self._length > LARGE_BYTES:
                self._large = bytearray(self._data[self._at :])
                self._data, self._at = b"", 0
            return None
        if ending != b"\r\n":
            raise ProtocolError("Protocol error: expected CRLF after a bulk string")
        return argument

    def _line(self, ending: bytes, what: str) -> bytes | None:
        """Return the line that begins here without its end, None until it is whole."""
        end = self._data.find(ending, self._at, self._at + LINE_BYTES_MAX + len(ending))
        if end < 0:
            if len(self._data) - self._at > LINE_BYTES_MAX:
                raise ProtocolError(f"Protocol error: too big {what}")
            return None
        line = self._data[self._at : end]
        self._at = end + len(ending)
        return line


def _named(limits: RequestLimits, count: int | None) -> str:
    """Return what is wrong with a count: not a number, or over what strangers may send."""
    return limits.prefix if limits.prefix and count is not None and count > 0 else "invalid"


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else "?"


def split_line(line: bytes) -> list[bytes]:
    r"""Return the words of an inline command.

    Words may be "quoted", with \xHH, \n, \r, \t, \b, \a, and \ before any other character; or 'quoted', with
    \' alone.

    Raises:
        ProtocolError: a quote does not end, or ends inside a word.
    """
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at : at + 1].isspace():
            at += 1
        if at == len(line):
            return words
        word, at = _word(line, at)
        words.append(word)


def _word(line: bytes, at: int) -> tuple[bytes, int]:
    """Return the word that begins at `at`, and where it ends."""
    word = bytearray()
    while at < len(line) and not line[at : at + 1].isspace():
        if line[at] in b"\"'":
            at = _quoted(line, at, word)
            if at < len(line) and not line[at : at + 1].isspace():
                raise ProtocolError("Protocol error: unbalanced quotes in request")
            break
        word.append(line[at])
        at += 1
    return bytes(word), at


def _quoted(line: bytes, at: int, word: bytearray) -> int:
    """Add a quoted part to `word`; return where it ends."""
    quote = line[at]
    at += 1
    while at < len(line):
        byte = line[at]
        follows = line[at + 1 : at + 4]
        if byte == quote:
            return at + 1
        if byte == ord("\\") and quote == ord("'") and follows[:1] == b"'":
            word.append(quote)
            at += 2
        elif byte == ord("\\") and quote == ord('"') and follows:
            is_hex = len(follows) == 3 and follows[0] == ord("x") and _is_hex(follows[1:])
            word.append(int(follows[1:], 16) if is_hex else _ESCAPES.get(follows[0], follows[0]))
            at += 4 if is_hex else 2
        else:
            word.append(byte)
            at += 1
    raise ProtocolError("Protocol error: unbalanced quotes in request")


def _is_hex(digits: bytes) -> bool:
    return all(digit in _HEX_DIGITS for digit in digits)
