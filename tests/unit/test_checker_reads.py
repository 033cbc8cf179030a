"""What the checker makes of an inbox, to which anybody may write."""

from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence
from orchestrator.log.base import Record
from orchestrator.wire.headers import MAX_HEADER_BYTES


def test_a_record_whose_headers_nobody_reads_is_passed_over() -> None:
    record = Record("saga.inbox", 0, 0, 1_000, b"o-1", b"{}", (("filler", b"z" * MAX_HEADER_BYTES),))
    nothing = {0: []}
    evidence = Evidence(1, nothing, {0: [record]}, nothing, nothing, nothing, nothing, nothing, {})
    assert check(evidence).violations == []
