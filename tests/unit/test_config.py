"""Settings: where they come from, which wins, and what is said when one is wrong."""

from pathlib import Path

import pytest

from orchestrator.config import Settings, load_settings
from orchestrator.errors import ConfigurationError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "saga.toml"


def load(**environ: str) -> Settings:
    return load_settings(environ=environ)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_for_production_and_smaller_in_development() -> None:
    settings, development = load(), load(SAGA_DEVELOPMENT="true")
    assert (settings.partitions, settings.replication, settings.session_timeout_ms) == (12, 3, 10_000)
    assert (development.partitions, development.replication, development.session_timeout_ms) == (4, 1, 6_000)
    assert load(SAGA_DEVELOPMENT="1", SAGA_PARTITIONS="6").partitions == 6


def test_arguments_win_over_the_environment_and_that_over_the_file(toml: Path) -> None:
    toml.write_text('prefix = "file-"\npartitions = 5\nmetrics_port = 1\n')
    environ = {"SAGA_PREFIX": "environment-", "SAGA_PARTITIONS": "6"}
    settings = load_settings({"prefix": "argument-", "partitions": None}, file=toml, environ=environ)
    assert (settings.prefix, settings.partitions, settings.metrics_port) == ("argument-", 6, 1)


def test_the_file_is_found_where_the_command_runs_or_where_it_is_said_to_be(toml: Path, tmp_path: Path) -> None:
    toml.write_text('prefix = "here-"')
    (tmp_path / "other.toml").write_text('prefix = "there-"')
    assert load().prefix == "here-"
    assert load(SAGA_CONFIG=str(tmp_path / "other.toml")).prefix == "there-"


def test_raw_settings_are_merged_key_by_key_and_may_be_written_with_dots(toml: Path) -> None:
    toml.write_text('[common]\nsecurity.protocol = "SSL"\n"client.id" = "a"\nsocket.keepalive.enable = true\n')
    settings = load(SAGA_COMMON_CLIENT_ID="b", SAGA_PRODUCER_LINGER_MS="5")
    assert settings.common == {"security.protocol": "SSL", "client.id": "b", "socket.keepalive.enable": True}
    assert settings.producer == {"linger.ms": "5"}


def test_secrets_come_from_files_and_are_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "keys").write_text("k2:0123456789abcdef\nk1:fedcba9876543210\n")
    settings = load(
        SAGA_COMMON_SASL_PASSWORD_FILE=str(tmp_path / "password"),
        SAGA_REPLY_TOKEN_KEYS_FILE=str(tmp_path / "keys"),
        SAGA_COMMON_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE="/a/path",
    )
    assert settings.common["sasl.password"] == "hunter2"
    assert settings.common["sasl.oauthbearer.assertion.private.key.file"] == "/a/path"
    assert settings.token_keys().sign("s", "r", 1, "do", "x").startswith("k2.")
    assert "hunter2" not in repr(settings)
    assert "0123456789" not in repr(settings)


def test_two_keys_verify_and_the_first_signs() -> None:
    old = load(SAGA_REPLY_TOKEN_KEYS="k1:fedcba9876543210").token_keys()
    both = load(SAGA_REPLY_TOKEN_KEYS="k2:0123456789abcdef,k1:fedcba9876543210").token_keys()
    token = old.sign("s", "r", 1, "do", "payments")
    assert both.verify(token, "s", "r", 1, "do", "payments")
    assert not old.verify(both.sign("s", "r", 1, "do", "payments"), "s", "r", 1, "do", "payments")


def test_a_reply_token_key_must_be_set_outside_development() -> None:
    with pytest.raises(ConfigurationError, match="SAGA_REPLY_TOKEN_KEYS_FILE"):
        load().token_keys()
    assert load(SAGA_DEVELOPMENT="yes").token_keys()


def test_topics_are_renamed_by_their_default_names(toml: Path) -> None:
    toml.write_text('prefix = "p-"\n[topics]\nsaga.inbox = "orders.in"\n"payments.commands" = "pay"\n')
    names = load().topic_names
    assert (names.inbox, names.commands("payments"), names.replies) == ("orders.in", "pay", "p-saga.replies")
    assert load(SAGA_TOPICS='{"saga.inbox": "x"}').topic_names.inbox == "x"


def test_the_session_timeout_reaches_members_of_groups_unless_set_raw() -> None:
    assert load().group_consumer == {"session.timeout.ms": 10_000}
    assert load(SAGA_CONSUMER_SESSION_TIMEOUT_MS="9000").group_consumer == {"session.timeout.ms": "9000"}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SAGA_PARTITIONS": "none"}, r"partitions \(from the environment\)"),
        ({"SAGA_PARTITIONS": "0"}, "greater than or equal to 1"),
        ({"SAGA_BOOTSTRAP_SERVER": "a:1"}, "did you mean SAGA_BOOTSTRAP_SERVERS"),
        ({"SAGA_PREFIX": "a b"}, "letters, digits"),
        ({"SAGA_TOPICS": '{"saga.inbox": ""}'}, "saga.inbox: a topic's name"),
        ({"SAGA_TOPICS": '{"saga.inbox": "x", "saga.replies": "x"}'}, "the same name"),
        ({"SAGA_TOPICS": "x"}, "SAGA_TOPICS: not a JSON object"),
        ({"SAGA_TOPICS": "[]"}, "topics"),
        ({"SAGA_REPLY_TOKEN_KEYS": "secret"}, "`id:secret`"),
        ({"SAGA_REPLY_TOKEN_KEYS": "a:1,b:2,c:3"}, "at most 2"),
        ({"SAGA_COMMON_SASL_PASSWORD_FILE": "/nowhere/at/all"}, "cannot read /nowhere/at/all"),
        ({"SAGA_CONFIG": "/nowhere/saga.toml"}, "No such file"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(environ=environ)


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest(toml: Path) -> None:
    toml.write_text("partition = 3")
    with pytest.raises(ConfigurationError, match=r"partition \(from saga.toml\).*did you mean partitions"):
        load()


def test_what_is_no_toml_is_said_to_be_none(toml: Path) -> None:
    toml.write_text("a = ")
    with pytest.raises(ConfigurationError, match=r"saga\.toml is not TOML"):
        load()


def test_no_message_holds_a_value_that_may_be_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SAGA_REPLY_TOKEN_KEYS="a:hunter2aaa,b:hunter2bbb,c:hunter2ccc", SAGA_METRICS_PORT="hunter2")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        load(SAGA_REPLY_TOKEN_KEYS="a:hunter2").token_keys()
    assert "hunter2" not in str(caught.value)


def test_what_workers_wait_for_and_keep_can_be_set() -> None:
    settings = load_settings({}, environ={"SAGA_CLAIM_WAIT_MS": "0", "SAGA_TRIM_LAG_MS": "3600000"})
    assert (settings.claim_wait_ms, settings.trim_lag_ms) == (0, 3_600_000)
    with pytest.raises(ConfigurationError, match="trim_lag_ms"):
        load_settings({"trim_lag_ms": 1_000}, environ={})
