"""What signatures are worth by what they were made with, where the policy does not say otherwise."""

from __future__ import annotations

import re
from datetime import date

from cryptography import x509

from agent.dicom.algorithms import key_name
from agent.policy.model import AlgorithmRule, AlgorithmStatus, AlgorithmUse
from enroll.certificates import PARSE_ERRORS

_MACS = ("MD5", "RIPEMD160", "SHA1", "SHA256", "SHA384", "SHA512")
_RSA_KEYS = ("RSA-SMALL", "RSA-2048", "RSA-3072", "RSA-4096")
_OTHER_KEYS = ("ECDSA-P256", "ECDSA-P384", "ECDSA-P521", "ED25519", "ED448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")

KNOWN_NAMES = {
    AlgorithmUse.MAC: _MACS,
    AlgorithmUse.KEY: _RSA_KEYS + _OTHER_KEYS,
    AlgorithmUse.CERTIFICATE: ("MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"),
}

_DAY_OF_THE_SHA1_COLLISION = date(2017, 2, 23)
_END_OF_MD5 = date(2010, 1, 1)
_END_OF_RSA_3072 = date(2035, 12, 31)


def _rule(
    use: AlgorithmUse,
    names: tuple[str, ...],
    status: AlgorithmStatus,
    sign_until: date | None = None,
    proof_before: date | None = None,
) -> AlgorithmRule:
    return AlgorithmRule(
        use=use, names=frozenset(names), status=status, sign_until=sign_until, proof_before=proof_before
    )


# Dates: docs/policy.md.
BUILT_IN_RULES = (
    _rule(AlgorithmUse.MAC, ("MD5", "RIPEMD160"), AlgorithmStatus.ANTIQUE, date(2004, 1, 1), _END_OF_MD5),
    _rule(AlgorithmUse.MAC, ("SHA1",), AlgorithmStatus.ANTIQUE, date(2013, 12, 31), _DAY_OF_THE_SHA1_COLLISION),
    _rule(AlgorithmUse.MAC, ("SHA256", "SHA384", "SHA512"), AlgorithmStatus.CURRENT),
    _rule(AlgorithmUse.KEY, ("RSA-SMALL",), AlgorithmStatus.ANTIQUE, date(2004, 1, 1), _END_OF_MD5),
    _rule(AlgorithmUse.KEY, ("RSA-2048",), AlgorithmStatus.DEPRECATED, date(2030, 12, 31), _END_OF_RSA_3072),
    _rule(AlgorithmUse.KEY, ("RSA-3072", "RSA-4096"), AlgorithmStatus.CURRENT, None, _END_OF_RSA_3072),
    _rule(AlgorithmUse.KEY, _OTHER_KEYS, AlgorithmStatus.CURRENT),
    _rule(AlgorithmUse.CERTIFICATE, ("MD5",), AlgorithmStatus.ANTIQUE, date(2004, 1, 1), _END_OF_MD5),
    _rule(AlgorithmUse.CERTIFICATE, ("SHA1",), AlgorithmStatus.ANTIQUE, date(2013, 12, 31), _DAY_OF_THE_SHA1_COLLISION),
    _rule(AlgorithmUse.CERTIFICATE, ("SHA256", "SHA384", "SHA512"), AlgorithmStatus.CURRENT),
)


def key_class(key: str) -> str:
    """The name by which a policy speaks of a key: RSA keys by the largest size that they reach, others as they are.

    Args:
        key: As in `agent.dicom.report.Algorithms`, such as RSA-3072.
    """
    size = re.fullmatch(r"RSA-([0-9]{1,6})", key)
    if size is None:
        return key
    bits = int(size[1])
    return next((f"RSA-{reached}" for reached in (4096, 3072, 2048) if bits >= reached), "RSA-SMALL")


def key_of(certificate: x509.Certificate) -> str:
    """The name by which a policy speaks of the key of a certificate; empty for one that nobody here can name."""
    try:
        return key_class(key_name(certificate.public_key()))
    except PARSE_ERRORS:
        return ""


def hash_under(certificate: x509.Certificate) -> str | None:
    """The name of the hash under a certificate; empty for one that nobody here can name.

    None where there is none of its own: Ed25519 and its like.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except PARSE_ERRORS:
        return ""
    return None if algorithm is None else algorithm.name.upper()


def in_profile(key: str) -> bool:
    """Whether PS3.15 C.1 names the kind of key: it names RSA only."""
    return key.startswith("RSA-")
