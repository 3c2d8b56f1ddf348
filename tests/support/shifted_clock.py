"""Whole processes that see another date: their wall clock is shifted below the C library, everything else is as it is.

Python, OpenSSL and every library of the process get it; CLOCK_MONOTONIC and CLOCK_BOOTTIME go on as they are, as on a
machine whose clock has been set. libfaketime shifts these as well, so it cannot show what a clock that jumped does.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    const char *text = getenv("SHIFTED_BY");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    if (!result) now->tv_sec += shift();
    return result;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""

needs_compiler = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="shifts the clock with a library made by gcc: apt-get install gcc libc6-dev"
)


def shifted(folder: Path, to: datetime) -> dict[str, str]:
    """The environment of a process that begins at a date.

    Args:
        folder: For the library.
        to: The date.
    """
    library = folder / "shifted_clock.so"
    if not library.exists():
        source = folder / "shifted_clock.c"
        source.write_text(_SOURCE, "ascii")
        command = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    by = math.ceil((to - datetime.now(UTC)).total_seconds())  # not the second before, which may be another year
    return {"LD_PRELOAD": str(library), "SHIFTED_BY": str(by)}
