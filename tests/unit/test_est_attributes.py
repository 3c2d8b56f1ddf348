"""What a server wants in a request: RFC 7030 4.5.2, RFC 8951 4, RFC 9908. The lists are encoded by pyasn1."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AttributeOID, NameOID

from enroll.csr import build
from enroll.errors import ProtocolViolation
from enroll.est.attributes import OWNERS_NAMES_LIMIT, SIZE_LIMIT, WantedAttributes, read
from enroll.foreign import TEXT_LIMIT
from tests.support.csr_attributes import (
    CERTIFICATE_POLICIES,
    CHALLENGE_PASSWORD,
    COMMON_NAME,
    COUNTRY,
    DOMAIN,
    EC_PUBLIC_KEY,
    EMAIL_ADDRESS,
    EXTENDED_KEY_USAGE,
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    ORGANIZATION,
    P_256,
    P_384,
    RSA_ENCRYPTION,
    UNIT,
    Named,
    csr_attributes,
    extensions,
    integer,
    oid,
    template,
    text,
)
from tests.support.pki import REQUEST, new_key

# RFC 7030 4.5.2: the example of the standard, with a MAC address in a request for extensions.
RFC_7030_EXAMPLE = "MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw=="
EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
RSA_KEY = rsa.generate_private_key(65537, 2048).public_key()
NOTHING = WantedAttributes()


def wanted(*listed: str | Named) -> WantedAttributes:
    return read(base64.encodebytes(csr_attributes(*listed)))


def texts(found: WantedAttributes) -> list[str]:
    return [f"{name.rfc4514_attribute_name}={name.value}" for name in found.owners_names]


# --- nothing


@pytest.mark.parametrize("body", [b"", b"\r\n", base64.encodebytes(csr_attributes())])
def test_nothing_is_wanted(body: bytes) -> None:
    """RFC 8951 4: an empty answer and an empty list mean the same."""
    assert read(body) == NOTHING


def test_what_stands_in_every_request_is_no_news() -> None:
    assert wanted(COMMON_NAME, (EXTENSION_REQUEST, extensions((EXTENDED_KEY_USAGE, b"\x30\x00")))) == NOTHING


# --- the form of RFC 7030


def test_bare_oids_that_cannot_be_supplied_are_ignored_and_named() -> None:
    found = wanted(EMAIL_ADDRESS, "1.2.840.10045.4.3.3", ORGANIZATION)

    assert found.ignored == ("emailAddress", "1.2.840.10045.4.3.3", ORGANIZATION)
    assert found.owners_names == ()


def test_the_example_of_the_standard_is_understood() -> None:
    found = read(RFC_7030_EXAMPLE.encode())

    assert found.linked
    assert found.unmet(EC_KEY) == "p-384"
    assert "1.2.840.10045.4.3.3" in found.ignored


def test_a_challenge_password_links_the_request_to_the_connection() -> None:
    """RFC 7030 3.5, RFC 8951 4."""
    assert wanted(CHALLENGE_PASSWORD).linked
    assert not wanted(EMAIL_ADDRESS).linked


def test_names_of_the_owner_are_taken_over() -> None:
    found = wanted((COUNTRY, text("DE")), (ORGANIZATION, text("Hospital")), (UNIT, text("Radiology")))

    assert texts(found) == ["C=DE", "O=Hospital", "OU=Radiology"]
    subject = build(new_key(), REQUEST, owners_names=found.owners_names).subject
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "Hospital"
    assert list(subject)[-2:] == list(REQUEST.subject)


@pytest.mark.parametrize("unit", ["derivation", "synthesis", " Synthesis "])
def test_a_unit_that_tells_what_is_signed_is_not_for_the_server_to_set(unit: str) -> None:
    found = wanted((UNIT, text(unit)))

    assert (found.owners_names, found.ignored) == ((), (UNIT,))


@pytest.mark.parametrize(
    "named",
    [
        (ORGANIZATION, text("a\nb")),
        (ORGANIZATION, text("")),
        (COUNTRY, text("Germany")),
        (COUNTRY, text("é")),  # two bytes, and no PrintableString
        (COUNTRY, text("@_")),
        (DOMAIN, text("bücher")),  # RFC 4519 2.4: an IA5String
        (ORGANIZATION, integer(5)),
        (COMMON_NAME, text("another scanner")),
    ],
)
def test_a_name_that_cannot_stand_in_a_request_is_left_out(named: Named) -> None:
    assert wanted(named).owners_names == ()


def test_the_number_of_names_is_bounded() -> None:
    found = wanted(*((UNIT, text(f"Unit {number}")) for number in range(100)))

    assert len(found.owners_names) == OWNERS_NAMES_LIMIT


@pytest.mark.parametrize(
    ("named", "unmet"),
    [
        (EC_PUBLIC_KEY, ""),
        (RSA_ENCRYPTION, "rsa"),
        ((EC_PUBLIC_KEY, oid(P_256)), ""),
        ((EC_PUBLIC_KEY, oid(P_384)), "p-384"),
        ((EC_PUBLIC_KEY, oid("1.2.3")), "curve 1.2.3"),
        ((RSA_ENCRYPTION, integer(4096)), "rsa-4096"),
    ],
)
def test_a_kind_of_key_is_compared_with_ours(named: str | Named, unmet: str) -> None:
    assert wanted(named).unmet(EC_KEY) == unmet


def test_of_several_kinds_of_key_one_will_do() -> None:
    found = wanted((EC_PUBLIC_KEY, oid(P_384)), (RSA_ENCRYPTION, integer(2048)))

    assert found.unmet(RSA_KEY) == ""
    assert found.unmet(EC_KEY) == "p-384, rsa-2048"


@pytest.mark.parametrize("bits", [0, -2048, 1 << 20000], ids=["none", "negative", "huge"])
def test_a_length_that_no_rsa_key_has_is_a_protocol_violation(bits: int) -> None:
    """Python refuses to print a number of more than 4300 digits."""
    with pytest.raises(ProtocolViolation):
        wanted((RSA_ENCRYPTION, integer(bits)))


def test_what_is_said_of_the_kinds_of_key_is_bounded() -> None:
    found = wanted(*((EC_PUBLIC_KEY, oid(f"1.2.3.{number}")) for number in range(1000)))

    assert len(found.unmet(EC_KEY)) <= TEXT_LIMIT


def test_a_key_made_by_the_server_is_not_wanted_here() -> None:
    """RFC 7030 4.4.1.2: a key is born in its store."""
    assert "serverkeygen" in wanted("1.2.840.113549.1.9.16.2.54").ignored[0]


# --- the template of RFC 9908


def test_the_template_counts_and_the_rest_does_not() -> None:
    """RFC 9908 4."""
    new = template(((ORGANIZATION, text("Template Hospital")), (COMMON_NAME, None)), (EC_PUBLIC_KEY, oid(P_256)))

    found = wanted((ORGANIZATION, text("Old Hospital")), (RSA_ENCRYPTION, integer(4096)), new)

    assert texts(found) == ["O=Template Hospital"]
    assert found.unmet(EC_KEY) == ""


def test_the_link_is_wanted_wherever_it_is_listed() -> None:
    """RFC 8951 4: a server that needs it lists it; it is no part of the content."""
    assert wanted(CHALLENGE_PASSWORD, template()).linked
    assert not wanted(template()).linked


def test_a_template_can_want_the_link() -> None:
    found = wanted(template(attributes=((CHALLENGE_PASSWORD, text("")),)))

    assert found.linked


def test_a_template_names_an_rsa_length_by_a_specimen() -> None:
    """RFC 9908 3.4: an RSA key in it is there for its length."""
    specimen = RSA_KEY.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)

    found = wanted(template(key=(RSA_ENCRYPTION, specimen)))

    assert found.unmet(RSA_KEY) == ""
    assert found.unmet(EC_KEY) == "rsa-2048"


def test_extensions_of_a_template_that_are_never_asked_for_are_named() -> None:
    asked = extensions((EXTENDED_KEY_USAGE, None), (CERTIFICATE_POLICIES, None))

    assert wanted(template(attributes=((EXTENSION_TEMPLATE, asked),))).ignored == (CERTIFICATE_POLICIES,)


def test_a_template_without_a_template_is_no_template() -> None:
    assert wanted("1.2.840.113549.1.9.16.2.61", CHALLENGE_PASSWORD).linked


# --- what is none


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not base64!", id="not base64"),
        pytest.param(base64.encodebytes(csr_attributes(EMAIL_ADDRESS) + b"\0"), id="trailing byte"),
        pytest.param(base64.encodebytes(csr_attributes(EMAIL_ADDRESS)[:-1]), id="missing byte"),
        pytest.param(base64.encodebytes(b"\x30\x80" + csr_attributes(EMAIL_ADDRESS)[2:] + b"\0\0"), id="BER"),
        pytest.param(base64.encodebytes(b"\x31\x00"), id="a set"),
        pytest.param(base64.encodebytes(b"\x30\x03\x02\x01\x05"), id="a number in it"),
        pytest.param(base64.encodebytes(b"\x30" * 1000), id="depth"),
        pytest.param(base64.encodebytes(b"\x30\x02\x30\x00"), id="an attribute of nothing"),
        pytest.param(b"A" * (SIZE_LIMIT + 1), id="too long"),
        pytest.param(base64.encodebytes(csr_attributes(("1.2.840.113549.1.9.16.2.61", integer(1)))), id="template"),
    ],
)
def test_what_is_no_list_is_a_protocol_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="csrattrs") as violation:
        read(body)
    assert violation.value.remedy


def test_the_challenge_password_is_an_attribute_of_the_request() -> None:
    """RFC 2985 5.4.1."""
    request = build(new_key(), REQUEST, challenge_password="dGxzLXVuaXF1ZQ==")

    assert request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value == b"dGxzLXVuaXF1ZQ=="
    assert isinstance(request, x509.CertificateSigningRequest)
