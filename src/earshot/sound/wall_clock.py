"""When a recording began, by its file's name, as recorders and archives write it.

AudioMoth writes 20240131_063000.WAV (UTC; before firmware 1.0 the seconds since 1970 in hexadecimal: 5E9A1F4C.WAV),
Song Meters PREFIX_20240131_063000.wav (also with a channel or a millisecond part behind), BirdCLEF soundscapes
BC_site_20240131_063000.ogg, others 2024-01-31T06-30-00. The zone is that of the recorder: nothing in a name says it,
but for a Z or an offset behind the time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePath

STAMP = re.compile(
    r"(?<!\d)(?P<y>(?:19|20)\d\d)[-_.]?(?P<mo>[01]\d)[-_.]?(?P<d>[0-3]\d)"
    r"[-_T $](?P<h>[0-2]\d)[-_:.h]?(?P<mi>[0-5]\d)[-_:.m]?(?P<s>[0-5]\d)(?!\d)"
    r"(?:[.,]\d+)?(?P<zone>Z|[+-][01]\d:?[0-5]\d)?"
)
HEXADECIMAL = re.compile(r"[3-7][0-9A-F]{7}")  # 1995 to 2033
FIRST, LAST = datetime(1995, 1, 1), datetime(2100, 1, 1)


def start_of(name: str) -> datetime | None:
    """A file's name or path -> when its recording began; None where the name does not say it.

    With a zone only where the name has one, or says UTC seconds.
    """
    stem = PurePath(name).stem
    for found in STAMP.finditer(stem):
        y, mo, d, h, mi, s = (int(found[k]) for k in ("y", "mo", "d", "h", "mi", "s"))
        try:
            time = datetime(y, mo, d, h, mi, s)
        except ValueError:  # 20241340: a number that is no date
            continue
        if FIRST <= time < LAST:
            return time.replace(tzinfo=_zone(found["zone"]))
    if HEXADECIMAL.fullmatch(stem.upper()) and not stem.isdecimal():
        return datetime.fromtimestamp(int(stem, 16), UTC)
    return None


def _zone(text: str | None) -> timezone | None:
    if not text:
        return None
    if text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
