"""Every answer of a TPM and of the software stack becomes an error of ours (TPM 2.0 Library, Part 2, 6.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

import tpm2_pytss

from enroll.errors import KeyStoreError, KeyStoreUnavailable, PinRefused, UnsupportedKey
from enroll.keystore.tpm import faults


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (0x9A2, PinRefused, "authorization_file"),  # BAD_AUTH, session 1
        (0x98E, PinRefused, "authorization_file"),  # AUTH_FAIL, session 1
        (0x902, KeyStoreUnavailable, "/dev/tpmrm0"),  # OBJECT_MEMORY
        (0xC0902, KeyStoreUnavailable, "/dev/tpmrm0"),  # the same from a resource manager
        (0x921, KeyStoreUnavailable, "tpm2_dictionarylockout"),  # LOCKOUT
        (0x922, KeyStoreUnavailable, "again"),  # RETRY
        (0x18B, faults.ConnectionLost, "anew"),  # HANDLE, handle 1
        (0x910, faults.ConnectionLost, "anew"),  # REFERENCE_H0
        (0x100, faults.ConnectionLost, "anew"),  # INITIALIZE
        (0x101, faults.ConnectionLost, "anew"),  # FAILURE
        (0xA000A, faults.ConnectionLost, "anew"),  # IO error of the transport
        (0x7000B, faults.ConnectionLost, "anew"),  # of ESAPI itself
        (0x2C4, UnsupportedKey, "kind of key"),  # VALUE, parameter 2
        (0x143, UnsupportedKey, "kind of key"),  # COMMAND_CODE
        (0xB0143, UnsupportedKey, "kind of key"),  # the same from the kernel
        (0x146, KeyStoreError, "look up"),  # NV_RANGE
    ],
)
def test_who_has_to_act(code: int, kind: type[KeyStoreError], says: str) -> None:
    error = faults.translated(tpm2_pytss.TSS2_Exception(code))

    assert type(error) is kind
    assert says in error.remedy
    assert f"0x{code:x}" in error.what


def test_a_simulator_has_room_for_one_program() -> None:
    """It has no resource manager that could be named as a remedy."""
    no_room = tpm2_pytss.TSS2_Exception(0x902)

    assert faults.translated(no_room, "swtpm:port=2321").remedy == faults.translated(no_room, "mssim").remedy
    assert faults.translated(no_room, "mssim").remedy == (
        "Stop the agent while you do this: a simulator has room for one program."
    )
    assert "Stop" not in faults.translated(no_room, "device:/dev/tpm0").remedy


@given(st.integers(1, 0xFFFFF))
def test_there_is_none_without_a_meaning(code: int) -> None:
    error = faults.translated(tpm2_pytss.TSS2_Exception(code))

    assert isinstance(error, KeyStoreError)
    assert error.what
    assert error.remedy


@pytest.mark.parametrize(("code", "damaged"), [(0x1DF, True), (0x155, True), (0x1D5, True), (0x9A2, False)])
def test_what_load_says_of_a_blob(code: int, *, damaged: bool) -> None:
    assert faults.is_not_loadable(tpm2_pytss.TSS2_Exception(code)) is damaged


@pytest.mark.parametrize("code", [0x902, 0x18B, 0x922, 0xA000A, 0x921])
def test_what_load_says_of_the_tpm_is_no_damage(code: int) -> None:
    """A key that can be used tomorrow must not be called lost today."""
    assert not faults.is_not_loadable(tpm2_pytss.TSS2_Exception(code))
