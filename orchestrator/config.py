"""What can be set, and where from: `saga.toml`, the environment, arguments; a later one of these wins.

Environment: `SAGA_PREFIX` is `prefix` and so on; `SAGA_COMMON_SASL_PASSWORD` is `sasl.password` in the block `common`.
Every name may end in `_FILE` and then names a file that holds the value: for secrets. Importing this costs as much as
importing pydantic; a command that needs no settings does not import it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from orchestrator.errors import ConfigurationError
from orchestrator.model.turn import ENDED_KEEP_MS, SIGNAL_TTL_MS
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys

Block = dict[str, str | int | float | bool]

FILE = "saga.toml"
ENVIRONMENT = "SAGA_"
BLOCKS = ("common", "producer", "consumer")
"""Raw librdkafka settings of all clients, of producers, of consumers. `log.kafka_config` refuses protected keys."""

_TABLES = (*BLOCKS, "topics")
_OWN_FILE_NAMES = "sasl_oauthbearer_assertion_"
"""Names that begin so end in `_FILE` because librdkafka's own do: their value is a path."""
_DEVELOPMENT_KEY = b"for development only"
_LEGAL_NAME = re.compile(r"[A-Za-z0-9._-]{0,249}")


class Settings(BaseModel):
    """All settings of an installation. Durations in milliseconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    development: bool = False
    """One broker on this machine, nothing to lose: smaller defaults, and a reply token key that everybody knows."""
    bootstrap_servers: str | None = None
    """Kafka's addresses, `host:port` with commas between them. None: no cluster was named."""
    prefix: str = ""
    """Before the names of all topics and groups, such as `orders-`."""
    topics: dict[str, str] = Field(default_factory=dict)
    """Whole names of topics, by the default name: `saga.inbox`, `payments.commands`. The prefix is not put before."""
    partitions: int = Field(default=0, ge=1, le=10_000, validate_default=True)
    """Of every `saga.*` topic; pinned in the journal. 12, in development 4."""
    replication: int = Field(default=0, ge=1, le=100, validate_default=True)
    """3, in development 1."""
    session_timeout_ms: int = Field(default=0, ge=6_000, le=1_800_000, validate_default=True)
    """After which the group gives a dead worker's partitions to others. 10 s, in development 6 s."""
    claim_wait_ms: int = Field(default=30_000, ge=0, le=3_600_000)
    """How long a worker leaves a partition with runs whose code it lacks to one that has it, before it takes it."""
    signal_ttl_ms: int = Field(default=SIGNAL_TTL_MS, ge=1_000, le=31_536_000_000)
    """How long a signal is kept for a saga that nobody has started. 24 h."""
    ended_keep_ms: int = Field(default=ENDED_KEEP_MS, ge=1_000, le=315_360_000_000)
    """How long a saga is known after its end: to repeated starts, to who asks how it ended, to resets. 7 days."""
    circuit_failures: int = Field(default=0, ge=0, le=1_000_000)
    """Attempts without an answer in a row after which a partition sends a service only probes. 0: it never stops."""
    circuit_probe_ms: int = Field(default=5_000, ge=100, le=3_600_000)
    """Between two probes of a service whose circuit is open."""
    trim_lag_ms: int = Field(default=86_400_000, ge=60_000)
    """How long consumed inputs are kept. At least as long as a mirror or a backup of the journal may be behind."""
    snapshots: str = ""
    """Where snapshots of the stores are kept: a directory that all workers share, or a URL. Empty: nowhere."""
    snapshot_every_ms: int = Field(default=600_000, ge=1_000)
    """How often each partition's owner takes one, if the journal has grown."""
    archive: str = ""
    """Where journals are moved to below their snapshots: a directory, or a URL. Empty: they are kept whole in Kafka.
    Workers need `snapshots` with it."""
    journal_keep_ms: int = Field(default=604_800_000, ge=60_000)
    """How long the journals' records stay in Kafka in any case; never shorter than `trim_lag_ms`. 7 days."""
    standby: bool = False
    """Whether workers keep the stores of partitions that others own warm, so that a take-over has little to read."""
    common: Block = Field(default_factory=dict, repr=False)
    producer: Block = Field(default_factory=dict, repr=False)
    consumer: Block = Field(default_factory=dict, repr=False)
    reply_token_keys: dict[str, SecretStr] = Field(default_factory=dict, repr=False, max_length=2)
    """Key id to secret, at least 16 bytes: the first signs commands, both are good for replies. The same everywhere."""
    state_directory: Path = Path(".saga")
    """Where stores, the visibility database and a development broker live. All but the broker's data is disposable."""
    metrics_port: int = Field(default=9464, ge=0, le=65_535)
    """Where workers and participants serve metrics and probes. 0: nowhere."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        development = str(given.get("development", "")).lower() in ("true", "t", "1", "yes", "y", "on")
        defaults = {"partitions": 4, "replication": 1, "session_timeout_ms": 6_000}
        if not development:
            defaults = {"partitions": 12, "replication": 3, "session_timeout_ms": 10_000}
        return {**defaults, **given}

    @field_validator("prefix")
    @classmethod
    def _legal_prefix(cls, prefix: str) -> str:
        if not _LEGAL_NAME.fullmatch(prefix):
            raise ValueError("a prefix is made of letters, digits, '.', '_' and '-'")
        return prefix

    @field_validator("topics")
    @classmethod
    def _legal_topics(cls, topics: dict[str, str]) -> dict[str, str]:
        for default, name in topics.items():
            if not name or not _LEGAL_NAME.fullmatch(name):
                raise ValueError(f"{default}: a topic's name is made of at most 249 letters, digits, '.', '_' and '-'")
        if len(set(topics.values())) < len(topics):
            raise ValueError("two topics have the same name")
        return topics

    @property
    def topic_names(self) -> TopicNames:
        """The topics' names under the prefix and the overrides."""
        return TopicNames(self.prefix, self.topics)

    @property
    def group_consumer(self) -> Block:
        """The block `consumer` for members of a group: with the session timeout, unless the block sets it."""
        return {"session.timeout.ms": self.session_timeout_ms, **self.consumer}

    def token_keys(self) -> TokenKeys:
        """The reply token keys. Raises `ConfigurationError` where there are none, outside development."""
        keys = {key_id: secret.get_secret_value().encode() for key_id, secret in self.reply_token_keys.items()}
        if not keys and not self.development:
            raise ConfigurationError(
                "reply_token_keys: none is set; give all workers the same secret, for example as "
                "SAGA_REPLY_TOKEN_KEYS_FILE with the line `k1:<32 random characters>`"
            )
        return TokenKeys(keys or {"development": _DEVELOPMENT_KEY})


