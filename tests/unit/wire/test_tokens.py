"""Reply tokens: only who was asked can answer, for that step, in that direction."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.wire.tokens import TokenKeys

OLD, NEW = b"o" * 16, b"n" * 32
KEYS = TokenKeys({"k1": OLD})
STEP: tuple[Any, ...] = ("order-7", "1-10-0", 3, "do", "payments")


def test_a_token_is_good_for_what_it_was_made_for() -> None:
    token = KEYS.sign(*STEP)
    assert token.startswith("k1.")
    assert len(token) == len("k1.") + 32
    assert KEYS.verify(token, *STEP)
    assert token == KEYS.sign(*STEP)


@pytest.mark.parametrize(
    "other",
    [
        ("order-8", "1-10-0", 3, "do", "payments"),
        ("order-7", "1-11-0", 3, "do", "payments"),
        ("order-7", "1-10-0", 4, "do", "payments"),
        ("order-7", "1-10-0", 3, "undo", "payments"),
        ("order-7", "1-10-0", 3, "do", "inventory"),
        ("order-71-10-0", "", 3, "do", "payments"),
        ("order-", "71-10-0", 3, "do", "payments"),
    ],
)
def test_a_token_is_good_for_nothing_else(other: tuple[Any, ...]) -> None:
    assert not KEYS.verify(KEYS.sign(*STEP), *other)


@pytest.mark.parametrize("token", ["", ".", "k1", "k1.", "k2.abc", "k1." + "0" * 32, "ß.ß", "\0"])
def test_what_is_no_token_is_not_genuine(token: str) -> None:
    assert not KEYS.verify(token, *STEP)


def test_a_token_that_was_shortened_or_lengthened_is_not_genuine() -> None:
    token = KEYS.sign(*STEP)
    assert not KEYS.verify(token[:-1], *STEP)
    assert not KEYS.verify(token + "0", *STEP)


def test_while_keys_are_replaced_both_verify_and_the_first_signs() -> None:
    rotating = TokenKeys({"k2": NEW, "k1": OLD})
    assert rotating.sign(*STEP).startswith("k2.")
    assert rotating.verify(KEYS.sign(*STEP), *STEP)
    replaced = TokenKeys({"k2": NEW})
    assert replaced.verify(rotating.sign(*STEP), *STEP)
    assert not replaced.verify(KEYS.sign(*STEP), *STEP)


def test_a_key_of_the_same_name_and_other_bytes_verifies_nothing() -> None:
    assert not TokenKeys({"k1": NEW}).verify(KEYS.sign(*STEP), *STEP)


@pytest.mark.parametrize("keys", [{}, {"a": OLD, "b": OLD, "c": OLD}, {"": OLD}, {"a.b": OLD}, {"a": b"short"}])
def test_keys_that_cannot_be_used_are_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(ConfigurationError):
        TokenKeys(keys)
