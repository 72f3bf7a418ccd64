"""ELAN's own files (.eaf): the annotations of a tier, times in milliseconds.

Only tiers whose annotations have times of their own are read: those of others explain these.
"""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree

logger = logging.getLogger("earshot")


def read_tiers(path: Path) -> dict[str, list[tuple[float, float, str]]]:
    """The annotations with times of each tier that has any: {tier: (onset, offset in seconds, label) of each}."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no ELAN file that can be read: {error}") from error
    units = {header.get("TIME_UNITS", "milliseconds") for header in root.iter("HEADER")}
    if root.tag != "ANNOTATION_DOCUMENT" or not units <= {"milliseconds"}:
        raise ValueError(f"{path} is no ELAN file in milliseconds ({root.tag}, {', '.join(sorted(units))})")
    at = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    tiers, untimed = {}, 0
    for tier in root.iter("TIER"):
        found = []
        for note in tier.iter("ALIGNABLE_ANNOTATION"):
            times = [at.get(note.get(f"TIME_SLOT_REF{i}")) for i in (1, 2)]
            label = (note.findtext("ANNOTATION_VALUE") or "").strip()
            if None in times:
                untimed += bool(label)
            elif label:
                found.append((int(times[0]) / 1000, int(times[1]) / 1000, label))
        if found:
            tiers[tier.get("TIER_ID", "")] = found
    if untimed:
        logger.warning("%s: %d annotations have no time of their own and are left out", path, untimed)
    return tiers
