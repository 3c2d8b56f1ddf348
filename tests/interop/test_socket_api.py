"""The signing socket as callers see it: docs/socket-protocol.md, on a real agent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from agent.audit import verify as verify_audit
from agent.client import SigningClient, apply_splice
from agent.errors import AgentRefused, AgentUnreachable
from enroll.identity import IdentityName
from tests.support.agent_process import ROOT, Agent, Scanner, new_scanner, running_agent
from tests.support.dicom_samples import ct_slice, small_instance
from tests.support.dicom_tree import DEFLATED_EXPLICIT_LITTLE_ENDIAN
from tests.support.product_signing import assert_nothing_else_changed, intact
from tests.support.raw_dicom import Node, instance, part10
from tests.support.raw_http import VERSION, Caller, request, sign_instance

SPLICE = "application/vnd.scanseal.splice+json"
OPENAPI = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))


@pytest.fixture
def client(agent: Agent) -> Iterator[SigningClient]:
    with SigningClient(agent.socket) as client:
        yield client


@pytest.fixture
def caller(agent: Agent) -> Iterator[Caller]:
    with agent.connect() as connection:
        yield Caller(connection)


def verifies(certificate: x509.Certificate, signature: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
    public_key = certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    public_key.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(algorithm))


def test_the_status_says_what_signs(client: SigningClient) -> None:
    status = client.status()

    assert status["state"] == "ready"
    assert status["identities"]["signing"]["protection"] == "software"
    assert status["identities"]["signing"]["generation"] == 1
    assert status["identities"]["device"] is None
    assert status["roles"] == {"acquisition": "ready", "derivation": "not-enrolled", "synthesis": "not-enrolled"}
    assert status["workers"] == 2
    assert status["connections"] >= 1


def test_the_certificates_come_as_pem(client: SigningClient, scanner: Scanner) -> None:
    (certificate,) = x509.load_pem_x509_certificates(client.certificates())
    current = scanner.identities.current(IdentityName.SIGNING)

    assert current is not None
    assert certificate == current.certificate


@pytest.mark.parametrize(
    ("name", "algorithm"), [("sha256", hashes.SHA256()), ("sha384", hashes.SHA384()), ("sha512", hashes.SHA512())]
)
def test_a_digest_is_signed(client: SigningClient, name: str, algorithm: hashes.HashAlgorithm) -> None:
    """RFC 8017 8.2."""
    digest = hashlib.new(name, b"an image").digest()

    answer = client.sign_digest(digest, algorithm=name, role="acquisition")

    verifies(x509.load_der_x509_certificate(answer.certificate), answer.signature, digest, algorithm)
    assert answer.key_generation == 1


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_an_instance_comes_back_signed(client: SigningClient, algorithm: str) -> None:
    image = ct_slice()
    signed = BytesIO()

    client.sign_instance(image, signed, role="acquisition", profile="creator-rsa", algorithm=algorithm)

    assert intact(signed.getvalue()) == [True]
    assert_nothing_else_changed(image, signed.getvalue())


def test_a_splice_makes_the_same_of_it(client: SigningClient, tmp_path: Path) -> None:
    source, target = tmp_path / "image.dcm", tmp_path / "signed.dcm"
    source.write_bytes(ct_slice())

    with source.open("rb") as image, target.open("wb") as signed:
        splice = client.splice_instance(image, role="acquisition", profile="creator-rsa")
        apply_splice(image, splice.edits, signed)

    assert intact(target.read_bytes()) == [True]
    assert_nothing_else_changed(source.read_bytes(), target.read_bytes())
    assert splice.signature_uid.encode("ascii") in target.read_bytes()
    assert sum(len(edit.insert) for edit in splice.edits) < 4096


@pytest.mark.parametrize("size", [900, 2048], ids=["in memory", "spooled"])
def test_a_large_instance_comes_back_signed(client: SigningClient, scanner: Scanner, size: int) -> None:
    image = ct_slice(size, size)
    signed, spliced = BytesIO(), BytesIO()

    client.sign_instance(image, signed, role="acquisition", profile="creator-rsa")
    splice = client.splice_instance(image, role="acquisition", profile="creator-rsa")
    apply_splice(image, splice.edits, spliced)

    for result in (signed.getvalue(), spliced.getvalue()):
        assert intact(result) == [True]
        assert_nothing_else_changed(image, result)


@pytest.mark.parametrize("size", [1000, 2_000_000], ids=["in memory", "spooled"])
def test_a_deflated_instance_is_answered_both_ways(client: SigningClient, size: int) -> None:
    """PS3.5 A.5: the insertion is the whole data set, deflated anew."""
    pixels = Node(0x7FE00010, "OW", random.Random(1).randbytes(size))  # noqa: S311 - only to be incompressible
    image = part10(instance(pixels), DEFLATED_EXPLICIT_LITTLE_ENDIAN)
    signed, spliced = BytesIO(), BytesIO()

    client.sign_instance(image, signed, role="acquisition", profile="creator-rsa")
    splice = client.splice_instance(image, role="acquisition", profile="creator-rsa")
    apply_splice(image, splice.edits, spliced)

    assert intact(signed.getvalue()) == intact(spliced.getvalue()) == [True]


def test_a_signed_instance_names_its_signature_in_the_headers(caller: Caller) -> None:
    reply = caller.ask(sign_instance(small_instance()))

    assert reply.fields["content-type"] == "application/dicom"
    assert reply.fields["scanseal-signature-uid"].encode("ascii") in reply.body
    assert reply.fields["scanseal-key-generation"] == "1"


def test_an_instance_that_cannot_be_signed_is_refused_with_a_code(client: SigningClient) -> None:
    with pytest.raises(AgentRefused) as refused:
        client.splice_instance(ct_slice()[:-100], role="acquisition", profile="creator-rsa")

    assert (refused.value.status, refused.value.code) == (422, "truncated")
    assert client.status()["state"] == "ready"


@pytest.mark.parametrize("accept", ["application/dicom", SPLICE])
def test_an_empty_body_is_no_instance(caller: Caller, accept: str) -> None:
    assert caller.ask(sign_instance(b"", accept)).status == 422


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, "application/dicom"),
        ("*/*", "application/dicom"),
        ("application/*;q=0.5", "application/dicom"),
        (f"text/html, {SPLICE};q=0.9, application/dicom", SPLICE),
        (SPLICE.upper(), SPLICE),
    ],
)
def test_the_accept_header_chooses_the_answer(caller: Caller, accept: str | None, answered: str) -> None:
    headers = VERSION if accept is None else {**VERSION, "Accept": accept}
    target = "/v1/sign/instance?role=acquisition&profile=creator-rsa"

    assert caller.ask(request("POST", target, small_instance(), headers)).fields["content-type"] == answered


DIGEST = {"role": "acquisition", "algorithm": "sha256", "digest": base64.b64encode(bytes(32)).decode("ascii")}
INSTANCE = "/v1/sign/instance"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request("GET", "/v1/status", headers={}), 400, "version-header-missing"),
        (request("GET", "/v1/status", headers={"Scanseal-Version": "2"}), 400, "version-header-missing"),
        (request("GET", "/v2/status"), 404, "path-unknown"),
        (request("GET", "/"), 404, "path-unknown"),
        (request("DELETE", "/v1/status"), 405, "method-not-allowed"),
        (request("GET", "/v1/sign/digest"), 405, "method-not-allowed"),
        (request("GET", "/v1/status?verbose=1"), 400, "parameter-invalid"),
        (request("GET", "/v1/certificates?identity=idevid"), 400, "parameter-invalid"),
        (request("GET", "/v1/certificates?identity=device&identity=device"), 400, "parameter-invalid"),
        (request("GET", "/v1/certificates?identity=device"), 503, "not-enrolled"),
        (request("GET", "/v1/status", b"x"), 413, "body-too-large"),
        (request("POST", "/v1/sign/digest", b"{"), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", b"[]"), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", b"\xff"), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "more": 1}).encode()), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "role": "root"}).encode()), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "role": 1}).encode()), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "role": []}).encode()), 400, "parameter-invalid"),
        (
            request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "algorithm": "md5"}).encode()),
            400,
            "parameter-invalid",
        ),
        (
            request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "algorithm": "sha1"}).encode()),
            400,
            "parameter-invalid",
        ),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "digest": 5}).encode()), 400, "parameter-invalid"),
        (
            request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "digest": "AAAA"}).encode()),
            400,
            "parameter-invalid",
        ),
        (
            request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "digest": "00" * 32}).encode()),
            400,
            "parameter-invalid",
        ),
        (
            request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "role": "synthesis"}).encode()),
            403,
            "role-not-allowed",
        ),
        (request("POST", "/v1/sign/digest", json.dumps({**DIGEST, "role": "tls"}).encode()), 400, "parameter-invalid"),
        (request("POST", "/v1/sign/digest", headers=VERSION), 411, "length-required"),
        (request("POST", INSTANCE, b""), 400, "parameter-invalid"),
        (request("POST", f"{INSTANCE}?role=acquisition&profile=", b""), 400, "parameter-invalid"),
        (request("POST", f"{INSTANCE}?role=acquisition&profile=base-rsa", b""), 400, "parameter-invalid"),
        (request("POST", f"{INSTANCE}?role=acquisition"), 411, "length-required"),
        (request("POST", f"{INSTANCE}?role=derivation&profile=creator-rsa", b""), 403, "role-not-allowed"),
        (sign_instance(b"", "text/html"), 406, "not-acceptable"),
        (sign_instance(b"", query="&algorithm=md5"), 400, "parameter-invalid"),
        (sign_instance(b"", query="&purpose="), 400, "parameter-invalid"),
        (sign_instance(b"", query="&purpose=0"), 400, "parameter-invalid"),
        (sign_instance(b"", query="&purpose=19"), 400, "parameter-invalid"),
        (sign_instance(b"", query="&purpose=014"), 400, "parameter-invalid"),
        (sign_instance(b"not DICOM"), 422, "not-dicom"),
    ],
)
def test_what_is_refused_has_a_stable_code(caller: Caller, sent: bytes, status: int, code: str) -> None:
    reply = caller.ask(sent)

    assert reply.problem == (status, code)
    if reply.fields.get("connection") != "close":
        assert caller.ask(request("GET", "/v1/status")).status == 200


def test_a_wrong_method_is_told_the_right_one(caller: Caller) -> None:
    """RFC 9110 15.5.6."""
    assert caller.ask(request("GET", INSTANCE)).fields["allow"] == "POST"


def test_a_connection_takes_many_requests(caller: Caller) -> None:
    for _ in range(100):
        assert caller.ask(request("GET", "/v1/status")).status == 200
    assert caller.ask(sign_instance(small_instance())).status == 200


def test_pipelined_requests_are_answered_in_order(caller: Caller) -> None:
    """RFC 9112 9.3.2."""
    image = small_instance()
    caller.connection.sendall(
        request("GET", "/v1/status")
        + sign_instance(image, SPLICE)
        + sign_instance(image)
        + request("GET", "/v1/certificates")
    )

    assert [caller.reply().fields["content-type"] for _ in range(4)] == [
        "application/json",
        SPLICE,
        "application/dicom",
        "application/pem-certificate-chain",
    ]


def test_an_answer_that_leaves_a_body_unread_closes_the_connection(caller: Caller) -> None:
    """Or the rest of the body would be taken for the next request."""
    reply = caller.ask(request("POST", f"{INSTANCE}?role=derivation&profile=creator-rsa", request("GET", "/v1/status")))

    assert reply.problem == (403, "role-not-allowed")
    assert reply.fields["connection"] == "close"
    caller.connection.shutdown(socket.SHUT_WR)
    assert caller.is_closed()


def test_the_caller_may_close_the_connection(caller: Caller) -> None:
    reply = caller.ask(request("GET", "/v1/status", headers={**VERSION, "Connection": "close"}))

    assert reply.fields["connection"] == "close"
    assert caller.is_closed()


def test_a_body_that_is_waited_for_is_asked_for(caller: Caller) -> None:
    """RFC 9110 10.1.1."""
    image = small_instance()
    head = sign_instance(b"", length=len(image)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")

    assert caller.ask(head).status == 100
    assert caller.ask(image).status == 200


def test_a_body_that_is_not_wanted_is_not_asked_for(caller: Caller) -> None:
    head = sign_instance(b"", length=1 << 50).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")

    assert caller.ask(head).problem == (413, "body-too-large")


def test_a_refused_role_is_answered_403_and_audited(caller: Caller, scanner: Scanner) -> None:
    body = json.dumps({**DIGEST, "role": "synthesis"}).encode("ascii")

    assert caller.ask(request("POST", "/v1/sign/digest", body)).problem == (403, "role-not-allowed")
    refusal = scanner.audit("role-refused")[-1]
    assert refusal["uid"] == os.getuid()
    assert refusal["gid"] == os.getgid()
    assert refusal["pid"] == os.getpid()


def test_every_signature_is_audited(client: SigningClient, scanner: Scanner) -> None:
    splice = client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")

    line = scanner.audit("signature")[-1]
    assert line["sop_instance_uid"] == splice.sop_instance_uid
    assert (line["uid"], line["role"], line["key_generation"]) == (os.getuid(), "acquisition", 1)
    assert (line["algorithm"], len(bytes.fromhex(line["digest"]))) == ("sha256", 32)
    verify_audit(scanner.audit_file)


SIGN_AS_USER = """
import os, sys
from pathlib import Path
from agent.client import SigningClient
from agent.errors import AgentError
os.setgroups([4242]); os.setgid(1111); os.setuid(int(sys.argv[2]))
for role in ("acquisition", "derivation", "synthesis"):
    try:
        with SigningClient(Path(sys.argv[1])) as client:
            client.sign_digest(bytes(32), algorithm="sha256", role=role)
        print("signed")
    except AgentError as error:
        print(error.code)
