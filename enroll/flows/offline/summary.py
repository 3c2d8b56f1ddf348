"""The part of an exported request that people read: who asks for what, how a CA grants it, where the answer goes."""

from __future__ import annotations

import re

from cryptography import x509

from enroll.certificates import name_text
from enroll.issue import PENDING_LIFETIME
from enroll.offline_request import Statement

_PLAIN_NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,100}")

_TEXT = """\
CERTIFICATE REQUEST OF A SCANNER

Device       {serial_number}
Identity     {identity}
Asked for    {what}
Why          {why}
Created      {created}
Number       {number}
Nonce        {nonce}
SHA-256 of the request
             {request_sha256}
SHA-256 of the public key
             {key_sha256}
Proof        {proof}

1.3.6.1.5.5.7.3.2 is clientAuth, 1.3.6.1.5.5.7.3.36 is documentSigning (RFC 9336).
The nonce is a random number that no other request has.

FOR THE CA OPERATOR
{check}
The certificate must keep the subject, the alternative names, the key usage and
the extended key usage of the request. The CA may add organization, unit, place
and domain to the subject, and nothing else.

  AD CS      certreq -submit -attrib "CertificateTemplate:NAME" {file} answer.cer answer.p7b
             In the template: "Supply in the request". So that the CA keeps the
             serial number: certutil -setreg CA\\SubjectTemplate +DeviceSerialNumber
             If certreq does not take this file, copy the block
             "CERTIFICATE REQUEST" below into one of its own.
  OpenSSL    openssl ca -config CA.cnf -in {file} -out answer.pem -notext
             with this in the section of the CA in CA.cnf:
               copy_extensions = copy
               unique_subject = no          (the next request has the same subject)
               policy = policy_anything     (it has no organization and no country)
             and in [ policy_anything ]:
               serialNumber = optional
             or
             openssl x509 -req -in {file} -copy_extensions copy -days 365 \\
               -CA ca.pem -CAkey ca.key -CAcreateserial -out answer.pem

THE ANSWER
Bring the certificate, and those of the CAs between it and the root, back to the
scanner: PKCS#7, PEM or DER, in one file or several. It is taken for {days} days
after this request was created, and once. There:

  scanseal enroll offline import answer.p7b
"""
_NO_PROOF = "none: this device has no identity yet. Find out by other means who asks."
_CHECK_NOTHING = "Nothing in this file proves which device it comes from.\n"
_CHECK = """\
Is it this device? Take the anchor of the CA that issued the certificate under
"Proof" from a trusted place, not from here, and either of these:

  scanseal   scanseal enroll offline show {file} --anchor anchor.pem
  OpenSSL    openssl cms -verify -inform PEM -in {file} -purpose sslclient \\
               -CAfile anchor.pem -no-CApath -no-CAstore -signer device.pem
             openssl x509 -in device.pem -noout -subject
             openssl req -in {file} -outform DER | openssl dgst -sha256
             The first prints what the device states, if it is proved. The second
             must name the serial_number in it, the third give the request_sha256.
"""


def summary(statement: Statement, signer: x509.Certificate | None, file_name: str) -> str:
    """The text.

    Args:
        statement: About the request.
        signer: Whose key signs the statement; None where nobody does.
        file_name: Of the file, for the commands; one that a shell would misread is not repeated.
    """
    file = file_name if _PLAIN_NAME.fullmatch(file_name) else "FILE"
    if signer is None:
        proof, check = _NO_PROOF, _CHECK_NOTHING
    else:
        proof = f"{name_text(signer.subject)}, issued by {name_text(signer.issuer)}"
        check = _CHECK.format(file=file)
    stated = {**vars(statement), "why": statement.why or "no reason was given"}
    return _TEXT.format(**stated, proof=proof, check=check, file=file, days=PENDING_LIFETIME.days)
