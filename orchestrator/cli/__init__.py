"""The command `saga`."""


def main() -> None:
    raise SystemExit("saga: not built yet")
