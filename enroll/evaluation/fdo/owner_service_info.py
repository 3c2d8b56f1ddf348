"""What an owner and a device say to each other in 68 and 69: FDO 1.1, 5.6.3 and 5.6.4. NOT FOR PRODUCTION.

devmod comes first. Then the modules that the device has are activated, one after the other: the next one when the one
before is complete.
"""

from __future__ import annotations

from dataclasses import replace

from enroll.evaluation.fdo.owner_module import MakeModules, OnboardedDevice, OwnerModule
from enroll.fdo import cbor, devmod
from enroll.fdo.fault import Fault
from enroll.fdo.messages import TEXT_LIMIT
from enroll.fdo.service_info import ACTIVE, ROUNDS_LIMIT, Inbox, Outbox, Statement
from enroll.fdo.to2_messages import DeviceServiceInfo, OwnerServiceInfo

MODULES_LIMIT = 256

_TEXTS = ("os", "arch", "version", "device", "sep", "bin")  # what has to be there: FDO 1.1, 3.8.3


class _Devmod:
    """What a device says about itself."""

    def __init__(self) -> None:
        self._is_active = False
        self._texts: dict[str, str] = {}
        self._expected = 0
        self.modules: list[str] = []

    @property
    def is_complete(self) -> bool:
        complete = set(_TEXTS) <= self._texts.keys() and 0 < self._expected == len(self.modules)
        return self._is_active and complete

    def receive(self, name: str, value: cbor.Item) -> None:
        match name:
            case "active":
                self._is_active = value.boolean()
            case "nummodules":
                self._expected = value.unsigned(MODULES_LIMIT)
            case "modules":
                _, count, *names = value.array()
                if count.unsigned() != len(names) or len(self.modules) + len(names) > MODULES_LIMIT:
                    raise Fault("The list of the modules of a device is not as long as it says.")
                self.modules += [each.text(TEXT_LIMIT) for each in names]
            case _ if name in _TEXTS:
                self._texts[name] = value.text(TEXT_LIMIT)

    def describe(self, device: OnboardedDevice) -> OnboardedDevice:
        texts = self._texts
        return replace(device, os=texts["os"], arch=texts["arch"], version=texts["version"], device=texts["device"])


class OwnerServiceTalk:
    """One session.

    Args:
        device: As far as it is known before.
        make_modules: Makes what the owner has to say to it.
        outbox: Cuts what is said to what the device takes.
    """

    def __init__(self, device: OnboardedDevice, make_modules: MakeModules, outbox: Outbox) -> None:
        self._device = device
        self._make_modules = make_modules
        self._devmod = _Devmod()
        self._inbox, self._outbox = Inbox(), outbox
        self._waiting: list[OwnerModule] | None = None  # None until devmod is complete
        self._begun: dict[str, OwnerModule] = {}
        self._accepted: set[str] = set()
        self._has_more = False
        self._rounds = 0

    def answer(self, said: DeviceServiceInfo) -> OwnerServiceInfo:
        """Message 69.

        Raises:
            Fault: What the device says is not allowed now, or it does not come to an end.
            ScansealError: A module cannot go on.
        """
        self._rounds += 1
        if self._rounds > ROUNDS_LIMIT:
            raise Fault(f"Service info has not ended after {ROUNDS_LIMIT} rounds.")
        if self._has_more and (said.info or said.is_more):
            raise Fault("The device speaks while the owner has more to say.")
        for module, name, value in self._inbox.put(said.info, is_more=said.is_more):
            self._receive(module, name, value)
        if said.is_more:
            return OwnerServiceInfo(is_more=False, is_done=False, info=())
        if not self._has_more:
            if not said.info:
                self._pause()
            self._go_on()
        self._has_more, info = self._outbox.take()
        return OwnerServiceInfo(self._has_more, not self._has_more and self._is_complete, info)

    @property
    def _is_complete(self) -> bool:
        return self._waiting is not None and not self._waiting and self._is_quiet

    @property
    def _is_quiet(self) -> bool:
        """Whether all that were activated have been answered, and have nothing more to say."""
        return all(name in self._accepted and module.is_complete for name, module in self._begun.items())

    def _receive(self, module: str, name: str, value: cbor.Item) -> None:
        if self._waiting is None and module == devmod.NAME:
            self._devmod.receive(name, value)
            return
        known = self._begun.get(module)
        if known is None:
            raise Fault(f"Service info is for the module {module!r}, which is not active.")
        if name == ACTIVE and module not in self._accepted:
            if value.boolean():
                self._accepted.add(module)
            else:
                del self._begun[module]  # the device does not have it after all
            return
        self._outbox.put(known.receive(name, value))

    def _pause(self) -> None:
        for name in self._accepted & self._begun.keys():
            self._begun[name].pause()

    def _go_on(self) -> None:
        """Activate what comes next."""
        if self._waiting is None:
            if not self._devmod.is_complete:
                raise Fault("The device has not said all about itself (devmod).")
            made = self._make_modules(self._devmod.describe(self._device))
            self._waiting = [module for module in made if module.name in self._devmod.modules]
        if self._waiting and self._is_quiet:
            module = self._waiting.pop(0)
            self._begun[module.name] = module
            self._outbox.put([Statement(module.name, ACTIVE, value=True), *module.begin()])
