"""Tests of a saga without a broker: `SagaTest` runs it in memory, time skips by itself."""

from orchestrator.testing.saga_test import End, SagaTest

__all__ = ["End", "SagaTest"]
