"""How values become bytes: MessagePack unless asked otherwise, and pickle only with a signature.

Unpickling runs whatever the bytes say. `SignedPickle` therefore unpickles nothing that was not signed with
one of its keys, and keeps plain data (text, bytes, numbers, None) as MessagePack, which runs nothing.
"""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, Protocol

from cache.codec import SIGNED, decode_value, encode_value, untagged
from cache.errors import CodecError, ConfigError, SignatureError

SIGNATURE_BYTES: Final = 32
KEY_BYTES_MIN: Final = 16
KEY_BYTES_MAX: Final = 64

_PLAIN: Final = (bytes, str, int, float, bool, type(None))


class Serializer(Protocol):
    """Turns values into bytes and back; `context` is the name of the map."""

    def encode(self, value: object, context: str) -> bytes:
        """Return the bytes of a value."""
        ...

    def decode(self, encoded: bytes, context: str) -> object:
        """Return the value of its bytes."""
        ...


class SignedPickle:
    """Any picklable Python value, signed: `node.map("jobs", serializer=SignedPickle(key))`.

    The signature (keyed BLAKE2b over map name and pickle) says that somebody with the key pickled this value
    for this map. It does not say for which key of the map, nor when. Whoever has the key can run code in
    every process that reads the map.

    Args:
        keys: 16 to 64 bytes each; the first one signs, all of them are accepted, so that keys can be
            changed while the cluster runs.

    Raises:
        ConfigError: no key, or one of another length.
    """

    def __init__(self, *keys: bytes) -> None:
        if not keys:
            raise ConfigError("SignedPickle: at least one key is needed")
        for key in keys:
            if not isinstance(key, bytes) or not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
                raise ConfigError(
                    f"SignedPickle: keys are {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random bytes, "
                    "as from secrets.token_bytes(32)"
                )
        self._keys: Sequence[bytes] = keys

    def __repr__(self) -> str:
        return f"<SignedPickle with {len(self._keys)} keys>"

    def encode(self, value: object, context: str) -> bytes:
        """Return the bytes of a value.

        Raises:
            CodecError: the value cannot be pickled.
        """
        if type(value) in _PLAIN:
            return encode_value(value)
        try:
            pickled = pickle.dumps(value, protocol=5)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise CodecError(f"{type(value).__name__} cannot be pickled: {error}") from error
        return SIGNED + _sign(self._keys[0], context, pickled) + pickled

    def decode(self, encoded: bytes, context: str) -> object:
        """Return the value of its bytes.

        Raises:
            SignatureError: it was not signed with one of the keys, for this map.
            CodecError: the bytes are no value, or its class cannot be found here.
        """
        encoded = untagged(encoded)
        if encoded[:1] != SIGNED:
            return decode_value(encoded)
        signature, pickled = encoded[1 : 1 + SIGNATURE_BYTES], encoded[1 + SIGNATURE_BYTES :]
        if not any(
            hmac.compare_digest(signature, _sign(key, context, pickled)) for key in self._keys
        ):
            raise SignatureError(
                f"a value of map {context!r} is not signed with a key of this SignedPickle; "
                "nothing of it was unpickled"
            )
        try:
            return pickle.loads(pickled)  # noqa: S301  Signed by somebody who has the key.
        except Exception as error:
            raise CodecError(f"a signed value cannot be unpickled here: {error}") from error


def _sign(key: bytes, context: str, pickled: bytes) -> bytes:
    name = context.encode()
    digest = blake2b(key=key, digest_size=SIGNATURE_BYTES, person=b"peercache.pickle")
    digest.update(len(name).to_bytes(4, "big") + name)
    digest.update(pickled)
    return digest.digest()
