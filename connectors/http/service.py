"""A participant whose handlers are HTTP requests to a service that knows nothing of sagas or Kafka.

    payments = HttpService(
        Payments,
        base_url="https://payments.internal",
        routes={"charge": "POST /charges", "refund": "POST /charges/{charge_id}/refunds"},
    )

is a `Participant`: `saga participant shop:payments` runs it. What the service must do is to keep `Idempotency-Key`:
two requests with the same key have one effect, and both get its response.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel

from orchestrator.baggage import write_baggage
from orchestrator.connectors.http.responses import FAILURES, MAX_BODY_BYTES, RETRIED_4XX, outcome
from orchestrator.errors import DefinitionError, RetryLater
from orchestrator.participant.handlers import HandlerContext, Participant
from orchestrator.service import Command, Service

_ROUTE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*)")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OWN_HEADERS = frozenset(
    {"idempotency-key", "saga-id", "saga-run", "saga-attempt", "traceparent", "baggage"}
    | {"content-type", "content-length", "host"}
)

HeaderValue = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Route:
    """Where one command goes. `failures` replaces the service's statuses that mean failure."""

    method: str
    path: str
    failures: frozenset[int]

    def url(self, request: BaseModel) -> str:
        """The path with its `{field}`s filled in from the request, each as one segment. Raises `RetryLater`."""
        return _FIELD.sub(lambda found: _segment(found[1], getattr(request, found[1])), self.path)


class HttpService(Participant):
    """The handlers of a service that is reached by HTTP.

    `routes` gives for each command `METHOD /path`, whose `{name}`s are fields of the request. `headers` go with every
    request; a value that is a function is asked each time, for tokens that change. `timeout_s` bounds a whole request;
    it must be shorter than the participant's limit for handlers. `failures` are the statuses that assert that there was
    no effect; `transport` is httpx's, for certificates and proxies of one's own. Raises `DefinitionError`.
    """

    def __init__(
        self,
        service: type[Service],
        *,
        base_url: str,
        routes: Mapping[str, str],
        headers: Mapping[str, HeaderValue] | None = None,
        timeout_s: float = 20.0,
        failures: Collection[int] = FAILURES,
        connections: int = 100,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(service)
        self._base_url = _base(base_url)
        self._headers = dict(headers or {})
        own = sorted(name for name in self._headers if name.lower() in _OWN_HEADERS)
        if own:
            raise DefinitionError(f"HttpService({service.__name__}): the header {own[0]!r} is set by the connector")
        if timeout_s <= 0 or connections < 1:
            raise DefinitionError(f"HttpService({service.__name__}): timeout_s and connections must be positive")
        self._timeout_s = timeout_s
        self._connections = connections
        self._transport = transport
        self._now_s = now_s
        self._client: tuple[int, asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None
        unknown = sorted(routes.keys() - service.commands.keys())
        if unknown:
            raise DefinitionError(f"HttpService: {service.__name__} has no command {unknown[0]!r}")
        statuses = _failures(failures)
        for name, text in routes.items():
            command = service.commands[name]
            self.register(command, self._handler(command, _route(command, text, statuses)))
        self.check()

    async def aclose(self) -> None:
        """Closes the connections. A participant that ends takes them with it; tests may want this."""
        if self._client is not None:
            client, self._client = self._client[2], None
            await client.aclose()

    def _handler(self, command: Command[..., Any, Any], route: Route) -> Callable[[BaseModel, HandlerContext], Any]:
        async def handle(request: BaseModel, context: HandlerContext) -> Any:
            return await self._call(command, route, request, context)

        handle.__qualname__ = f"{route.method} {route.path}"
        return handle

    async def _call(
        self, command: Command[..., Any, Any], route: Route, request: BaseModel, context: HandlerContext
    ) -> Any:
        """One request and what it means. Raises `Failure` and `RetryLater`."""
        url = self._base_url + route.url(request)
        content = None if route.method == "GET" else request.model_dump_json().encode()
        headers = {name: value() if callable(value) else value for name, value in self._headers.items()}
        headers |= _own_headers(context, content)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http().stream(route.method, url, content=content, headers=headers) as response,
            ):
                body = await _body(response)
        except TimeoutError:
            raise RetryLater(None, "Timeout", f"{route.method} {route.path}: {self._timeout_s:g} s are over") from None
        except httpx.HTTPError as error:
            raise RetryLater(None, type(error).__name__, f"{route.method} {route.path}: {error}"[:500]) from None
        return outcome(command, response, body, route.failures, self._now_s())

    def _http(self) -> httpx.AsyncClient:
        """The client of this process and event loop: its connections belong to both."""
        loop, pid = asyncio.get_running_loop(), os.getpid()
        if self._client is None or self._client[:2] != (pid, loop):
            limits = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
            client = httpx.AsyncClient(
                timeout=self._timeout_s,
                limits=limits,
                transport=self._transport() if self._transport is not None else None,
                follow_redirects=False,
            )
            self._client = (pid, loop, client)
        return self._client[2]


def _own_headers(context: HandlerContext, content: bytes | None) -> dict[str, str]:
    headers = {
        "Accept": "application/json, application/problem+json",
        "Idempotency-Key": _ascii(context.idempotency_key),
        "Saga-Id": _ascii(context.saga_id),
        "Saga-Run": _ascii(context.run),
        "Saga-Attempt": str(context.attempt),
    }
    if content is not None:
        headers["Content-Type"] = "application/json"
    if context.traceparent:
        headers["traceparent"] = _ascii(context.traceparent)
    baggage = write_baggage(context.baggage)
    if baggage:
        headers["baggage"] = baggage
    return headers


async def _body(response: httpx.Response) -> bytes:
    """The whole body. Raises `RetryLater` for one that no reply could hold."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RetryLater(
                None, "BadReply", f"{response.status_code}: the body is larger than {MAX_BODY_BYTES} bytes"
            )
    return bytes(body)


def _ascii(value: str) -> str:
    """A header's value: what is not printable ASCII is percent-encoded."""
    return quote(value, safe="".join(chr(code) for code in range(0x21, 0x7F) if code != 0x25))


def _segment(name: str, value: object) -> str:
    """One path segment. An empty one, or `.` and `..`, would be another path."""
    text = quote(str(value), safe="")
    if text in ("", ".", ".."):
        raise RetryLater(None, "BadPath", f"the field {name!r} cannot be part of a path")
    return text


def _base(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise DefinitionError(f"HttpService: base_url must be like https://host/path, not {base_url!r}")
    return base_url.rstrip("/")


def _failures(statuses: Collection[int]) -> frozenset[int]:
    for status in sorted(statuses):
        if not 400 <= status < 500 or status in RETRIED_4XX:
            raise DefinitionError(
                f"HttpService: {status} does not say that there was no effect; it cannot be a failure"
            )
    return frozenset(statuses)


def _route(command: Command[..., Any, Any], text: str, failures: frozenset[int]) -> Route:
    found = _ROUTE.fullmatch(text)
    if found is None:
        raise DefinitionError(f"HttpService: {command!r}: a route is like 'POST /charges', not {text!r}")
    method, path = found[1], found[2]
    if "{" in _FIELD.sub("", path) or "}" in _FIELD.sub("", path):
        raise DefinitionError(f"HttpService: {command!r}: {path!r} has braces that name no field")
    for field in _FIELD.findall(path):
        if field not in command.request.model_fields:
            raise DefinitionError(f"HttpService: {command!r}: its request has no field {field!r}, which {path} needs")
    return Route(method, path, failures)
