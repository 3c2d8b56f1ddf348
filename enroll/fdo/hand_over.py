"""How the certificate is renewed that came by FDO: FDO ends with it, so the owner says where to go from then on.

A module of our own, `scanseal.renewal`, for the device and for owners that know it:

    scanseal.renewal:active   true
    scanseal.renewal:flow     "est", "acme" or "cmp"
    scanseal.renewal:url      address of the server, as it would stand in scanseal.toml
    scanseal.renewal:label    EST label; may be left out

What stands in scanseal.toml comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from enroll.config import EnrollSettings
from enroll.fdo import cbor
from enroll.fdo.service_info import Statement
from enroll.flows.settings import FlowName
from enroll.statefile import StateFiles

NAME = "scanseal.renewal"


@dataclass(frozen=True)
class Renewal:
    """What the owner said.

    Args:
        flow: EST, ACME or CMP.
        url: Address of its server.
        label: EST label.
    """

    flow: FlowName
    url: str
    label: str = ""

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """As `credential.Owner` keeps it; None where the owner said nothing.

        Raises:
            StateError: It is damaged.
        """
        raise NotImplementedError

    @property
    def text(self) -> str:
        """As `credential.Owner` keeps it."""
        raise NotImplementedError


class RenewalModule:
    """The device's side; says nothing and listens."""

    name = NAME

    def begin(self) -> Sequence[Statement]:
        """See `DeviceModule`."""
        raise NotImplementedError

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `DeviceModule`."""
        raise NotImplementedError

    @property
    def is_complete(self) -> bool:
        """Always: the owner need not say anything."""
        raise NotImplementedError

    @property
    def renewal(self) -> Renewal | None:
        """What the owner said."""
        raise NotImplementedError


def renewal_flow(settings: EnrollSettings, files: StateFiles) -> FlowName | None:
    """How certificates that came by FDO are renewed; None where neither configuration nor owner says it."""
    raise NotImplementedError


def with_hand_over(settings: EnrollSettings, files: StateFiles) -> EnrollSettings:
    """The settings, completed by what the owner said: the address and the anchors of the renewal."""
    raise NotImplementedError
