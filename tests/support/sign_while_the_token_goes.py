"""Signs in threads while the token is taken away and brought back: MODULE TOKEN PIN_FILE TOKENS URI...

TOKENS is SoftHSM's directory; it is renamed, and an empty one is put in its place. Each key has a thread of its own,
which checks every signature. Prints what happened as JSON: times in seconds since the token went or came back.

A program of its own, because the faults it looks for end the process.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.errors import KeyStoreError
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles
from tests.support.sign_in_threads import sign

BEFORE, AWAY, AFTER = 0.5, 1.5, 3.0  # seconds


@dataclass
class Log:
    """What a thread has seen.

    Args:
        signed: The moments of good signatures.
        failed: The moments of errors, and their codes.
        longest: Seconds that the longest call took.
        wrong: Signatures that were not by the key.
    """

    signed: list[float] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)
    longest: float = 0.0
    wrong: int = 0


def sign_until(stop: threading.Event, key: PrivateKey, log: Log) -> None:
    while not stop.is_set():
        begun = time.monotonic()
        try:
            sign(key, 0, "1")
            log.signed.append(time.monotonic())
        except KeyStoreError as error:
            log.failed.append((time.monotonic(), error.code))
            time.sleep(0.002)
        except InvalidSignature:
            log.wrong += 1
        log.longest = max(log.longest, time.monotonic() - begun)


def main(module: str, token: str, pin_file: str, tokens: str, *uris: str) -> None:
    settings = KeyStoreSettings(pkcs11=Pkcs11StoreSettings(Path(module), token, Path(pin_file), len(uris)))
    stores = KeyStores(settings, Path(), StateFiles())
    stop, logs = threading.Event(), [Log() for _ in uris]
    threads = [
        threading.Thread(target=sign_until, args=(stop, stores.load(uri), log))
        for uri, log in zip(uris, logs, strict=True)
    ]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE)
    place, elsewhere = Path(tokens), Path(f"{tokens}.elsewhere")
    place.rename(elsewhere)
    place.mkdir()
    gone = time.monotonic()
    time.sleep(AWAY)
    place.rmdir()
    elsewhere.rename(place)
    back = time.monotonic()
    time.sleep(AFTER)
    stop.set()
    for thread in threads:
        thread.join()
    stores.close()
    report = {
        "codes": sorted({code for log in logs for _, code in log.failed}),
        "first_error": max(min(moment for moment, _ in log.failed) - gone for log in logs),
        "signed_again": max(min(moment for moment in log.signed if moment > back) - back for log in logs),
        "longest_call": max(log.longest for log in logs),
        "signed": sum(len(log.signed) for log in logs),
        "wrong": sum(log.wrong for log in logs),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
