"""`python -m orchestrator.cli`: the command `saga` without its script."""

from orchestrator.cli import main

main()
