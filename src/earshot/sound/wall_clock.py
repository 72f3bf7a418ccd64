"""When a recording began, by its file's name, as recorders and archives write it.

AudioMoth writes 20240131_063000.WAV (UTC; before firmware 1.0 the seconds since 1970 in hexadecimal: 5E9A1F4C.WAV),
Song Meters PREFIX_20240131_063000.wav (also with a channel or a millisecond part behind), Frontier Labs
20240131T063000+1000_REC.flac or S20240131T063000123+1000_E..., SoundTrap 5146.240131063000.wav, BirdNET-Pi
2024-01-31-birdnet-06:30:00.wav (also with RTSP_1- before the time), BirdCLEF BC_site_20240131_063000.ogg, Arbimon
site-2024-01-31_06-30.flac.
The zone is that of the recorder: nothing in a name says it, but for a Z, UTC or an offset behind the time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePath

DAY = r"(?<!\d)(?P<y>(?:19|20)\d\d)[-_.]?(?P<mo>[01]\d)[-_.]?(?P<d>[0-3]\d)"
ZONE = (
    r"(?P<zone>_?Z(?![0-9A-Za-z])|[+-][01]\d:?[0-5]\d|\+[01]\d(?!\d)"
    r"|[_ ]?\(?UTC(?:[+-][01]?\d(?::?[0-5]\d)?(?!\d))?(?![0-9A-Za-z]))?"
)
STAMPS = tuple(
    re.compile(pattern + ZONE)
    for pattern in (
        DAY + r"(?:[-_T $]{0,2}|-birdnet-(?:RTSP_\d+-)?)(?P<h>[0-2]\d)[-_:.h]?(?P<mi>[0-5]\d)[-_:.m]?(?P<s>[0-5]\d)"
        r"(?:[.,]\d+|\d{3})?(?!\d)",
        DAY + r"T(?P<h>[0-2]\d)(?P<mi>[0-5]\d)(?!\d)",  # a time without its seconds, where it can be nothing else
        r"(?<!\d)(?P<y>(?:19|20)\d\d)-(?P<mo>[01]\d)-(?P<d>[0-3]\d)[-_T ](?P<h>[0-2]\d)[-:.h](?P<mi>[0-5]\d)(?!\d)",
        r"(?<!\d)\d{3,9}\.(?P<y>\d\d)(?P<mo>[01]\d)(?P<d>[0-3]\d)(?P<h>[0-2]\d)(?P<mi>[0-5]\d)(?P<s>[0-5]\d)(?!\d)",
    )
)
HEXADECIMAL = re.compile(r"[3-7][0-9A-F]{7}")  # 1995 to 2033
FIRST, LAST = datetime(1995, 1, 1), datetime(2100, 1, 1)


def start_of(name: str) -> datetime | None:
    """A file's name or path -> when its recording began; None where the name does not say it.

    With a zone only where the name has one, or says UTC seconds.
    """
    stem = PurePath(name).stem
    for found in (found for stamp in STAMPS for found in stamp.finditer(stem)):
        y, mo, d, h, mi, s = (int(found.groupdict().get(k) or 0) for k in ("y", "mo", "d", "h", "mi", "s"))
        try:
            time = datetime(y if y >= 100 else 2000 + y, mo, d, h, mi, s)
        except ValueError:  # 20241340: a number that is no date
            continue
        if FIRST <= time < LAST:
            return time.replace(tzinfo=_zone(found["zone"]))
    if HEXADECIMAL.fullmatch(stem.upper()) and not stem.isdecimal():
        return datetime.fromtimestamp(int(stem, 16), UTC)
    return None


def _zone(text: str | None) -> timezone | None:
    """What stands behind a time -> its zone: Z, UTC, +1000, -03:30, UTC-5."""
    if not text:
        return None
    offset = re.search(r"([+-])(\d\d?):?(\d\d)?$", text)
    if not offset:
        return UTC
    minutes = int(offset[2]) * 60 + int(offset[3] or 0)
    return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
