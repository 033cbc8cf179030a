"""A broker in the foreground, until Ctrl-C: `python -m orchestrator.broker`."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from orchestrator.broker import provide, start_cluster, stop_running, warm_up
from orchestrator.broker.provide import HOME
from orchestrator.errors import BrokerUnavailable

_LOOK_S = 1.0  # how long a broker that ended by itself goes unnoticed here


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        return _run(options)
    except BrokerUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.stop:
        _say("stopped" if stop_running(options.home) else f"no broker of {options.home} is running")
        return 0
    if options.warm_up:
        _say(str(warm_up() or "this Java writes no archive of classes"))
        return 0
    ended = threading.Event()
    if options.nodes > 1:
        return _serve_cluster(options.nodes, ended)
    return _serve_one(options, ended)


def _serve_one(options: argparse.Namespace, ended: threading.Event) -> int:
    with provide(home=options.home, ephemeral=options.ephemeral, detach=options.detach, port=options.port) as broker:
        _end_on_signal(ended)  # before the address is told: who reads it may send one
        _say(f"{broker.bootstrap_servers}  ({broker.source})")
        if options.detach or broker.source == "running":
            return 0
        node = broker.node
        while not ended.wait(_LOOK_S):
            if node is not None and node.pid is None:
                sys.stderr.write(f"the broker ended by itself:\n{node.read_log_end()}\n")
                return 1
    return 0


def _serve_cluster(size: int, ended: threading.Event) -> int:
    with start_cluster(size) as cluster:
        _end_on_signal(ended)
        for node in cluster.nodes:
            _say(f"node {node.layout.node_id}  {node.bootstrap_server}  pid {node.pid}")
        _say(cluster.bootstrap_servers)
        ended.wait()
    return 0


def _end_on_signal(ended: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.broker", description="A Kafka broker for development")
    parser.add_argument(
        "--home", type=Path, default=HOME, help="where its data and state are kept (default: %(default)s)"
    )
    parser.add_argument("--ephemeral", action="store_true", help="keep nothing")
    parser.add_argument("--port", type=int, help="of its listener on loopback (default: a free one)")
    parser.add_argument("--nodes", type=int, default=1, help="more than one: an ephemeral cluster")
    parser.add_argument("--detach", action="store_true", help="leave it running and return")
    parser.add_argument(
        "--warm-up", action="store_true", help="fetch what is needed, and halve the time of later starts"
    )
    parser.add_argument("--stop", action="store_true", help="stop the one that runs")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
