"""`saga dev`: broker, topics, worker and services of some modules, until Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import load_definitions, load_module, log_of
from orchestrator.cli.output import say
from orchestrator.cli.topics import services_in, sources_in
from orchestrator.errors import ConfigurationError, SagaError

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.demo.processes import Process

SHOP = "orchestrator.sagas.order_fulfilment"
READY_WITHIN_S = 60.0
AGAIN_AFTER_S = 2.0
_LOOK_S = 0.2
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("dev")
@click.argument("modules", nargs=-1, metavar="[MODULE...]")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A saga.toml.")
@click.option("--port", type=int, help="The broker's. Default: the one it had last, else a free one.")
def dev_command(modules: tuple[str, ...], config: Path | None, port: int | None) -> None:
    """Runs everything here: a broker that keeps its data in .saga, the topics, a worker for the sagas of MODULE..., and
    all participants and sources found in them. Default: the order saga that comes with this.

    Ctrl-C ends all of it; sagas that had not ended go on the next time.
    """
    from orchestrator.broker import provide
    from orchestrator.config import load_settings

    modules = modules or (SHOP,)
    definitions = load_definitions(modules)
    participants, sources = find_participants(modules), sources_in(modules)
    settings = load_settings({"development": True}, file=config)
    with _stop_signals() as stop, only_one(settings.state_directory):
        say("starting a Kafka broker" if settings.bootstrap_servers is None else "using the cluster that is set")
        with provide(settings.bootstrap_servers, settings.state_directory, port=port) as broker:
            settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            _apply_topics(settings, modules, {source.topic for source in sources.values()})
            folder = settings.state_directory.absolute() / "logs"
            folder.mkdir(parents=True, exist_ok=True)
            read = {f"source-{source.name}": place for place, source in sources.items()}
            processes = _processes(settings, config, modules, participants, folder, read)
            told_before = len(processes[0].told())
            try:
                for process in processes:
                    process.start()
                _wait_until_served(settings, participants, processes, stop)
                if not stop.is_set():
                    port = metrics_port_in(processes[0].told()[told_before:])
                    _say_what_next(settings, modules, sorted(definitions), folder, port)
                    _keep_running(processes, stop)
            finally:
                say("stopping")
                _stop_all(processes)
    say("stopped; the data is kept for the next time")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second `saga dev` out of a folder: they would share a group, stores and logs. Ends with the process.

    Raises `ConfigurationError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dev.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = f"process {lock.read().strip()}"
            raise ConfigurationError(
                f"`saga dev` runs in {folder.absolute()} already ({who}): use it, or stop it first"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def find_participants(modules: Sequence[str]) -> dict[str, str]:
    """Where the participants are that modules define or import: service name → `module:object`.

    Raises `ConfigurationError` where a service has two.
    """
    from orchestrator.participant import Participant

    found: dict[str, tuple[str, Participant]] = {}
    for name in dict.fromkeys(module.partition(":")[0] for module in modules):
        for attribute, value in vars(load_module(name)).items():
            if not isinstance(value, Participant):
                continue
            value.check()
            place, known = found.setdefault(value.service.name, (f"{name}:{attribute}", value))
            if known is not value:
                raise ConfigurationError(f"{value.service.name} has two participants: {place} and {name}:{attribute}")
    return {service: place for service, (place, _) in sorted(found.items())}


def metrics_port_in(told: str) -> int | None:
    """The port that a worker's log names: the one that was set, or the next that was free. None: it serves nowhere."""
    ports = re.findall(r"metrics and probes on port (\d+)", told)
    return int(ports[-1]) if ports else None


def example_input(modules: Sequence[str], saga_type: str) -> Any:
    """Something of the shape of a saga's input, to be typed off: fields that must be there, with plain values."""
    from orchestrator.saga import Saga

    values = [value for name in modules for value in vars(load_module(name.partition(":")[0])).values()]
    for saga in (value for value in values if isinstance(value, type) and issubclass(value, Saga)):
        if saga is not Saga and saga.definition.name == saga_type:
            schema = saga._input.json_schema()
            return _example(schema, schema.get("$defs", {}), "text")
    return None


def _example(schema: dict[str, Any], known: dict[str, Any], name: str) -> Any:
    if "$ref" in schema:
        return _example(known[schema["$ref"].rpartition("/")[2]], known, name)
    for same in ("default", "const"):
        if same in schema:
            return schema[same]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _example(schema[choice][0], known, name)
    if schema.get("type") == "object":
        fields, required = schema.get("properties", {}), schema.get("required", ())
        return {field: _example(fields[field], known, field) for field in required}
    return {"string": name, "integer": 1, "number": 1.0, "boolean": True, "array": []}.get(schema.get("type", ""))