def load_settings(
    arguments: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from the file, then the environment, then the arguments (None in them: not given).

    `file` must exist if given; otherwise it is the one SAGA_CONFIG names, or `saga.toml` here if there is one. Raises
    `ConfigurationError`, which names the setting and never its value.
    """
    environ = os.environ if environ is None else environ
    chosen: dict[str, Any] = {}
    origin: dict[str, str] = {}
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    path = file or (Path(environ["SAGA_CONFIG"]) if environ.get("SAGA_CONFIG") else None)
    for source, values in (
        (str(path or FILE), _from_file(path)),
        ("the environment", _from_environment(environ)),
        ("the arguments", given),
    ):
        for name, value in values.items():
            if name in _TABLES and isinstance(value, Mapping):
                value = {**chosen.get(name, {}), **_flat(value)}
            chosen[name] = value
            origin[name] = source
    try:
        return Settings.model_validate(chosen)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explained(problem, origin) for problem in error.errors())) from None


def _explained(problem: Any, origin: Mapping[str, str]) -> str:
    where = [str(part) for part in problem["loc"]]
    text = problem["msg"]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[0], Settings.model_fields, 1)
        text = "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{'.'.join(where)} (from {origin.get(where[0], 'the defaults')}): {text}"


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        path = Path(FILE)
        if not path.exists():
            return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {ENVIRONMENT + name.upper(): name for name in Settings.model_fields}
    for variable, value in sorted(environ.items()):
        plain = variable.removesuffix("_FILE")
        block, key = _block_key(variable)
        if block:
            if key.endswith("_file") and not key.startswith(_OWN_FILE_NAMES):
                key, value = key.removesuffix("_file"), _content(variable, value)
            table: dict[str, Any] = found.setdefault(block, {})
            table[key.replace("_", ".")] = value
        elif variable in names:
            found[names[variable]] = _parsed(names[variable], variable, value)
        elif plain in names:
            found[names[plain]] = _parsed(names[plain], variable, _content(variable, value))
        elif variable.startswith(ENVIRONMENT) and (near := difflib.get_close_matches(variable, names, 1, 0.9)):
            raise ConfigurationError(f"{variable}: there is no such setting; did you mean {near[0]}?")
    return found


def _block_key(variable: str) -> tuple[str, str]:
    """(block, rest of the name in lower case) of a variable such as SAGA_COMMON_SSL_CA_LOCATION; ("", "") of others."""
    for block in BLOCKS:
        start = f"{ENVIRONMENT}{block.upper()}_"
        if variable.startswith(start) and variable != start:
            return block, variable.removeprefix(start).lower()
    return "", ""


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable}: cannot read {path}: {error}") from None


def _parsed(name: str, variable: str, text: str) -> Any:
    """Tables are JSON in the environment; reply token keys are `id:secret`, one a line or with commas between."""
    if name == "reply_token_keys":
        pairs = [pair.strip().partition(":") for pair in re.split(r"[,\n]", text) if pair.strip()]
        if not all(colon and secret for _, colon, secret in pairs):
            raise ConfigurationError(f"{variable}: each key is `id:secret`")
        return {key_id: secret for key_id, _, secret in pairs}
    if name not in _TABLES:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"{variable}: not a JSON object") from None


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A table with dotted keys: in TOML `saga.inbox = "x"` is a table in a table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat
