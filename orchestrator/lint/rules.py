"""What the linter knows: rules with their advice, and by which rule a name is forbidden."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`advice`: what to write instead. `is_error`: such code is not registered; else it is only warned of."""

    name: str
    advice: str
    is_error: bool = True


CLOCK = Rule("clock", "use self.now()")
RANDOM = Rule("random", "use self.random")
UUID = Rule("uuid", "use self.uuid()")
SLEEP = Rule("sleep", "await self.sleep(...)")
GATHER = Rule("gather", "await self.gather(...)")
ASYNCIO = Rule("asyncio", "await only what self gives: self.step(...), self.sleep(...), self.gather(...)")
THREADS = Rule("threads", "await self.gather(...) for several at once, self.step(...) for work in a service")
IO = Rule("io", "let a service do it, by self.step(...)")
ORDER = Rule("order", "a set has another order in each process: iterate over sorted(...), or keep a list or dict")
HASH = Rule("hash", "it differs between processes: use hashlib or a field of the input")
AWAIT = Rule("await", "it is asked for when it is awaited: write await")
ENVIRONMENT = Rule("environment", "workers may differ in it: pass it in the saga's input", is_error=False)
GLOBAL = Rule("global", "a replay does not find it as it was: keep what the saga knows in self", is_error=False)

CALLS: dict[str, Rule] = {
    "time.time": CLOCK,
    "time.time_ns": CLOCK,
    "time.monotonic": CLOCK,
    "time.monotonic_ns": CLOCK,
    "time.perf_counter": CLOCK,
    "time.perf_counter_ns": CLOCK,
    "time.process_time": CLOCK,
    "time.process_time_ns": CLOCK,
    "time.thread_time": CLOCK,
    "time.thread_time_ns": CLOCK,
    "time.clock_gettime": CLOCK,
    "time.clock_gettime_ns": CLOCK,
    "time.localtime": CLOCK,
    "time.gmtime": CLOCK,
    "time.ctime": CLOCK,
    "time.asctime": CLOCK,
    "time.strftime": CLOCK,
    "time.sleep": SLEEP,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "uuid.uuid1": UUID,
    "uuid.uuid4": UUID,
    "os.urandom": RANDOM,
    "os.getenv": ENVIRONMENT,
    "os.environ.get": ENVIRONMENT,
    "os.getcwd": ENVIRONMENT,
    "os.getpid": ENVIRONMENT,
    "os.getppid": ENVIRONMENT,
    "os.uname": ENVIRONMENT,
    "os.cpu_count": ENVIRONMENT,
    "pathlib.Path.cwd": ENVIRONMENT,
    "pathlib.Path.home": ENVIRONMENT,
    "asyncio.sleep": SLEEP,
    "asyncio.gather": GATHER,
    "asyncio.wait": GATHER,
    "asyncio.as_completed": GATHER,
    "asyncio.create_task": GATHER,
    "asyncio.ensure_future": GATHER,
    "asyncio.TaskGroup": GATHER,
    "asyncio.to_thread": THREADS,
    "builtins.open": IO,
    "builtins.input": IO,
    "builtins.hash": HASH,
    "builtins.id": HASH,
    "os.system": IO,
    "os.listdir": IO,
    "os.scandir": IO,
    "os.walk": IO,
    "os.remove": IO,
    "os.rename": IO,
    "os.mkdir": IO,
    "os.makedirs": IO,
    "os.rmdir": IO,
    "os.replace": IO,
    "os.unlink": IO,
    "os.stat": IO,
    "os.path.exists": IO,
    "os.path.lexists": IO,
    "os.path.isfile": IO,
    "os.path.isdir": IO,
    "os.path.islink": IO,
    "os.path.getsize": IO,
    "os.path.getmtime": IO,
    "os.path.getctime": IO,
    "os.path.getatime": IO,
    "urllib.request.urlopen": IO,
    "urllib.request.urlretrieve": IO,
}
PACKAGES: dict[str, Rule] = {
    "random": RANDOM,
    "secrets": RANDOM,
    "asyncio": ASYNCIO,
    "anyio": ASYNCIO,
    "trio": ASYNCIO,
    "threading": THREADS,
    "_thread": THREADS,
    "concurrent": THREADS,
    "multiprocessing": THREADS,
    "queue": THREADS,
    "aiohttp": IO,
    "boto3": IO,
    "confluent_kafka": IO,
    "ftplib": IO,
    "glob": IO,
    "http": IO,
    "httpx": IO,
    "psycopg": IO,
    "redis": IO,
    "requests": IO,
    "shutil": IO,
    "smtplib": IO,
    "socket": IO,
    "sqlalchemy": IO,
    "sqlite3": IO,
    "subprocess": IO,
    "tempfile": IO,
    "urllib3": IO,
    "platform": ENVIRONMENT,
}
"""By the package that a called name belongs to, where `CALLS` says nothing of it."""
METHODS = {"read_text", "write_text", "read_bytes", "write_bytes"}
"""Calls that are IO on whatever they are made."""
PATH_METHODS = {"open", "exists", "is_file", "is_dir", "is_symlink", "is_mount", "stat", "lstat", "owner", "group"}
PATH_METHODS |= {"iterdir", "glob", "rglob", "walk", "resolve", "samefile", "readlink"}
PATH_METHODS |= {"mkdir", "rmdir", "unlink", "touch", "rename", "replace", "chmod", "symlink_to", "hardlink_to"}
"""Calls that are IO on a `pathlib.Path`."""
TIME_ARGUMENT = {"time.gmtime": 1, "time.localtime": 1, "time.ctime": 1, "time.asctime": 1, "time.strftime": 2}
"""Calls that look at the clock only if they have fewer arguments than this."""
ORDERED = {"list", "tuple", "enumerate", "iter", "next", "zip", "map", "filter", "reversed", "dict", "dict.fromkeys"}
"""Builtins that hand the order of a set on."""
PASSING = {"list", "tuple", "iter", "map", "filter", "reversed", "dict.fromkeys"}
"""Of them those whose result has the elements and nothing else of the order."""
UNORDERED = {"sorted", "set", "frozenset", "sum", "all", "any", "min", "max", "len"}
"""Builtins whose result is the same in whatever order they get the elements; without a key, and for whole numbers."""
GROUPS = {"each": "items", "some": "branches"}
"""Methods of `self` that go through what they are given, and what they call it."""
RECORDED = {"local", "side_effect"}
"""Methods of `self` whose arguments run outside of the saga's code."""
AWAITED = {
    "child",
    "human_task",
    "local",
    "lock",
    "promise",
    "receive",
    "sleep",
    "sleep_until",
    "step",
    "wait_until",
}
"""Methods of `Saga` that do nothing until what they give is awaited, beside those that are `async`."""
