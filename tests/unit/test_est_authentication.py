"""How a password and a token are spoken: RFC 7616, RFC 7617, RFC 6750, RFC 9110 11.6."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from enroll.est.authentication import CHALLENGES_LIMIT, BearerToken, Password

URL = "https://est.example/.well-known/est/simpleenroll"
PASSWORD = Password("scanner", b"pass-4711")
BASIC = f"Basic {base64.b64encode(b'scanner:pass-4711').decode()}"
MD5 = 'Digest realm="est", qop="auth", nonce="n0nce", algorithm=MD5'
SHA256 = 'Digest realm="est", qop="auth,auth-int", nonce="n0nce", algorithm=SHA-256, opaque="o"'


def answer(challenges: str, password: Password = PASSWORD) -> str:
    return password.answer(challenges, "POST", URL)


def parameters(header: str) -> dict[str, str]:
    scheme, _, rest = header.partition(" ")
    assert scheme == "Digest"
    return {name: value.strip('"') for name, value in re.findall(r'([a-z*]+)=("[^"]*"|[^,]+)', rest)}


def test_before_a_challenge_nothing_is_sent() -> None:
    """RFC 7030 3.2.3."""
    assert PASSWORD.at_once == ""


def test_basic_is_answered() -> None:
    assert answer('Basic realm="est", charset="UTF-8"') == BASIC
    assert answer("basic") == BASIC


def test_the_example_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7616 3.9.1."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    challenge = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    mufasa = Password("Mufasa", b"Circle of Life")

    said = {
        algorithm: parameters(
            mufasa.answer(challenge.format(algorithm=algorithm), "GET", "http://www.example.org/dir/index.html")
        )
        for algorithm in ("MD5", "SHA-256")
    }

    assert said["MD5"]["response"] == "8ca523f5e9506fed4657c9700eebdbec"
    assert said["SHA-256"]["response"] == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    assert said["SHA-256"]["opaque"] == "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
    assert (said["MD5"]["uri"], said["MD5"]["nc"], said["MD5"]["qop"]) == ("/dir/index.html", "00000001", "auth")


@pytest.mark.parametrize(
    ("challenges", "algorithm"),
    [
        (f'Basic realm="x", {MD5}, {SHA256}', "SHA-256"),
        (f"{SHA256}, {MD5}", "SHA-256"),
        (f'{MD5}, Basic realm="x"', "MD5"),
        (MD5.replace(", algorithm=MD5", ""), "MD5"),
        (MD5.replace("MD5", "md5").replace("Digest", "DIGEST"), "MD5"),
    ],
)
def test_what_tells_the_server_least_is_taken(challenges: str, algorithm: str) -> None:
    assert parameters(answer(challenges))["algorithm"] == algorithm


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Negotiate",
        'Bearer realm="x"',
        MD5.replace('qop="auth", ', ""),
        MD5.replace('qop="auth"', 'qop="auth-int"'),
        MD5.replace("MD5", "SHA-512-256"),
        MD5.replace("MD5", "MD5-sess"),
        MD5.replace('nonce="n0nce", ', ""),
        MD5.replace("n0nce", "n0\r\nX: y"),
        MD5.replace("n0nce", "n" * CHALLENGES_LIMIT),
        'Digest realm="est',
        "=",
    ],
)
def test_what_cannot_be_answered_is_not(challenge: str) -> None:
    assert answer(challenge) == ""


def test_a_challenge_that_is_not_known_does_not_hide_the_next() -> None:
    assert answer('Negotiate, Vendor a="b", Basic realm="est"') == BASIC


def test_quotation_marks_stay_where_they_are() -> None:
    """RFC 9110 5.6.4."""
    said = answer(r'Digest realm="a \"quoted\" realm", qop=auth, nonce="n"')

    assert r'realm="a \"quoted\" realm"' in said


def test_a_name_beyond_ascii_has_a_form_of_its_own() -> None:
    """RFC 7616 3.4."""
    named = Password("Jäger", b"secret")

    said = parameters(answer(SHA256, named))

    assert said["username*"] == "UTF-8''J%C3%A4ger"
    a1 = hashlib.sha256("Jäger:est:secret".encode()).hexdigest()
    a2 = hashlib.sha256(b"POST:/.well-known/est/simpleenroll").hexdigest()
    text = f"{a1}:n0nce:00000001:{said['cnonce']}:auth:{a2}"
    assert said["response"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_client_nonce_is_a_new_one_each_time() -> None:
    assert parameters(answer(SHA256))["cnonce"] != parameters(answer(SHA256))["cnonce"]


def test_a_token_is_sent_at_once_and_not_again() -> None:
    """RFC 6750 2.1."""
    token = BearerToken("a.b.c")

    assert token.at_once == "Bearer a.b.c"
    assert token.answer('Bearer realm="x"', "POST", URL) == ""
