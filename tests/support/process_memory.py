"""What lies in the memory of a process: all of its mappings that can be read, as a core dump would have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

ALIGNMENT = 8  # bytes; malloc gives out no other addresses, and a BIGNUM of OpenSSL is made of such words
LARGEST_MAPPING = 256 << 20  # bytes


def mappings(pid: int) -> Iterator[bytes]:
    """The content of every mapping, as far as the kernel gives it to us. Needs the right to trace the process."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
            place, permissions, _, _, _, *name = line.split(maxsplit=5)
            begin, end = (int(address, 16) for address in place.split("-"))
            if not permissions.startswith("r") or name[:1] in (["[vvar]"], ["[vsyscall]"], ["[vvar_vclock]"]):
                continue
            assert end - begin <= LARGEST_MAPPING, line
            memory.seek(begin)
            yield _read(memory, end - begin)


def _read(memory: FileIO, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := memory.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def holds(pid: int, secrets: Iterable[bytes]) -> bool:
    """Whether any of some secrets lies in the memory of a process."""
    wanted = tuple(secrets)
    return any(secret in content for content in mappings(pid) for secret in wanted)


def holds_prime_of(pid: int, public_key: rsa.RSAPublicKey) -> bool:
    """Whether a prime of an RSA key lies in the memory of a process, as OpenSSL keeps it: little-endian, aligned.

    For keys that nobody but the process has ever seen: every number that could be a prime is tried.
    """
    modulus = public_key.public_numbers().n
    size = public_key.key_size // 16  # bytes of a prime
    for content in mappings(pid):
        ends = zip(content[::ALIGNMENT], content[size - 1 :: ALIGNMENT], strict=False)
        for number, (lowest, highest) in enumerate(ends):
            # A prime is odd, and both primes of a key have their highest bit set.
            if lowest & 1 and highest & 0x80:
                begin = number * ALIGNMENT
                candidate = int.from_bytes(content[begin : begin + size], "little")
                if modulus % candidate == 0:
                    return True
    return False


def forms_of(key: rsa.RSAPrivateKey) -> list[bytes]:
    """Every secret number of a key, in both orders of bytes."""
    numbers = key.private_numbers()
    half, whole = key.key_size // 16, key.key_size // 8
    secrets = [(numbers.p, half), (numbers.q, half), (numbers.d, whole)]
    secrets += [(numbers.dmp1, half), (numbers.dmq1, half), (numbers.iqmp, half)]
    return [number.to_bytes(size, order) for number, size in secrets for order in ("big", "little")]
