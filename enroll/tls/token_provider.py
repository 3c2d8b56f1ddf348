"""Keys of a token for OpenSSL's TLS, through the system package pkcs11-provider.

OpenSSL loads a provider because a configuration says so. It is given ours by `OSSL_LIB_CTX_load_config`, in the OpenSSL
that Python's `ssl` uses and in no other: OPENSSL_CONF would also reach the one inside `cryptography`, and every child
process. A key is then named by a file that holds its URI and no secret.

The provider reads the PIN from its file. It logs in only where this process has not done so yet, which it has: the key
store has loaded the key before.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from enroll import der
from enroll.config import Pkcs11StoreSettings
from enroll.errors import KeyStoreError, KeyStoreUnavailable, PinRefused

MODULE = "pkcs11.so"

_MODULES_DIRECTORY = 1003  # OPENSSL_INFO_MODULES_DIR
_OWN = "scanseal-"  # begins the name under which we load the provider
_FOREIGN = "pkcs11"  # the name in every example of a configuration
_FOR_EACH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_VISIBLE_STRING, _UTF8_STRING = 0x1A, 0x0C

# The default provider has to be named, or there is none. Without no-deinit a process with SoftHSM crashes at its end
# (softhsm/SoftHSMv2 issue 729).
_CONFIGURATION = """\
openssl_conf = scanseal
[scanseal]
providers = scanseal_providers
[scanseal_providers]
default = scanseal_default
{name} = scanseal_token
[scanseal_default]
activate = 1
[scanseal_token]
{section}
activate = 1
"""
_SECTION = """\
module = {provider}
pkcs11-module-path = {library}
pkcs11-module-quirks = no-deinit
pkcs11-module-token-pin = file:{pin_file}"""


def activate(token: Pkcs11StoreSettings) -> str:
    """Have OpenSSL load the provider for a token; nothing happens where it has. The token is not touched.

    Args:
        token: Its library and its PIN file.

    Returns:
        The file of the provider.

    Raises:
        KeyStoreUnavailable: OpenSSL has no such provider, or cannot load it.
    """
    library = _openssl()
    provider = modules_directory(library) / MODULE
    if not provider.is_file():
        raise KeyStoreUnavailable(
            f"OpenSSL has no pkcs11-provider ({provider}).",
            remedy="Run: apt-get install pkcs11-provider (Debian 12: from bookworm-backports)",
        )
    if token.pin_file is None:
        raise KeyStoreUnavailable(
            "[keystore.pkcs11] pin_file is not set.", remedy="Name a file that holds the PIN of the token."
        )
    section = _SECTION.format(
        provider=_quoted(provider), library=_quoted(token.module), pin_file=_quoted(token.pin_file)
    )
    # With the settings in its name, OpenSSL itself knows what it has loaded.
    name = _OWN + hashlib.sha256(section.encode()).hexdigest()[:16]
    loaded = _loaded(library)
    if name in loaded:
        return str(provider)
    if any(other == _FOREIGN or other.startswith(_OWN) for other in loaded):
        # It would be asked for the key as well, and might send the PIN of its token to ours.
        raise KeyStoreUnavailable(
            "OpenSSL has a pkcs11 provider with other settings already.",
            remedy="Unset OPENSSL_CONF; a process authenticates with the keys of one token.",
        )
    # Where the token refuses the PIN, the provider would ask on the terminal, and wait.
    library.UI_set_default_method(library.UI_null())
    with private_file(_CONFIGURATION.format(name=name, section=section)) as path:
        # Returns 1 also where a provider is missing.
        library.OSSL_LIB_CTX_load_config(None, os.fsencode(path))
    if name not in _loaded(library):
        raise KeyStoreUnavailable(
            f"OpenSSL does not load {provider}.", remedy="Install a pkcs11-provider that is made for this OpenSSL."
        )
    return str(provider)


@contextmanager
def key_file(uri: str) -> Iterator[Path]:
    """A file that names a key, for `ssl.SSLContext.load_cert_chain`; gone afterwards."""
    with private_file(uri_pem(uri)) as path:
        yield path


def modules_directory(library: ctypes.CDLL) -> Path:
    """Where this OpenSSL has its providers."""
    library.OPENSSL_info.restype = ctypes.c_char_p
    return Path(os.fsdecode(library.OPENSSL_info(_MODULES_DIRECTORY)))


def uri_pem(uri: str) -> str:
    """The name of a key as a "private key" in PEM, which pkcs11-provider reads from 0.4 on.

    SEQUENCE { VisibleString "PKCS#11 Provider URI v1.0", UTF8String uri }
    """
    version = der.encode(_VISIBLE_STRING, b"PKCS#11 Provider URI v1.0")
    content = der.encode(der.SEQUENCE, version + der.encode(_UTF8_STRING, uri.encode()))
    body = base64.encodebytes(content).decode("ascii")
    return f"-----BEGIN PKCS#11 PROVIDER URI-----\n{body}-----END PKCS#11 PROVIDER URI-----\n"


def no_pin() -> NoReturn:
    """Answers OpenSSL when it asks for the PIN, as it does after the token has refused the one in the file.

    Raises:
        PinRefused: Always. An answer would be sent five times over, and an error ends the loading at once.
    """
    raise PinRefused(
        "The token does not accept the PIN.",
        remedy="Put the right PIN into its pin_file. It is not tried again, because tokens lock after a few.",
    )


def _openssl() -> ctypes.CDLL:
    """The OpenSSL of Python's `ssl`: names are looked up in what its extension module is linked with."""
    try:
        import _ssl  # noqa: PLC0415 - not where Python is built without it

        library = ctypes.CDLL(_ssl.__file__)
        library.OSSL_PROVIDER_get0_name.restype = ctypes.c_char_p
        library.OSSL_PROVIDER_get0_name.argtypes = [ctypes.c_void_p]
        library.UI_null.restype = ctypes.c_void_p
        library.UI_set_default_method.argtypes = [ctypes.c_void_p]
    except (ImportError, AttributeError, OSError) as error:
        raise KeyStoreUnavailable(
            "The OpenSSL of this Python takes no providers.",
            remedy="Use a Python that loads OpenSSL 3 as a library, such as that of the distribution.",
        ) from error
    return library


def _loaded(library: ctypes.CDLL) -> set[str]:
    """The names of the providers that OpenSSL has loaded."""
    names: set[str] = set()

    def note(provider: int, _: object) -> int:
        names.add(library.OSSL_PROVIDER_get0_name(provider).decode())
        return 1

    library.OSSL_PROVIDER_do_all(None, _FOR_EACH(note), None)
    return names


@contextmanager
def private_file(text: str) -> Iterator[Path]:
    """A file that holds a text and that nobody else can read; gone afterwards."""
    try:
        with tempfile.TemporaryDirectory(prefix="scanseal-") as directory:
            path = Path(directory) / "file"
            path.write_text(text, "utf-8")
            yield path
    except OSError as error:
        raise KeyStoreError(
            f"No temporary file can be made: {error.strerror}.", remedy="Free some space where temporary files lie."
        ) from error


def _quoted(path: Path) -> str:
    """A path in the configuration: what might mean something there is escaped (config(5))."""
    text = str(path)
    if not text.isprintable():
        raise KeyStoreUnavailable("OpenSSL takes no path with control characters.", remedy="Rename that file.")
    return re.sub(r"([^A-Za-z0-9/._-])", r"\\\1", text)
