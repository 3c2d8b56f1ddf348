"""Signs once with each key that it is told of, and with nothing of scanseal: MODULE TOKEN PIN_FILE.

Each line of standard input is the label of a key pair. What this process holds more in the end is what the library of
the token keeps of keys that others have made and destroyed: SoftHSM frees no object before it is finalized.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass
from pkcs11.types import SignMixin

from tests.support.reliability.processes import Held


@contextmanager
def bare_user(module: Path, token: str, pin_file: Path) -> Iterator[Callable[[str], Held]]:
    """Such a process for one block; told of a key, it uses it, and what it holds then is the answer."""
    command = [sys.executable, "-m", __name__, str(module), token, str(pin_file)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def use(label: str) -> Held:
            print(label, file=process.stdin, flush=True)
            assert process.stdout is not None
            assert process.stdout.readline() == f"{label}\n"
            return Held.by(process.pid)

        yield use
        process.stdin.close()
        assert process.wait(20) == 0


def main(module: str, token: str, pin_file: str) -> None:
    found = pkcs11.lib(module).get_token(token_label=token)
    with found.open(user_pin=Path(pin_file).read_text("utf-8").strip()) as session:
        for line in sys.stdin:
            label = line.strip()
            of_this_key = {Attribute.LABEL: label}
            list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **of_this_key}))
            (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **of_this_key})
            assert isinstance(key, SignMixin)
            key.sign(b"", mechanism=Mechanism.SHA256_RSA_PKCS)
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
