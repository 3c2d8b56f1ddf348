"""Signatures by the libraries themselves, with nothing of ours in between: what `scripts.benchmark_keys` compares with.

What `raw_of_...` gives is called by each thread that signs, and gives that thread what makes one signature.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass
from pkcs11.types import SignMixin
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_RH,
    TPM2B_DIGEST,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
)

from agent.cli.signing_rate import sign_digest
from enroll.algorithms import KeyAlgorithm
from enroll.keystore.base import PrivateKey
from enroll.keystore.tokenuri import TokenUri

Work = Callable[[], object]

DIGEST = hashlib.sha256(b"benchmark").digest()
# DigestInfo of SHA-256 (RFC 8017 9.2, note 1): CKM_RSA_PKCS signs it as it is.
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420") + DIGEST
_TEMPLATES = {KeyAlgorithm.RSA_2048: "rsa2048:rsassa:null", KeyAlgorithm.RSA_3072: "rsa3072:rsassa:null"}


def raw_of_software(key: PrivateKey) -> Callable[[], Work]:
    """The library itself: our store hands out its keys as they are."""
    return lambda: partial(sign_digest, key, DIGEST)


def raw_of_token(module: Path, uri: str, *, through_proxy: bool) -> Callable[[], Work]:
    """C_Sign by python-pkcs11, in a session for each thread. Our store has logged this process in.

    Args:
        module: The library, as our store has loaded it.
        uri: Of the key.
        through_proxy: Whether several threads may be inside the library.
    """
    wanted = TokenUri.parse(uri)
    token = pkcs11.lib(os.path.realpath(module)).get_token(token_label=wanted.token)
    lock: AbstractContextManager[object] = nullcontext() if through_proxy else threading.Lock()

    def make() -> Work:
        with lock:
            found = token.open().get_objects(
                {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: wanted.identifier}
            )
            (key,) = list(found)
            is_rsa = key[Attribute.KEY_TYPE] is pkcs11.KeyType.RSA
        if not isinstance(key, SignMixin):
            raise SystemExit("the key does not sign")
        data, mechanism = (_DIGEST_INFO, Mechanism.RSA_PKCS) if is_rsa else (DIGEST, Mechanism.ECDSA)

        def sign() -> object:
            with lock:
                return key.sign(data, mechanism=mechanism)

        return sign

    return make


def raw_of_tpm(tcti: str, algorithm: KeyAlgorithm) -> Callable[[], Work]:
    """TPM2_Sign by tpm2-pytss, with a primary key of its own and one lock: a TPM does one thing at a time.

    Args:
        tcti: A TPM that nobody else is connected to.
        algorithm: Of the key.
    """
    context = ESAPI(tcti)
    template = TPMT_PUBLIC.parse(
        _TEMPLATES.get(algorithm, "ecc256:ecdsa:null"),
        objectAttributes="fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda",
    )
    handle, *_ = context.create_primary(TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(publicArea=template), ESYS_TR.OWNER)
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.RSASSA if algorithm in _TEMPLATES else TPM2_ALG.ECDSA)
    scheme.details.any.hashAlg = TPM2_ALG.SHA256
    digest, ticket = TPM2B_DIGEST(DIGEST), TPMT_TK_HASHCHECK(tag=0x8024, hierarchy=TPM2_RH.NULL)
    lock = threading.Lock()

    def sign() -> object:
        with lock:
            return context.sign(handle, digest, scheme, ticket)

    return lambda: sign
