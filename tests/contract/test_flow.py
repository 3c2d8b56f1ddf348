"""What `issue` may rely on, whatever the way to a certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import enroll.flows
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage
from enroll.errors import ServerUnreachable
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.base import Enrollment, Flow, Issued, Refused
from enroll.flows.settings import EstSettings
from enroll.identity import IdentityName
from enroll.trust import check_issued
from tests.support.enrolling import Scanner, settings
from tests.support.pki import DEVICE, new_key

WEAK_KEY = ec.generate_private_key(ec.SECP224R1())  # no CA certifies it
REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)


@dataclass(frozen=True)
class Served:
    """A flow and its server."""

    flow: Flow
    ca: EvaluationCa
    stop: Callable[[], None]


def est(tmp_path: Path) -> Iterator[Served]:
    clock = SystemClock()
    ca = EvaluationCa.create_or_open(tmp_path / "ca", clock)
    with EstServer(ca) as server:
        configured = EstSettings(url=server.url, username=USERNAME, password_file=ca.password_file, timeout=5)
        scanner = Scanner(settings(tmp_path, configured), (ca.certificate,), clock)
        with scanner.connect(IdentityName.DEVICE) as flow:
            yield Served(flow, ca, server.stop)


FLOWS = {"est": est}


@pytest.fixture(params=FLOWS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    yield from FLOWS[request.param](tmp_path)


def test_the_certificate_asked_for_is_among_what_is_issued(served: Served) -> None:
    key, clock = new_key(), SystemClock()

    answer = served.flow.enroll(Enrollment(key, REQUEST))

    assert isinstance(answer, Issued)
    check_issued(
        answer.certificates,
        served.flow.anchors_and_intermediates(),
        [served.ca.certificate],
        public_key=key.public_key(),
        request=REQUEST,
        now=clock.now(),
    )


def test_a_refusal_is_an_answer(served: Served) -> None:
    answer = served.flow.enroll(Enrollment(WEAK_KEY, REQUEST))

    assert isinstance(answer, Refused)
    assert answer.reason
    assert answer.who_must_act


def test_a_server_that_is_gone_is_an_error(served: Served) -> None:
    served.stop()

    with pytest.raises(ServerUnreachable):
        served.flow.enroll(Enrollment(new_key(), REQUEST))


def test_its_name_is_that_of_its_module(served: Served) -> None:
    (folder,) = enroll.flows.__path__

    assert Path(folder, f"{served.flow.name}.py").is_file()
