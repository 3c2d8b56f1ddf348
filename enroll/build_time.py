"""When this version was made: no clock that shows an earlier time can be right.

`tests/unit/test_build_time.py` keeps it from being older than the newest release in the changelog.
"""

from __future__ import annotations

from datetime import UTC, datetime

BUILD_TIME = datetime(2026, 11, 22, tzinfo=UTC)
