"""How the certificate is renewed that came by FDO: FDO ends with it, so the owner says where to go from then on.

A module of our own, `scanseal.renewal`, for the device and for owners that know it:

    scanseal.renewal:active     true
    scanseal.renewal:renewal    ["est", "acme" or "cmp", address of its server as in scanseal.toml, EST label or ""]

What stands in scanseal.toml comes first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from enroll.certificates import read_kept, write_kept
from enroll.config import EnrollSettings
from enroll.errors import ConfigurationError, StateError
from enroll.fdo import cbor
from enroll.fdo.credential import Owner, fdo_directory, read_owner
from enroll.fdo.fault import Fault
from enroll.fdo.service_info import Statement
from enroll.flows.settings import AcmeSettings, CmpSettings, EstSettings, FdoRenewal, FlowName
from enroll.options import read_settings
from enroll.statefile import GROUP_DIRECTORY, StateFiles

NAME = "scanseal.renewal"

_URL_LIMIT, _LABEL_LIMIT = 1024, 64  # bytes
_SCHEME = "https://"  # plain HTTP only where the operator says so, in scanseal.toml
_TABLES: Mapping[FlowName, type[Any]] = {
    FlowName.EST: EstSettings,
    FlowName.ACME: AcmeSettings,
    FlowName.CMP: CmpSettings,
}
_ADDRESS = {FlowName.EST: "url", FlowName.ACME: "directory_url", FlowName.CMP: "url"}
_FILE_MODE = 0o640
_LOG = logging.getLogger(__name__)


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
        if not text:
            return None
        try:
            values = json.loads(text)
            said = cls(FlowName(values["flow"]), str(values["url"]), str(values["label"]))
            _TABLES[said.flow]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StateError("What the owner said about renewal is damaged.", remedy="Onboard again.") from error
        return said

    @property
    def text(self) -> str:
        """As `credential.Owner` keeps it."""
        return json.dumps(asdict(self))


class RenewalModule:
    """The device's side; says nothing and listens."""

    name = NAME
    is_complete = True  # the owner need not say anything

    def __init__(self) -> None:
        self.renewal: Renewal | None = None

    def begin(self) -> Sequence[Statement]:
        """See `DeviceModule`."""
        return []

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `DeviceModule`.

        Raises:
            Fault: It is not what this module knows, or no address that could stand in scanseal.toml.
        """
        if name != "renewal":
            raise Fault(f"The module {NAME} knows nothing but its renewal.")
        flow, url, label = value.array(3)
        if flow.text(_LABEL_LIMIT) not in {each.value for each in _TABLES}:
            raise Fault("The owner names a way of renewal that is not known here.")
        address = url.text(_URL_LIMIT)
        if not (address.startswith(_SCHEME) and address.isascii() and address.isprintable()):
            raise Fault("The owner names no https address of renewal.")
        said = Renewal(FlowName(flow.text()), address, label.text(_LABEL_LIMIT))
        try:
            read_settings(_TABLES[said.flow], _options(said), f"[{said.flow}]")
        except ConfigurationError as error:
            raise Fault("The owner names an address of renewal that is none.") from error
        self.renewal = said
        return []


def renewal_flow(settings: EnrollSettings, files: StateFiles) -> FlowName | None:
    """How certificates that came by FDO are renewed; None where neither configuration nor owner says it.

    Raises:
        StateError: The credential is damaged.
    """
    if settings.fdo.renewal is not FdoRenewal.AS_OWNER_SAYS:
        return FlowName(settings.fdo.renewal.value)
    owner = read_owner(fdo_directory(settings.state_directory), files)
    said = Renewal.from_text(owner.renewal) if owner else None
    return said.flow if said else None


def anchors_file(state_directory: Path) -> Path:
    """Where the CA certificates of the owner are, for the flow that renews."""
    return fdo_directory(state_directory) / "anchors.pem"


def write_anchors(owner: Owner, state_directory: Path, files: StateFiles) -> None:
    """Put the CA certificates of the owner where the flow that renews finds them.

    Raises:
        StateError: The disk refused.
    """
    path = anchors_file(state_directory)
    files.make_directory(path.parent, GROUP_DIRECTORY)
    write_kept(path, owner.anchors, files, _FILE_MODE)


def with_hand_over(settings: EnrollSettings, files: StateFiles) -> EnrollSettings:
    """The settings, completed by what the owner said: address and anchors of the renewal, where they name none.

    Where that cannot be read, they stay as they are: whoever needs it says so, and nobody else is kept from working.
    """
    try:
        owner = read_owner(fdo_directory(settings.state_directory), files)
        flow = renewal_flow(settings, files)
        said = Renewal.from_text(owner.renewal) if owner else None
        if owner is None or flow is None:
            return settings
        table: Any = getattr(settings, flow)
        changes: dict[str, Any] = {}
        if said is not None and said.flow is flow and not getattr(table, _ADDRESS[flow]):
            changes |= {name: value for name, value in _options(said).items() if not getattr(table, name)}
        anchors = settings.fdo.anchor_file or anchors_file(settings.state_directory)
        is_pinned = table.anchor_file is not None or bool(getattr(table, "anchor_fingerprint", ""))
        if not is_pinned and owner.anchors and files.exists(anchors):
            if settings.fdo.anchor_file is None:
                read_kept(anchors, files)  # the flow itself reads it as it reads a file of the operator
            changes["anchor_file"] = anchors
    except StateError as error:
        _LOG.info("What the owner said about renewal is left aside: %s", error.what)
        return settings
    # `replace` takes the name of the table, which is the one of the flow.
    return replace(settings, **{flow.value: replace(table, **changes)})


def _options(said: Renewal) -> dict[str, str]:
    """What the owner said, in options of the table of its flow."""
    options = {_ADDRESS[said.flow]: said.url}
    return options | {"label": said.label} if said.flow is FlowName.EST else options
