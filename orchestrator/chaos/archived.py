"""What owners have cut from their journals, held to what stood there: nothing is deleted that the archive lacks."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from orchestrator.archive.journals import JournalArchive
from orchestrator.archive.shelf import SegmentDamaged
from orchestrator.chaos.kept import Material
from orchestrator.checker.evidence import Place, Raw, Verdict
from orchestrator.depot import Depot


def check_archive(folder: Path, journal: str, material: Material, records: Raw, verdict: Verdict) -> int:
    """C6: the archive has every record that was cut, as it was. Returns how many records it has."""
    archive, archived = JournalArchive(Depot(str(folder)), journal, material.journal_id), 0
    for number, cut in material.cut.items():
        partition = int(number)
        end = archive.shelf(partition).end()
        if end < cut:
            words = f"journal {number} was cut below {cut}, and its archive ends at {end}"
            verdict.blame("C6", words, Place(partition, end))
        try:
            found = list(archive.records(partition, 0, end))
        except SegmentDamaged as damaged:
            verdict.blame("C6", f"the archive of journal {number}: {damaged}", Place(partition))
            continue
        archived += len(found)
        for mine, theirs in zip_longest(found, (each for each in records[partition] if each.offset < end)):
            if mine != theirs:
                at = (mine or theirs).offset
                words = f"the archive of journal {number} differs at offset {at} from what stood there"
                verdict.blame("C6", words, Place(partition, at))
                break
    return archived
