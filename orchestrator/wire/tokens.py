"""Reply tokens: a reply counts only if it carries the HMAC that the command carried.

The token binds saga, run, sequence, direction and service, not the attempt or the epoch: any attempt may be answered,
and an answer outlives its owner. Form: `<key id>.<hex of the first 16 bytes of HMAC-SHA256>`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache

from orchestrator.errors import ConfigurationError
from orchestrator.model.ids import Direction

_DIGEST_BYTES = 16


class TokenKeys:
    """The keys in use: the first signs, all verify, so that a key can be replaced while replies are on their way."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or len(keys) > 2:
            raise ConfigurationError("reply token keys: give one, or two while rotating")
        for key_id, key in keys.items():
            if not key_id or "." in key_id or len(key) < 16:
                raise ConfigurationError(f"reply token key {key_id!r}: an id without dots and at least 16 bytes")
        self._keys = dict(keys)
        self._current = next(iter(self._keys))
        # A reply comes milliseconds after its command: what was signed for the one is at hand for the other.
        self._sign = lru_cache(maxsize=16_384)(self._signed)

    def sign(self, saga_id: str, run: str, sequence: int, direction: Direction, service: str) -> str:
        """The token for one step's `do` or `undo`."""
        return self._sign(self._current, saga_id, run, sequence, direction, service)

    def verify(self, token: str, saga_id: str, run: str, sequence: int, direction: Direction, service: str) -> bool:
        """Whether a token is genuine; takes the same time wherever it differs."""
        key_id = token.partition(".")[0]
        if key_id not in self._keys:
            return False
        return hmac.compare_digest(
            self._sign(key_id, saga_id, run, sequence, direction, service).encode(), token.encode()
        )

    def sign_promise(self, saga_id: str, run: str, name: str) -> str:
        """The signature of one promise's token."""
        return self._sign(self._current, saga_id, run, 0, "promise", name)

    def verify_promise(self, signature: str, saga_id: str, run: str, name: str) -> bool:
        """Whether a promise's signature is genuine; takes the same time wherever it differs."""
        key_id = signature.partition(".")[0]
        if key_id not in self._keys:
            return False
        return hmac.compare_digest(self._sign(key_id, saga_id, run, 0, "promise", name).encode(), signature.encode())

    def _signed(self, key_id: str, saga_id: str, run: str, sequence: int, direction: str, service: str) -> str:
        # Lengths keep different fields from running into the same bytes.
        text = f"{len(saga_id)}:{saga_id}{run}:{sequence}:{direction}:{service}"
        digest = hmac.digest(self._keys[key_id], text.encode(), "sha256")
        return f"{key_id}.{digest[:_DIGEST_BYTES].hex()}"
