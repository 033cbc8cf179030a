"""`python -m tests.protocol.search`: search every variant and print what was found.

Without options these are the searches of the gate. `--all` adds the large ones: a quarter of an hour of one core, up to
five gigabytes. `--only WORDS` picks variants by name, `--story` prints how each fault comes about.
"""

from __future__ import annotations

import argparse
import sys

from .catalogue import CASES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.protocol.search", description="search the protocols")
    parser.add_argument("--all", action="store_true", help="the large searches, too")
    parser.add_argument("--only", metavar="WORDS", default="", help="variants with these words in their name")
    parser.add_argument("--story", action="store_true", help="print the shortest way into each fault")
    options = parser.parse_args()
    wrong = 0
    print("| variant | states | result | CPU seconds |\n|---|---|---|---|")
    for case in CASES:
        if options.only not in case.name or (case.large and not options.all):
            continue
        outcome = case.search()
        as_expected = outcome.fault == case.fault
        wrong += not as_expected
        result = "no violation, exhausted" if outcome.fault is None else f"violated: {outcome.fault}"
        mark = "" if as_expected else " (NOT as expected)"
        print(f"| {case.name} | {outcome.states:,} | {result}{mark} | {outcome.seconds:.1f} |", flush=True)
        if outcome.fault is not None and (options.story or not as_expected):
            print(f"\n{outcome}\n", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
