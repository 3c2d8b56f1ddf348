"""What the evaluation owner has to say to a device: a certificate, and how it is renewed. NOT FOR PRODUCTION."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enroll.evaluation.fdo.fdo_csr import CertificateOwnerModule, Enrollments
from enroll.evaluation.fdo.owner_module import OnboardedDevice, OwnerModule
from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hand_over import NAME, Renewal
from enroll.fdo.service_info import ACTIVE, Statement


class RenewalOwnerModule:
    """scanseal.renewal: says it, and wants no answer.

    Args:
        renewal: What is said.
    """

    name = NAME
    is_complete = True

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal

    def begin(self) -> Sequence[Statement]:
        """See `OwnerModule`."""
        said = self._renewal
        return [Statement(NAME, "renewal", [said.flow.value, said.url, said.label])]

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `OwnerModule`.

        Raises:
            Fault: The device says anything but that it does not know the module.
        """
        if name != ACTIVE or value.boolean():
            raise Fault(f"The device has nothing to say of {NAME}.")
        return []

    def pause(self) -> None:
        """See `OwnerModule`."""


@dataclass(frozen=True)
class OwnerModules:
    """Makes the modules for a device; a `MakeModules`.

    Args:
        enrollments: What is behind fdo.csr.
        renewal: Where certificates are renewed; None where the device has to know it.
    """

    enrollments: Enrollments
    renewal: Renewal | None = None

    def __call__(self, device: OnboardedDevice) -> Sequence[OwnerModule]:
        """The modules, in the order in which they speak."""
        # First how to renew: a device may leave with the certificate.
        first: list[OwnerModule] = [RenewalOwnerModule(self.renewal)] if self.renewal else []
        return [*first, CertificateOwnerModule(device, self.enrollments)]
