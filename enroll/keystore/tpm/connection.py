"""The connection to a TPM: one for a store, one command at a time, which is all that a TPM can do."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tpm2_pytss import ESAPI, ESYS_TR, TPM2_CAP, TPM2_PT, TPM2_PT_VENDOR
from tpm2_pytss import TSS2_Exception as TssError

from enroll.errors import KeyStoreUnavailable
from enroll.keystore.tpm.faults import ConnectionLost, is_of_the_connection, is_out_of_room, translated

BUSY_SECONDS = 30.0  # that a command waits for those before it; the kernel bounds how long each may take

_MOST_PROPERTIES = 127  # that fit into one answer
_SMALLEST_BUFFER = 1024  # bytes; what a TPM takes at once unless it says otherwise
# https://trustedcomputinggroup.org/resource/vendor-id-registry: those that make chips and firmware TPMs.
_CHIP_MAKERS = frozenset({"AMD", "ATML", "BRCM", "HISI", "IFX", "INTC", "NSG", "NTC", "NTZ", "QCOM", "SMSN", "STM"})
_NO_CHIP = ("SW", "SIM", "VTPM", "VIRTUAL", "EMULAT")

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class TpmModel:
    """What a TPM says of itself. It proves nothing; the certificate of its endorsement key does.

    Args:
        manufacturer: TPM_PT_MANUFACTURER, such as "IFX".
        vendor: TPM_PT_VENDOR_STRING_1 to 4, such as "SLB9670".
    """

    manufacturer: str
    vendor: str

    @property
    def is_hardware(self) -> bool:
        """Whether this is a maker of chips, and nothing says that it is a simulator or a part of a virtual machine."""
        name = self.vendor.replace(" ", "").upper()
        return self.manufacturer in _CHIP_MAKERS and not any(word in name for word in _NO_CHIP)


@dataclass(frozen=True)
class LoadedObject:
    """An object in the memory of the TPM.

    Args:
        handle: Leads to it.
        identity: What it is; the name may have been given again by another process.
    """

    handle: ESYS_TR
    identity: bytes


@dataclass(frozen=True)
class OpenTpm:
    """An open TPM, for whoever has the turn.

    Args:
        esapi: The commands.
        model: What it says of itself.
        input_buffer: Bytes that it takes at once.
        loaded: What is loaded, by name; what was used least recently is first.
    """

    esapi: ESAPI
    model: TpmModel
    input_buffer: int
    loaded: dict[str, LoadedObject] = field(default_factory=dict)

    def with_room(self, command: Callable[[], Outcome], keep: str = "") -> Outcome:
        """The outcome of a command that loads an object. What was loaded before makes room for it, as far as needed.

        Without a resource manager a TPM holds three objects or so, with the one of the kernel each of its users does.

        Args:
            command: Tried again when there is more room.
            keep: Name of a loaded object that stays.

        Raises:
            TssError: It failed, or there is nothing left to make room with.
        """
        while True:
            try:
                return command()
            except TssError as error:
                oldest = next((name for name in self.loaded if name != keep), None)
                if not is_out_of_room(error) or oldest is None:
                    raise
                self.forget(oldest)

    def forget(self, name: str) -> None:
        """Flush a loaded object; nothing happens where there is none."""
        found = self.loaded.pop(name, None)
        if found is not None:
            self.flush(found.handle)

    def flush(self, handle: ESYS_TR) -> None:
        """Free the slot of an object; one that is gone has none."""
        with contextlib.suppress(TssError):
            self.esapi.flush_context(handle)

    @contextmanager
    def flushing(self, handle: ESYS_TR) -> Iterator[ESYS_TR]:
        """An object for one block."""
        try:
            yield handle
        finally:
            self.flush(handle)


class Connection:
    """The way to a TPM: opened when it is needed, and again after it was lost.

    Args:
        tcti: How it is reached, in the words of the TPM software stack.
    """

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._process = os.getpid()
        self._waiting = threading.Lock()
        self._tpm: OpenTpm | None = None
        self._closed = False

    @contextmanager
    def commands(self) -> Iterator[OpenTpm]:
        """The open TPM, for this thread alone. Errors of the software stack leave the block as ours.

        Raises:
            ConnectionLost: The TPM was there before, and what was loaded is gone; the next call opens it anew.
            KeyStoreUnavailable: It cannot be opened, is busy, or belongs to another process.
            KeyStoreError: See `translated`.
        """
        with self._turn():
            tpm = self._open()
            try:
                yield tpm
            except TssError as error:
                if is_of_the_connection(error):
                    self._drop()
                raise translated(error, self._tcti) from error
            except ConnectionLost:
                self._drop()
                raise

    def run(self, operation: Callable[[OpenTpm], Outcome]) -> Outcome:
        """The outcome of an operation; where the TPM was lost meanwhile it is begun again, once.

        Raises:
            KeyStoreError: See `commands`.
        """
        try:
            with self.commands() as tpm:
                return operation(tpm)
        except ConnectionLost:
            with self.commands() as tpm:
                return operation(tpm)

    def drop(self) -> None:
        """Begin anew with the next command; what is loaded is not flushed, because it may not be ours any more."""
        with self._turn():
            self._drop()

    def forget(self, name: str) -> None:
        """Flush a loaded object; nothing happens where there is none."""
        with self._turn():
            if self._tpm is not None:
                self._tpm.forget(name)

    def pause(self) -> None:
        """Flush what is loaded and let the TPM go, until the next command."""
        with self._turn():
            self._let_go()

    def close(self) -> None:
        """Flush what is loaded and let the TPM go, for good."""
        with self._turn():
            self._closed = True
            self._let_go()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if os.getpid() != self._process:
            raise KeyStoreUnavailable("The TPM was opened by another process.", remedy="Open it after the fork.")
        if not self._waiting.acquire(timeout=BUSY_SECONDS):
            raise KeyStoreUnavailable(
                f"The TPM has been busy for {BUSY_SECONDS:g} seconds.", remedy="Ask less of it, or try again."
            )
        try:
            yield
        finally:
            self._waiting.release()

    def _open(self) -> OpenTpm:
        if self._closed:
            raise KeyStoreUnavailable("The TPM has been closed.", remedy="Open the key store again.")
        if self._tpm is None:
            os.putenv("TSS2_LOG", "all+none")  # the software stack would write to stderr what we say in our words
            try:
                self._tpm = _introduced(ESAPI(self._tcti))
            except TssError as error:
                raise KeyStoreUnavailable(
                    f"The TPM at {self._tcti} cannot be opened ({error}).",
                    remedy="Check that it is there, that this user may use it (on Linux by the group tss), and "
                    "[keystore.tpm] tcti.",
                ) from error
        return self._tpm

    def _let_go(self) -> None:
        if self._tpm is not None:
            for name in tuple(self._tpm.loaded):
                self._tpm.forget(name)
        self._drop()

    def _drop(self) -> None:
        if self._tpm is not None:
            self._tpm.esapi.close()
            self._tpm = None


def _introduced(esapi: ESAPI) -> OpenTpm:
    try:
        _, data = esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, TPM2_PT.FIXED, _MOST_PROPERTIES)
    except TssError:
        esapi.close()
        raise
    values = {int(each.property): int(each.value) for each in data.data.tpmProperties}
    vendor = [values.get(TPM2_PT_VENDOR.STRING_1 + number, 0) for number in range(4)]
    model = TpmModel(_text(values.get(TPM2_PT.MANUFACTURER, 0)), "".join(_text(part) for part in vendor))
    return OpenTpm(esapi, model, values.get(TPM2_PT.INPUT_BUFFER, _SMALLEST_BUFFER))


def _text(value: int) -> str:
    """Four characters of a property, as far as they can be shown."""
    raw = value.to_bytes(4, "big").decode("ascii", "replace")
    return "".join(character for character in raw if character.isprintable()).strip()
