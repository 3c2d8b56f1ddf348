"""URIs of keys in tokens (RFC 7512)."""

from __future__ import annotations

import pytest

from enroll.errors import KeyNotFound
from enroll.keystore.tokenuri import ObjectType, TokenUri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("pkcs11:token=scanseal;object=key;type=private", TokenUri("scanseal", "key", None)),
        ("pkcs11:object=key;token=scanseal", TokenUri("scanseal", "key", None)),
        ("pkcs11:token=t;id=%00%ffA", TokenUri("t", None, b"\x00\xffA")),
        ("pkcs11:token=t;object=s;type=secret-key", TokenUri("t", "s", None, ObjectType.SECRET_KEY)),
        # RFC 7512 2.3: these stand for themselves in a path.
        ("pkcs11:token=a:[]@!$'()*+,=b;id=x", TokenUri("a:[]@!$'()*+,=b", None, b"x")),
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;object=%C3%A4",
            TokenUri("The Software PKCS#11 Softtoken", "ä", None),
        ),
    ],
)
def test_a_uri_names_token_and_key(uri: str, expected: TokenUri) -> None:
    assert TokenUri.parse(uri) == expected


def test_what_is_written_is_percent_encoded() -> None:
    uri = str(TokenUri("my token;x=1?", "scanseal-ä", b"\x01A"))

    assert uri == "pkcs11:token=my%20token%3Bx%3D1%3F;object=scanseal-%C3%A4;id=%01%41;type=private"


@pytest.mark.parametrize("type_", ObjectType)
def test_the_type_is_written_and_read_again(type_: ObjectType) -> None:
    uri = TokenUri("t", "scanseal-x", b"\x01", type_)

    assert str(uri).endswith(f";type={type_}")
    assert TokenUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=t;object=o?pin-value=1234",
        "pkcs11:token=t;object=o?module-path=/tmp/evil.so",
        "pkcs11:token=t;object=o;pin-value=1234",
        "pkcs11:token=t;object=o;x-vendor=1234",
        "pkcs11:token=t;object=o;object=1234",
        "pkcs11:token=t;object=o;type=public",
        "pkcs11:token=t;object=o;type=secret-1234",
        "pkcs11:token=t;object=1234;",
        "pkcs11:token=t;object=%1",
        "pkcs11:token=t;object=%zz",
        "pkcs11:token=t;object=%FF",
        "pkcs11:token=t;object=1234%0A",
        "pkcs11:token=t;object=1234\n",
        "pkcs11:token=t;object=",
        "pkcs11:token=;object=1234",
        "pkcs11:token=t;id",
        f"pkcs11:token={'t' * 33};object=o",
        "pkcs11:token=t",
        "pkcs11:object=1234",
        "pkcs11:",
        "PKCS11:token=t;object=o",
        "software:1234",
        "",
        f"pkcs11:token=t;object={'o' * 1024}",
    ],
)
def test_everything_else_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(KeyNotFound) as caught:
        TokenUri.parse(uri)

    assert "1234" not in str(caught.value)
    assert "RFC 7512" in caught.value.remedy
