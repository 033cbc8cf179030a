"""What people, operators and clients do to the fuzzer's sagas beside what these do by themselves."""

from __future__ import annotations

from collections.abc import Callable

from model.fuzz_entity import ENTITY_IDS, ENTITY_TYPE
from model.fuzz_plans import IDS, KEYS, PROMISES, SAGA_TYPE, SERVICE, SIGNAL, payload_of
from model.fuzz_world import PARTITIONS, World, reply_to
from orchestrator.model import locks
from orchestrator.model import messages as msg
from orchestrator.model.messages import Conflict, Outcome, Override, Reuse

_RULES = ("type:T", "step:shop.act", "step:T:shop.revert", "service:shop", "partition", "service:T")


def _operate(world: World) -> None:
    operations = (msg.Cancel, msg.Terminate, msg.Pause, msg.Resume, msg.Compensate, msg.Redrive, msg.Restart)
    operation = world.random.choice(operations)
    world.take(operation(world.some_id(), world.message_id(), by="ann"))


def reset(world: World) -> None:
    saga_id, step = _some_step(world)
    world.take(msg.Reset(saga_id, world.message_id(), step, by="ann"))


def fork(world: World) -> None:
    saga_id, step = _some_step(world)
    world.take(msg.Fork(saga_id, world.message_id(), step, world.random.choice(IDS), by="ann"))


def _some_step(world: World) -> tuple[str, int]:
    saga_id = world.some_id()
    steps = world.runs[saga_id].state.sequence if saga_id in world.runs else 0
    return saga_id, world.random.randint(1, steps + 1)


def _unpark(world: World) -> None:
    parked = [state.saga_id for state in world.states() if state.parked]
    saga_id = world.random.choice(parked or [world.some_id()])
    action, sequence = world.random.choice(tuple(Override)), world.random.choice((0, 0, 1, 2))
    world.take(msg.Unpark(saga_id, world.message_id(), action, sequence, b'"set"', by="ann"))


def _start(world: World) -> None:
    saga_id, payload = world.random.choice(IDS), payload_of(world.random, 1)
    reuse, conflict = world.random.choice((None, *Reuse)), world.random.choice(tuple(Conflict))
    world.take(msg.Start(saga_id, world.message_id(), SAGA_TYPE, payload, reuse=reuse, conflict=conflict))


def _start_later(world: World) -> None:
    world.take(
        msg.Start(
            world.random.choice(IDS),
            world.message_id(),
            SAGA_TYPE,
            payload_of(world.random, 1),
            begin_after_ms=world.random.choice((0, 150)),
            signal=SIGNAL,
            signal_payload=b'"s"',
            reuse=world.random.choice((None, *Reuse)),
        )
    )


def _reschedule(world: World) -> None:
    later = [state.saga_id for state in world.states() if state.begin_ms is not None]
    saga_id, after_ms = world.random.choice(later or [world.some_id()]), world.random.choice((0, 150))
    world.take(msg.Reschedule(saga_id, world.message_id(), begin_after_ms=after_ms))


def _signal(world: World) -> None:
    world.signal(world.some_id())


def _update(world: World) -> None:
    world.take(msg.Update(world.some_id(), world.message_id(), f"u{world.random.randrange(3)}", "x", b"{}"))


def _settle(world: World) -> None:
    """A promise is kept, or broken."""
    broken = world.random.choice(("", "", "Denied"))
    promise = world.random.choice(PROMISES)
    world.take(msg.Settle(world.some_id(), world.message_id(), promise, b'"p"', broken))


def _ask(world: World) -> None:
    """A client asks an entity, sometimes for what it has asked for before."""
    entity_id, once = world.random.choice(ENTITY_IDS), f"u{world.random.randrange(6)}"
    name, amount = world.random.choice(("add", "work")), b"%d" % world.random.choice((0, 1))
    address = msg.ReplyAddress("saga.answers", 0, once)
    world.take(msg.Update(entity_id, world.message_id(), once, name, amount, address, ENTITY_TYPE))


def _break(world: World) -> None:
    """A person takes a key away."""
    lock_id = locks.saga_of(world.random.choice(KEYS))
    world.take(msg.Update(lock_id, world.message_id(), f"u{world.random.randrange(6)}", locks.BREAK, b"{}"))


def _deploy(world: World) -> None:
    world.deploy(world.random.randrange(PARTITIONS), world.random.choice((0, 1, 2, 2, 3)))


def _move(world: World) -> None:
    world.take(msg.MoveVersion(world.some_id(), world.message_id(), world.random.choice((0, 1, 2))))


def _rule(world: World) -> None:
    rule = world.random.choice(_RULES)
    if rule in world.rules:
        world.lift(rule)
    else:
        world.rules.add(rule)


def _circuit(world: World) -> None:
    world.open_circuits ^= {world.random.choice((SERVICE, SAGA_TYPE))}


def _heartbeat(world: World) -> None:
    if world.commands:
        world.take(reply_to(world.random.choice(world.commands), Outcome.HEARTBEAT, b"h"))


def _send_failed(world: World) -> None:
    if world.commands:
        command = world.random.choice(world.commands)
        undo = command.direction == "undo"
        world.take(msg.SendFailed(command.saga_id, command.run, command.sequence, undo, command.attempt, "no"))


ODDITIES: tuple[Callable[[World], None], ...] = (
    *[_operate] * 7,
    *[_unpark] * 2,
    *[_deploy] * 2,
    *[reset] * 2,
    fork,
    _start,
    _start_later,
    _reschedule,
    _signal,
    _update,
    _settle,
    _ask,
    _break,
    _move,
    _rule,
    _circuit,
    _heartbeat,
    _send_failed,
)
"""One of them happens at a time; what stands more often happens more often."""
