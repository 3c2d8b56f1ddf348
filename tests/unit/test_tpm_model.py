"""What a TPM says of itself decides whether its keys may count as hardware; never better than what is shown."""

from __future__ import annotations

import pytest

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

from enroll.keystore.tpm.connection import TpmModel, _text


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [("IFX", "SLB9670"), ("STM", ""), ("NTC", "rls NPCT"), ("INTC", "Intel"), ("AMD", "AMD"), ("QCOM", "QTPM")],
)
def test_makers_of_chips_and_of_firmware_tpms(manufacturer: str, vendor: str) -> None:
    assert TpmModel(manufacturer, vendor).is_hardware


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("IBM", "SW TPM"),  # swtpm, and what QEMU gives its guests
        ("MSFT", "xCG fTPM"),  # the reference simulator, and Hyper-V
        ("VMW", "VMW vTPM"),
        ("GOOG", "vTPM"),
        ("AMZN", "NitroTPM"),
        ("INTC", "SW TPM"),
        ("INTC", "S W T P M"),
        ("IFX", "Emulator"),
        ("STM", "simulator"),
        ("STM", "Virtual TPM"),
        ("", ""),
        ("NEWC", "Chip"),  # to be added when its maker is in the registry
    ],
)
def test_simulators_virtual_machines_and_the_unknown(manufacturer: str, vendor: str) -> None:
    assert not TpmModel(manufacturer, vendor).is_hardware


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0x49465800, "IFX"),
        (0x53572020, "SW"),
        (0, ""),
        (0x1B5B324A, "[2J"),
        (0xFFFFFFFF, "\N{REPLACEMENT CHARACTER}" * 4),
    ],
)
def test_only_what_can_be_shown_is_shown(value: int, text: str) -> None:
    """TPM 2.0 Library, Part 2, 6.13: four octets of ASCII."""
    assert _text(value) == text
