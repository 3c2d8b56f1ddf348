"""The account of this scanner at an ACME server (RFC 8555 7.3).

    acme/account.json    the names of its keys, and its address at the CA

    key_name, key_uri            the account key, in a key store like every other
    directory_url, url           the address of the account, and the directory that it belongs to
    next_key_name, next_key_uri  a key that takes over, while that is under way

Each line is durable before the step that needs it. So a crash never costs an account: an account without an address
is asked for by its key (`onlyReturnExisting`, 7.3.1), and a change of keys that was cut off is finished or undone by
asking which of the two keys the CA knows (7.3.5). The same key serves another directory, where one is configured.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from enroll.config import StoreName
from enroll.errors import (
    CA_OPERATOR,
    HOSPITAL_IT,
    ConfigurationError,
    EnrollmentRefused,
    KeyDamaged,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    StateDamaged,
    UnsupportedKey,
)
from enroll.flows.acme.client import AcmeClient, Signer, offered, text_member
from enroll.flows.acme.jws import authenticated, from_base64url, public_jwk, signed
from enroll.flows.acme.problem import NO_ACCOUNT, AcmeProblem
from enroll.flows.base import FlowContext
from enroll.flows.settings import AcmeSettings
from enroll.foreign import printable
from enroll.keystore.base import PrivateKey
from enroll.keystore.secretfile import read_secret
from enroll.record import read_record, write_record
from enroll.statefile import StateFiles

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccountRecord:
    """What account.json holds; see the module."""

    key_name: str = ""
    key_uri: str = ""
    directory_url: str = ""
    url: str = ""
    next_key_name: str = ""
    next_key_uri: str = ""


class Account:
    """The account of this scanner; found, or made when it is first needed.

    Args:
        client: The server.
        context: Key stores, settings and state directory.
    """

    def __init__(self, client: AcmeClient, context: FlowContext) -> None:
        self._client = client
        self._settings = context.settings.acme
        self._stores = context.stores
        self._files = context.files
        self._file = context.settings.state_directory / "acme" / "account.json"
        self._signer: Signer | None = None

    def signer(self) -> Signer:
        """Who signs requests of this account; the only caller at a time, so under the lock of the identities.

        Raises:
            ConfigurationError: The CA wants something that is not configured.
            AcmeProblem: The CA refuses the account.
            ServerUnreachable: No answer.
            KeyStoreError: The key store refused.
            StateError: The disk refused.
        """
        if self._signer is None:
            record = self._settled(self._read())
            record, key, is_new = self._key(record)
            if record.directory_url != self._client.directory_url or not record.url:
                url = ("" if is_new else self._found(key)) or self._registered(key)
                record = self._write(replace(record, directory_url=self._client.directory_url, url=url))
            self._signer = Signer(key, record.url)
        return self._signer

    def known(self) -> Signer | None:
        """The same without making anything; None where there is no account at this directory.

        Raises:
            KeyStoreError: The key store cannot be used.
        """
        record = self._read()
        if not record.url or record.directory_url != self._client.directory_url:
            return None
        try:
            self._stores.load(record.key_uri)
        except (KeyNotFound, KeyDamaged, UnsupportedKey):
            return None
        return self.signer()

    def forget(self) -> None:
        """The CA knows no such account any more: its address is forgotten, its key stays.

        Raises:
            StateError: The disk refused.
        """
        self._signer = None
        self._write(replace(self._read(), directory_url="", url=""))

    def key_uri(self) -> str:
        """The name of the account key; empty where there is none yet."""
        return self._read().key_uri

    def roll_over(self) -> None:
        """Give the account a new key (RFC 8555 7.3.5), and destroy the old one.

        Raises:
            AcmeProblem: The CA refused; the old key stays.
            ServerUnreachable: No answer; the next use of the account finds out which key is valid.
            KeyStoreError: The key store refused.
            StateError: The disk refused.
        """
        url = offered(self._client.directory().key_change, "change of the account key")
        old = self.signer()
        record = self._read()
        store, algorithm = StoreName(self._settings.account_key_store), self._settings.account_key_algorithm
        record = self._write(replace(record, next_key_name=_new_name(), next_key_uri=""))
        record = self._write(
            replace(record, next_key_uri=self._stores.generate(store, record.next_key_name, algorithm))
        )
        change = {"account": old.account_url, "oldKey": public_jwk(old.key.public_key())}
        new = self._stores.load(record.next_key_uri)
        inner = signed(new, {"jwk": public_jwk(new.public_key()), "url": url}, json.dumps(change).encode("utf-8"))
        try:
            self._client.post(url, old, inner)
        except AcmeProblem:
            self._settled(record)
            raise
        self._signer = None
        self._switched(record)

    def _settled(self, record: AccountRecord) -> AccountRecord:
        """After a change of keys that was cut off: the key that the CA knows."""
        if not record.next_key_name:
            return record
        try:
            if record.next_key_uri and self._found(self._stores.load(record.next_key_uri)):
                return self._switched(record)
        except (KeyNotFound, KeyDamaged) as error:
            _LOG.warning("The next ACME account key is lost: %s", error.what)
        self._destroy(record.next_key_name)
        return self._write(replace(record, next_key_name="", next_key_uri=""))

    def _switched(self, record: AccountRecord) -> AccountRecord:
        old = record.key_name
        switched = replace(
            record, key_name=record.next_key_name, key_uri=record.next_key_uri, next_key_name="", next_key_uri=""
        )
        self._write(switched)
        self._destroy(old)
        return switched

    def _destroy(self, key_name: str) -> None:
        try:
            for uri in _named(key_name, self._stores.list()):
                self._stores.destroy(uri)
        except KeyStoreError as error:
            _LOG.warning("The unused key %s stays in its store: %s", key_name, error.what)

    def _key(self, record: AccountRecord) -> tuple[AccountRecord, PrivateKey, bool]:
        """The account key, and whether it has just been made."""
        if record.key_uri:
            try:
                return record, self._stores.load(record.key_uri), False
            except (KeyNotFound, KeyDamaged, UnsupportedKey) as error:
                _LOG.warning("The ACME account is lost with its key, a new one is made: %s", error.what)
                record = AccountRecord()
        store = StoreName(self._settings.account_key_store)
        if not record.key_name:
            self._stores.check(store)
            record = self._write(AccountRecord(key_name=_new_name()))
        uri = next(_named(record.key_name, self._stores.list()), "")
        uri = uri or self._stores.generate(store, record.key_name, self._settings.account_key_algorithm)
        return self._write(replace(record, key_uri=uri)), self._stores.load(uri), True

    def _found(self, key: PrivateKey) -> str:
        """The address of the account of a key (RFC 8555 7.3.1); empty where there is none."""
        try:
            return self._asked_for(key, {"onlyReturnExisting": True})
        except AcmeProblem as problem:
            if problem.kind == NO_ACCOUNT:
                return ""
            raise

    def _registered(self, key: PrivateKey) -> str:
        """Make the account (RFC 8555 7.3)."""
        directory, settings = self._client.directory(), self._settings
        payload: dict[str, Any] = {}
        if settings.contact:
            payload["contact"] = [f"mailto:{settings.contact}"]
        if settings.terms_of_service_agreed:
            payload["termsOfServiceAgreed"] = True
        elif directory.terms_of_service:
            raise ConfigurationError(
                f"The CA has terms of service: {directory.terms_of_service}.",
                remedy="Read them, and set [acme] terms_of_service_agreed = true if you agree.",
                who_must_act=HOSPITAL_IT,
            )
        if settings.eab_key_id:
            secret = binding_key(settings, self._files)
            protected = {"kid": settings.eab_key_id, "url": directory.new_account}
            jwk = json.dumps(public_jwk(key.public_key())).encode("ascii")
            payload["externalAccountBinding"] = authenticated(secret, protected, jwk)
        elif directory.external_account_required:
            raise ConfigurationError(
                "The CA wants to know whose account it is (external account binding).",
                remedy="Get a key identifier and a MAC key from the CA: [acme] eab_key_id and eab_key_file.",
                who_must_act=HOSPITAL_IT,
            )
        return self._asked_for(key, payload)

    def _asked_for(self, key: PrivateKey, payload: dict[str, Any]) -> str:
        reply = self._client.post(self._client.directory().new_account, Signer(key), payload)
        status = text_member({"status": "valid", **reply.document()}, "status")
        if status != "valid":
            raise EnrollmentRefused(
                f"The account of this scanner at the CA is {printable(status)}.",
                remedy=f"To begin with a new account, remove {self._file}.",
                who_must_act=CA_OPERATOR,
            )
        return self._client.address(reply.location, "the account")

    def _read(self) -> AccountRecord:
        if not self._files.exists(self._file):
            return AccountRecord()
        try:
            return AccountRecord(
                **read_record(self._file, [field.name for field in fields(AccountRecord)], self._files)
            )
        except StateDamaged as error:
            _LOG.warning("The ACME account is forgotten, a new one is made: %s", error.what)
            return AccountRecord()

    def _write(self, record: AccountRecord) -> AccountRecord:
        self._files.make_directory(self._file.parent)
        write_record(self._file, asdict(record), self._files)
        return record


def binding_key(settings: AcmeSettings, files: StateFiles) -> bytes:
    """The MAC key of the external account binding.

    Raises:
        ConfigurationError: It is missing, or not in base64url. Never holds the key.
    """
    try:
        text = read_secret(settings.eab_key_file, "[acme] eab_key_file", files).decode("ascii")
        return from_base64url(text.strip().rstrip("="))
    except KeyStoreUnavailable as error:
        raise ConfigurationError(error.what, remedy=error.remedy) from error
    except ValueError:
        # What failed quotes the key, so it is left out.
        raise ConfigurationError(
            f"{settings.eab_key_file} holds no key in base64url.", remedy="Copy the MAC key as the CA showed it."
        ) from None


def _new_name() -> str:
    return f"acme-account-{secrets.token_hex(8)}"


def _named(key_name: str, uris: Iterable[str]) -> Iterator[str]:
    return (uri for uri in uris if key_name and key_name in uri)