"""


def signed_as(uid: int, path: Path) -> list[str]:
    """What a user gets who asks for each role in turn."""
    command = [sys.executable, "-c", SIGN_AS_USER, str(path), str(uid)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user: run as root")
def test_another_user_has_only_its_own_roles(tmp_path: Path) -> None:
    """SO_PEERCRED and SO_PEERGROUPS, socket(7) and unix(7): the kernel says who connects."""
    roles = {"acquisition": ["user:1001"], "derivation": ["group:4242"], "synthesis": ["user:0"]}
    with new_scanner(tmp_path) as scanner:
        scanner.socket.parent.chmod(0o755)
        scanner.enroll()
        scanner.enroll(IdentityName.DERIVATION)
        with running_agent(scanner, roles=roles, socket={"group": "4242"}):
            assert signed_as(1001, scanner.socket) == ["signed", "signed", "role-not-allowed"]
            assert signed_as(1002, scanner.socket) == ["role-not-allowed", "signed", "role-not-allowed"]
            refusals = scanner.audit("role-refused")
        with running_agent(scanner, roles=roles, socket={"group": "4343"}):
            assert signed_as(1001, scanner.socket) == ["agent-unreachable"] * 3
    assert {(line["uid"], line["gid"]) for line in refusals} == {(1001, 1111), (1002, 1111)}


def test_nobody_listens_is_said_plainly(tmp_path: Path) -> None:
    with SigningClient(tmp_path / "missing.sock") as client, pytest.raises(AgentUnreachable, match=r"missing\.sock"):
        client.status()


def test_curl_can_do_it(agent: Agent, tmp_path: Path) -> None:
    """The examples of docs/socket-protocol.md, as they stand there."""
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("curl or openssl is missing: apt-get install curl openssl")
    text = (ROOT / "docs" / "socket-protocol.md").read_text("utf-8")
    script = text.split("```sh\n", 1)[1].split("```", 1)[0]
    image = ct_slice(1024, 1024)  # large enough for curl to send Expect: 100-continue
    (tmp_path / "image.dcm").write_bytes(image)
    (tmp_path / "file").write_bytes(b"an image")

    program = f"set -e\n{script}".replace("/run/scanseal/sign.sock", str(agent.socket))
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)

    decoder = json.JSONDecoder()
    answers, position = [], 0
    while position < len(done.stdout):
        answer, position = decoder.raw_decode(done.stdout, position)
        answers.append(answer)
    status, splice, signature = answers
    assert status["state"] == "ready"
    assert [edit["remove"] for edit in splice["edits"]] == [0, 0]
    assert signature["key_generation"] == 1
    assert intact((tmp_path / "signed.dcm").read_bytes()) == [True]


def test_the_answers_are_what_the_openapi_file_promises(client: SigningClient, caller: Caller) -> None:
    digest = caller.ask(request("POST", "/v1/sign/digest", json.dumps(DIGEST).encode("ascii"))).json
    splice = caller.ask(sign_instance(small_instance(), SPLICE)).json
    problem = caller.ask(request("GET", "/nowhere")).json

    for name, answer in (
        ("Status", client.status()),
        ("DigestSignature", digest),
        ("Splice", splice),
        ("Problem", problem),
    ):
        assert_fits(answer, OPENAPI["components"]["schemas"][name])


def assert_fits(value: object, schema: dict[str, object]) -> None:
    """As much of JSON Schema as the OpenAPI file uses."""
    if reference := schema.get("$ref"):
        return assert_fits(value, OPENAPI["components"]["schemas"][str(reference).rpartition("/")[2]])
    if choices := schema.get("anyOf"):
        assert isinstance(choices, list)
        return assert_fits(value, choices[1 if value is None else 0])
    kinds: dict[object, type] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
        "null": type(None),
    }
    assert isinstance(value, kinds[schema["type"]])
    if isinstance(value, dict):
        properties = schema["properties"]
        assert isinstance(properties, dict)
        assert set(value) == set(properties) == set(schema["required"])  # type: ignore[call-overload]
        for name, member in value.items():
            assert_fits(member, properties[name])
    if isinstance(value, list):
        for entry in value:
            assert_fits(entry, schema["items"])  # type: ignore[arg-type]
    assert value in schema.get("enum", [value])  # type: ignore[operator]
    return None
