"""EST servers differ; a scanner gets along with what the RFCs allow, and refuses the rest without losing anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.errors import CertificateRefused, EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstOptions
from enroll.flows.base import Pending
from enroll.flows.settings import EstSettings, FlowName
from enroll.identity import Generation, IdentityName
from tests.support import est_peer
from tests.support.enrolling import Scanner, settings
from tests.support.est_peer import EstPeer, Form, Oddities


@contextmanager
def scanner_at(folder: Path, odd: Oddities, label: str = "", **options: Any) -> Iterator[Scanner]:
    """A scanner whose hospital has such a server."""
    ca = EvaluationCa.create_or_open(folder / "ca", SystemClock())
    with EstPeer(ca, odd, EstOptions(**options)) as server:
        password_file = ca.password_file
        est = EstSettings(url=server.url, label=label, username=USERNAME, password_file=password_file, timeout=5)
        yield Scanner(settings(folder, est), (ca.certificate,), SystemClock())


def ask(scanner: Scanner) -> Generation | Pending:
    with Enroller(scanner.context) as enroller:
        answer = enroller.enroll(IdentityName.DEVICE, FlowName.EST)
    assert isinstance(answer, Generation | Pending)
    return answer


def usable(forms: Mapping[str, Form[Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("form", [name for name, form in forms.items() if form.usable])


def unusable(forms: Mapping[str, Form[Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("form", [name for name, form in forms.items() if not form.usable])


def refusal(scanner: Scanner) -> EnrollmentError:
    """What the scanner says of a server that it cannot use; nothing came into use."""
    with pytest.raises(EnrollmentError) as error:
        ask(scanner)
    assert scanner.matching_pair(IdentityName.DEVICE) is None
    assert str(error.value).isprintable()
    return error.value


# --- bodies (RFC 8951 3)


def test_requests_end_with_a_newline_for_servers_that_need_it(tmp_path: Path) -> None:
    with scanner_at(tmp_path, Oddities(newline_strict=True)) as scanner:
        assert isinstance(ask(scanner), Generation)


@usable(est_peer.BODIES)
def test_a_body_with_any_white_space_or_armour_is_read(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(body=est_peer.BODIES[form].value)) as scanner:
        assert ask(scanner) == scanner.matching_pair(IdentityName.DEVICE)


@unusable(est_peer.BODIES)
def test_a_body_that_is_no_der_in_base64_is_a_violation(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(body=est_peer.BODIES[form].value)) as scanner:
        assert isinstance(refusal(scanner), ProtocolViolation)


@pytest.mark.parametrize("encoding", est_peer.TRANSFER_ENCODINGS)
def test_the_transfer_encoding_means_nothing(tmp_path: Path, encoding: str) -> None:
    with scanner_at(tmp_path, Oddities(transfer_encoding=encoding)) as scanner:
        assert isinstance(ask(scanner), Generation)


# --- bags (RFC 7030 4.2.3)


@usable(est_peer.BAGS)
def test_the_certificate_is_found_by_its_key(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(issue=est_peer.BAGS[form].value)) as scanner:
        assert ask(scanner) == scanner.matching_pair(IdentityName.DEVICE)


@unusable(est_peer.BAGS)
def test_a_bag_without_the_one_certificate_is_refused(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(issue=est_peer.BAGS[form].value)) as scanner:
        assert isinstance(refusal(scanner), CertificateRefused | ProtocolViolation)


# --- csrattrs (RFC 8951 4, RFC 9908)


@usable(est_peer.ATTRIBUTES)
def test_what_cannot_be_supplied_is_ignored(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(attributes=est_peer.ATTRIBUTES[form].value)) as scanner:
        assert isinstance(ask(scanner), Generation)


@unusable(est_peer.ATTRIBUTES)
def test_a_list_of_attributes_that_is_none_is_a_violation(tmp_path: Path, form: str) -> None:
    with scanner_at(tmp_path, Oddities(attributes=est_peer.ATTRIBUTES[form].value)) as scanner:
        assert isinstance(refusal(scanner), ProtocolViolation)


@pytest.mark.parametrize("body", [name for name, form in est_peer.BODIES.items() if form.usable])
def test_the_list_may_be_wrapped_like_any_body(tmp_path: Path, body: str) -> None:
    odd = Oddities(body=est_peer.BODIES[body].value, attributes=est_peer.ATTRIBUTES["extensions"].value)
    with scanner_at(tmp_path, odd) as scanner:
        assert isinstance(ask(scanner), Generation)


@pytest.mark.parametrize("label", ["", "imaging"])
def test_the_list_may_be_there_under_one_label_only(
    tmp_path: Path, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    odd = Oddities(attributes=est_peer.ATTRIBUTES["an unknown attribute"].value, attributes_below="imaging")
    with scanner_at(tmp_path, odd, label, labels=("", "imaging")) as scanner:
        assert isinstance(ask(scanner), Generation)

    assert (est_peer.MAC_ADDRESS.dotted_string in caplog.text) == bool(label)  # ignored, and told


@pytest.mark.parametrize("example", [est_peer.MAC_ADDRESS_EXAMPLE, est_peer.TEMPLATE_BESIDE_THE_LINK])
def test_a_link_is_made_wherever_the_list_asks_for_it(tmp_path: Path, example: tuple[HTTPStatus, bytes]) -> None:
    """The example of RFC 7030 4.5.2, and the template of RFC 9908 beside the bare identifier of RFC 8951 4."""
    with scanner_at(tmp_path, Oddities(attributes=example), proof_of_possession=True) as scanner:
        assert isinstance(ask(scanner), Generation)


# --- waiting (RFC 7030 4.2.3)


@pytest.mark.parametrize("form", est_peer.RETRY_AFTER)
def test_the_server_says_when_to_ask_again_within_bounds(tmp_path: Path, form: str) -> None:
    value, at_least, at_most = est_peer.RETRY_AFTER[form]
    with scanner_at(tmp_path, Oddities(), approve_by_hand=True, retry_after=value()) as scanner:
        answer = ask(scanner)

    assert isinstance(answer, Pending)
    seconds = timedelta(seconds=5)  # as long as this may have taken
    assert at_least - seconds <= answer.until - scanner.clock.now() <= at_most


# --- answers that are none


@pytest.mark.parametrize("form", est_peer.ANSWERS)
def test_an_answer_that_is_none_is_told_and_changes_nothing(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer: Callable[[Any], Any] = est_peer.ANSWERS[form]
    with scanner_at(tmp_path, Oddities(answer=answer)) as scanner:
        error = refusal(scanner)

    assert len(str(error)) < 1000
    assert "PRIVATE KEY" not in caplog.text
    expected: type[EnrollmentError] | tuple[type[EnrollmentError], ...] = EnrollmentError
    if form in ("an error in plain text", "a connection cut before the answer"):
        expected = ServerUnreachable
    elif "key made by the server" in form or form in ("a redirect", "the page of a guest network"):
        expected = ProtocolViolation
    assert isinstance(error, expected)