def _apply_topics(settings: Settings, modules: Sequence[str], business: Iterable[str]) -> None:
    from orchestrator.log.base import TopicSpec
    from orchestrator.provisioning import apply, plan

    specs = plan(
        settings.topic_names,
        partitions=settings.partitions,
        replication=settings.replication,
        services=services_in(tuple(modules)),
    )
    specs += [TopicSpec(topic, settings.partitions, settings.replication, {}) for topic in sorted(business)]
    with closing(log_of(settings).admin()) as admin:
        created = apply(admin, specs)
    if created:
        say(f"created {len(created)} topics")


def _processes(
    settings: Settings,
    config: Path | None,
    modules: Sequence[str],
    participants: dict[str, str],
    folder: Path,
    sources: Mapping[str, str] | None = None,
) -> list[Process]:
    from orchestrator.demo.processes import Process

    environment = {
        "SAGA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(settings.state_directory.absolute()),
        **({"SAGA_CONFIG": str(config.absolute())} if config else {}),
    }
    # Each leaves when this process is gone.
    commands = {"worker": ["worker", *modules, "--child"]}
    commands |= {service: ["participant", place, "--child"] for service, place in participants.items()}
    commands |= {name: ["source", place, "--child"] for name, place in (sources or {}).items()}
    metrics_ports = {"worker": settings.metrics_port}
    return [
        Process(name, command, folder, {**environment, "SAGA_METRICS_PORT": str(metrics_ports.get(name, 0))})
        for name, command in commands.items()
    ]


def _wait_until_served(
    settings: Settings, participants: dict[str, str], processes: Sequence[Process], stop: threading.Event
) -> None:
    """Until every partition has an owner: one has claimed it in the journal since this began."""
    from orchestrator.cli.cluster import bounds_of

    log, journal = log_of(settings), settings.topic_names.journal
    before = bounds_of(log, journal, range(settings.partitions))
    deadline = time.monotonic() + READY_WITHIN_S
    while not stop.wait(_LOOK_S):
        _check_alive(processes)
        now = bounds_of(log, journal, range(settings.partitions))
        if all(now[partition][1] > end for partition, (_, end) in before.items()):
            return
        if time.monotonic() > deadline:
            raise SagaError(f"the worker owns nothing after {READY_WITHIN_S:.0f} s:\n{processes[0].tail()}")


def _check_alive(processes: Sequence[Process]) -> None:
    for process in processes:
        if not process.running:
            raise SagaError(f"{process.name} ended at once:\n{process.tail()}")


def _say_what_next(
    settings: Settings, modules: Sequence[str], sagas: Sequence[str], folder: Path, metrics_port: int | None
) -> None:
    saga_type = sagas[0]
    given = f"'{json.dumps(example_input(modules, saga_type))}'"
    with_state = (
        "" if settings.state_directory == Path(".saga") else f"SAGA_STATE_DIRECTORY={settings.state_directory} "
    )
    click.echo(f"running on {settings.bootstrap_servers}: {', '.join(sagas)}")
    if metrics_port is not None:
        click.echo(f"the worker's metrics: http://127.0.0.1:{metrics_port}/metrics")
    click.echo(f"logs are in {_short(folder)}. In another terminal, in this folder:")
    for text in (
        f"saga start {saga_type} --id first --input {given} --wait 30",
        "saga list",
        "saga show first",
        "saga cancel first",
        "saga dead-letters list",
    ):
        click.echo(f"  {with_state}{text}")
    click.echo("Ctrl-C ends it.")


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _keep_running(processes: Sequence[Process], stop: threading.Event) -> None:
    """Starts again what ends, after a pause: a handler beyond its limit ends its process on purpose."""
    again_at: dict[str, float] = {}
    while not stop.wait(_LOOK_S):
        for process in processes:
            if process.running:
                continue
            if process.name not in again_at:
                say(f"{process.name} ended and is started again; the end of its log:\n{process.tail(5)}")
                again_at[process.name] = time.monotonic() + AGAIN_AFTER_S
            elif time.monotonic() >= again_at[process.name]:
                del again_at[process.name]
                process.start()


def _stop_all(processes: Sequence[Process]) -> None:
    """All at the same time, gracefully; by force when asked a second time."""
    pool = ThreadPoolExecutor(max(1, len(processes)))
    again = signal.signal(signal.SIGINT, lambda *_: _kill_all(processes))
    try:
        list(pool.map(lambda process: process.stop(), processes))
    finally:
        signal.signal(signal.SIGINT, again)
        pool.shutdown()


def _kill_all(processes: Sequence[Process]) -> None:
    for process in processes:
        process.kill()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a terminal that is closed set."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in _ENDINGS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
