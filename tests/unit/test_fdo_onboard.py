"""Which server is asked when: the directives of RVInfo (FDO 1.1, 3.3.2, 3.7 and 5.4), followed over several runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from enroll.errors import CertificateRefused, EnrollmentError, KeyStoreUnavailable, ProtocolViolation, ServerUnreachable
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.fault import ErrorCode
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import ErrorMessage
from enroll.fdo.onboard import PATIENCE, NoOwnerYet, OwnerSearch
from enroll.fdo.owner_policy import ApprovalAwaited, OwnerRefused
from enroll.fdo.public_key import KeyType
from enroll.fdo.rendezvous import Directive, RendezvousProtocol, encode_rendezvous
from enroll.fdo.transport import ErrorReceived, Pins
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.scripted_owner import redirection
from tests.support.pki import new_key

OWNER = new_key()
HTTP, HTTPS = RendezvousProtocol.HTTP, RendezvousProtocol.HTTPS
OWNERS_URL = "http://owner.example:8080"
SHA256 = HashAlgorithm.SHA256
PIN = Hash.of(SHA256, b"certificate")


def unreachable(where: str = "it") -> ServerUnreachable:
    return ServerUnreachable(f"{where} does not answer.")


def said(code: int, where: str = "it") -> ErrorReceived:
    return ErrorReceived(ErrorMessage(code, 30, ""), where)


NOT_FOUND = said(ErrorCode.NOT_FOUND)


def to1d(addresses: Sequence[Any] | None = None) -> Sign1:
    return Sign1.read(cbor.read(redirection(OWNER, addresses)))


def credential(*directives: Directive, guid: bytes = b"g" * 16, rendezvous: cbor.Raw | None = None) -> DeviceCredential:
    return DeviceCredential(
        guid,
        rendezvous or encode_rendezvous(directives),
        "Example CT",
        Hash.of(SHA256, b"key"),
        KeyType.SECP256R1,
        None,
        "software:key",
        "software:secret",
        HashAlgorithm.HMAC_SHA256,
    )


@dataclass
class Network:
    """What each address does: raises, redirects, or takes the scanner over. What is not named here does not answer."""

    found: Mapping[str, EnrollmentError | Sign1] = field(default_factory=dict)
    owners: Mapping[str, EnrollmentError | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    pins: dict[str, Pins] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def connect(self, url: str, pins: Pins) -> Any:
        self.asked.append(url)
        self.pins[url] = pins
        return _Channel(url, self.closed)

    def find_owner(self, channel: Any, _: DeviceCredential) -> Sign1:
        self.meanwhile()
        found: Sign1 = _answered(self.found.get(channel.where, unreachable(channel.where)))
        return found

    def try_owner(self, channel: Any, credential: DeviceCredential, redirect: Sign1 | None) -> str:
        answer: str = _answered(self.owners.get(channel.where, unreachable(channel.where)))
        return f"{answer} {credential.guid.decode()} {'redirected' if redirect else 'bypassed'}"


@dataclass(frozen=True)
class _Channel:
    where: str
    closed: list[str]

    def close(self) -> None:
        self.closed.append(self.where)


def _answered(answer: Any) -> Any:
    if isinstance(answer, EnrollmentError):
        raise answer
    return answer


class Search:
    """A scanner that looks for its owner; each `run` is that of a new process."""

    def __init__(self, folder: Path, network: Network, jitter: float = 0.0) -> None:
        self.network = network
        self.clock = SteppedClock()
        self.jitter = jitter
        self.at_once = False
        self.record = folder / "fdo" / "attempt.json"

    def run(self, *credentials: DeviceCredential) -> str:
        self.network.asked.clear()
        network = self.network
        search = OwnerSearch(
            self.record.parent,
            StateFiles(),
            self.clock,
            network.connect,
            network.find_owner,
            lambda: self.jitter,
            self.at_once,
        )
        return search.run(credentials, network.try_owner)

    def waits(self, *credentials: DeviceCredential) -> NoOwnerYet:
        with pytest.raises(NoOwnerYet) as raised:
            self.run(*credentials)
        return raised.value

    def seconds(self, *credentials: DeviceCredential) -> float:
        """How long it wants to wait."""
        return (self.waits(*credentials).until - self.clock.now()).total_seconds()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def search(tmp_path: Path, network: Network) -> Search:
    return Search(tmp_path, network)


# --- one run: who is asked, in which order


def test_the_rendezvous_server_says_where_the_owner_is(search: Search, network: Network) -> None:
    network.found, network.owners = {"http://rv.example": to1d()}, {OWNERS_URL: "taken"}

    assert search.run(credential(Directive(("rv.example",), protocol=HTTP))) == f"taken {'g' * 16} redirected"
    assert network.asked == ["http://rv.example", OWNERS_URL]
    assert sorted(network.closed) == sorted(network.asked)
    assert not search.record.exists()


def test_directives_are_followed_in_their_order_and_the_name_before_the_number(
    search: Search, network: Network
) -> None:
    search.waits(
        credential(
            Directive(("first.example", "192.0.2.1"), 8080, HTTP),
            Directive(("second.example", "2001:db8::1"), 8443, HTTPS),
        )
    )

    assert network.asked == [
        "http://first.example:8080",
        "http://192.0.2.1:8080",
        "https://second.example:8443",
        "https://[2001:db8::1]:8443",
    ]


def test_without_a_port_it_is_that_of_the_protocol_and_without_a_protocol_https_comes_first(
    search: Search, network: Network
) -> None:
    search.waits(credential(Directive(("rv.example",)), Directive(("rv2.example",), 1234)))

    assert network.asked == [
        "https://rv.example",
        "http://rv.example",
        "https://rv2.example:1234",
        "http://rv2.example:1234",
    ]


def test_directives_for_owners_are_not_for_scanners(search: Search, network: Network) -> None:
    """RVOwnerOnly and RVDevOnly."""
    owners = [[1], [5, codec.write("owners.example")], [12, codec.write(1)]]
    devices = [[0], [5, codec.write("devices.example")], [12, codec.write(1)]]
    search.waits(credential(rendezvous=cbor.Raw(codec.write([owners, devices]))))

    assert network.asked == ["http://devices.example"]


def test_what_is_pinned_is_pinned_for_the_server_of_that_directive(search: Search, network: Network) -> None:
    network.found = {"https://pinned.example": to1d()}
    search.waits(credential(Directive(("pinned.example",), protocol=HTTPS, server_certificate=PIN, ca_certificate=PIN)))

    assert network.pins["https://pinned.example"] == Pins(PIN, PIN)
    assert network.pins[OWNERS_URL] == Pins()


def test_what_is_pinned_is_not_asked_without_tls(search: Search, network: Network) -> None:
    """Whoever blocks https would get round the pin; without one the messages prove themselves in either way."""
    search.waits(
        credential(
            Directive(("server.example",), server_certificate=PIN),
            Directive(("issuer.example",), 8080, ca_certificate=PIN, bypass=True),
        )
    )

    assert network.asked == ["https://server.example", "https://issuer.example:8080"]


def test_a_bypass_leads_to_the_owner_itself(search: Search, network: Network) -> None:
    network.owners = {"https://owner.example:8043": "taken"}
    directive = Directive(("owner.example",), 8043, HTTPS, bypass=True, server_certificate=PIN)

    assert search.run(credential(directive)) == f"taken {'g' * 16} bypassed"
    assert network.pins["https://owner.example:8043"] == Pins(PIN)
    assert network.closed == network.asked


def test_every_address_of_the_owner_is_tried(search: Search, network: Network) -> None:
    addresses = [
        [None, "a.example", 80, 1],  # TCP
        [bytes([192, 0, 2, 7]), "b.example", 8080, 3],
        [bytes(15) + b"\1", None, 8043, 5],
    ]
    network.found, network.owners = {"http://rv.example": to1d(addresses)}, {"https://[::1]:8043": "taken"}

    assert search.run(credential(Directive(("rv.example",), protocol=HTTP))).startswith("taken")
    assert network.asked[1:] == ["http://b.example:8080", "http://192.0.2.7:8080", "https://[::1]:8043"]


def test_a_rendezvous_server_that_names_no_address_is_passed_over(search: Search, network: Network) -> None:
    network.found = {"http://one.example": to1d([]), "http://two.example": to1d()}
    network.owners = {OWNERS_URL: "taken"}
    directives = [Directive((host,), protocol=HTTP) for host in ("one.example", "two.example")]

    assert search.run(credential(*directives)).startswith("taken")
    network.owners = {}
    with pytest.raises(ProtocolViolation, match="names no address"):
        search.run(credential(*directives))


@pytest.mark.parametrize(
    "error",
    [
        unreachable(),
        said(500),
        NOT_FOUND,
        ProtocolViolation("x"),
        OwnerRefused("An earlier owner."),
        ApprovalAwaited("x"),
    ],
    ids=["unreachable", "error", "not-found", "violation", "refused", "approval"],
)
def test_an_owner_that_cannot_be_used_keeps_nobody_from_the_next_one(
    search: Search, network: Network, error: EnrollmentError
) -> None:
    network.owners = {"http://bad.example": error, "http://good.example": "taken"}
    directives = [Directive((host,), protocol=HTTP, bypass=True) for host in ("bad.example", "good.example")]

    assert search.run(credential(*directives)).startswith("taken")


def test_the_right_owner_ends_the_search_whatever_it_comes_to(search: Search, network: Network) -> None:
    network.owners = {"http://one.example": CertificateRefused("x"), "http://two.example": "taken"}
    directives = [Directive((host,), protocol=HTTP, bypass=True) for host in ("one.example", "two.example")]

    with pytest.raises(CertificateRefused):
        search.run(credential(*directives))
    assert network.asked == network.closed == ["http://one.example"]


WAITS, BUYER = "http://waits.example", "http://buyer.example"


@pytest.mark.parametrize("error", [unreachable(), said(500), OwnerRefused("x")], ids=["away", "error", "refused"])
def test_where_an_owner_waits_for_approval_and_no_other_one_can_be_used_that_is_said(
    search: Search, network: Network, error: EnrollmentError
) -> None:
    network.owners = {WAITS: ApprovalAwaited("x"), BUYER: error}
    one = credential(*(Directive((host,), protocol=HTTP, bypass=True) for host in ("waits.example", "buyer.example")))

    for _ in range(2):  # once it is approved nobody is to wait
        with pytest.raises(ApprovalAwaited):
            search.run(one)
        assert network.asked == [WAITS, BUYER]


def test_a_directive_of_an_owner_that_waits_for_approval_delays_nobody_else(search: Search, network: Network) -> None:
    """Who had the scanner before would hold up the next one otherwise, by its answer."""
    network.owners = {WAITS: ApprovalAwaited("x"), BUYER: "taken"}
    seller = Directive(("waits.example",), protocol=HTTP, bypass=True, delay=86400)

    assert search.run(credential(seller, Directive(("buyer.example",), protocol=HTTP, bypass=True))).startswith("taken")


def test_a_run_that_is_too_long_goes_on_at_its_place_also_where_an_owner_waits(
    search: Search, network: Network
) -> None:
    network.owners, network.found = {OWNERS_URL: ApprovalAwaited("x")}, {"http://rv0.example": to1d()}
    network.meanwhile = lambda: search.pass_time(PATIENCE / 2 + 1)
    one = credential(*(Directive((f"rv{number}.example",), protocol=HTTP) for number in range(4)))

    with pytest.raises(ApprovalAwaited):
        search.run(one)
    search.waits(one)
    assert network.asked == ["http://rv2.example", "http://rv3.example"]


def test_a_token_that_is_away_is_not_the_fault_of_a_server(search: Search, network: Network) -> None:
    def fails() -> None:
        raise KeyStoreUnavailable("No token.")

    network.meanwhile = fails
    with pytest.raises(KeyStoreUnavailable):
        search.run(credential(Directive(("rv.example",))))
    assert network.closed == network.asked


# --- several runs: delays


def test_after_the_last_directive_it_begins_anew_after_two_minutes(search: Search, network: Network) -> None:
    one = credential(Directive(("rv.example",), protocol=HTTP))

    assert search.seconds(one) == 120
    search.pass_time(119)
    assert search.seconds(one) == 1
    assert network.asked == []
    search.pass_time(1)
    assert search.seconds(one) == 120
    assert network.asked == ["http://rv.example"]


@pytest.mark.parametrize(("jitter", "expected"), [(-1, 45), (0, 60), (0.5, 67.5), (1, 75)])
def test_a_delay_is_a_quarter_longer_or_shorter(
    tmp_path: Path, network: Network, jitter: float, expected: float
) -> None:
    search = Search(tmp_path, network, jitter)

    assert search.seconds(credential(Directive(("rv.example",), delay=60))) == expected


def test_a_delay_between_directives_lets_the_next_run_go_on_with_the_next_one(search: Search, network: Network) -> None:
    one = credential(Directive(("a.example",), protocol=HTTP, delay=30), Directive(("b.example",), protocol=HTTP))

    assert search.seconds(one) == 30
    assert network.asked == ["http://a.example"]
    search.pass_time(30)
    assert search.seconds(one) == 120
    assert network.asked == ["http://b.example"]
    search.pass_time(120)
    search.waits(one)
    assert network.asked == ["http://a.example"]


def test_whoever_asks_at_once_goes_on_with_the_next_directive_too(search: Search, network: Network) -> None:
    """Otherwise a person who tries again and again would ask the first server and nobody else."""
    one = credential(Directive(("a.example",), protocol=HTTP, delay=30), Directive(("b.example",), protocol=HTTP))
    search.waits(one)

    search.waits(one)
    assert network.asked == []
    search.at_once = True
    search.waits(one)
    assert network.asked == ["http://b.example"]


def test_a_directive_may_be_a_delay_and_nothing_else(search: Search, network: Network) -> None:
    one = credential(Directive((), delay=3600), Directive(("rv.example",), protocol=HTTP))

    assert search.seconds(one) == 3600
    assert network.asked == []
    search.pass_time(3600)
    search.waits(one)
    assert network.asked == ["http://rv.example"]


def test_no_delay_is_longer_than_a_day(search: Search) -> None:
    assert search.seconds(credential(Directive(("rv.example",), delay=2**40))) == 24 * 60 * 60


def test_a_voucher_without_a_directive_for_scanners_waits_like_any_other(search: Search, network: Network) -> None:
    assert search.seconds(credential()) == 120
    assert network.asked == []


def test_one_run_has_an_end_and_the_next_one_goes_on(search: Search, network: Network) -> None:
    """A server that lets each exchange wait to its limit must not hold up everything."""
    hosts = [f"rv{number}.example" for number in range(4)]
    network.meanwhile = lambda: search.pass_time(PATIENCE / 2 + 1)
    one = credential(*(Directive((host,), protocol=HTTP) for host in hosts))

    assert search.seconds(one) == 0
    assert network.asked == ["http://rv0.example", "http://rv1.example"]
    search.waits(one)
    assert network.asked == ["http://rv2.example", "http://rv3.example"]


# --- what is kept between runs


def test_a_clock_that_was_set_back_keeps_nobody_waiting(search: Search, network: Network) -> None:
    one = credential(Directive(("rv.example",), protocol=HTTP))
    search.waits(one)
    search.pass_time(-10 * 24 * 60 * 60)
    search.waits(one)

    assert network.asked == ["http://rv.example"]


def test_what_was_kept_of_another_credential_counts_for_nothing(search: Search, network: Network) -> None:
    old = credential(Directive(("old.example",), delay=3600), Directive(("old2.example",)))
    search.waits(old)
    search.waits(credential(Directive(("new.example",), protocol=HTTP), guid=b"n" * 16))

    assert network.asked == ["http://new.example"]


def test_a_place_that_there_is_not_any_more_is_the_beginning(search: Search, network: Network) -> None:
    directives = [Directive((f"rv{number}.example",), protocol=HTTP, delay=9) for number in range(3)]
    for _ in range(2):
        search.waits(credential(*directives))
        search.pass_time(9)
    search.waits(credential(*directives[:1]))

    assert network.asked == ["http://rv0.example"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"place": "0"}', '{"devices": 1}', "\x00" * 100_000])
def test_a_damaged_record_costs_nothing_but_the_wait(search: Search, network: Network, content: str) -> None:
    one = credential(Directive(("rv.example",), protocol=HTTP))
    search.waits(one)
    search.record.write_text(content)
    search.waits(one)

    assert network.asked == ["http://rv.example"]


@pytest.mark.parametrize("place", ["-1", "1e3", "9" * 50, "", "x", "¹"])
def test_a_place_that_is_no_number_is_the_beginning(search: Search, network: Network, place: str) -> None:
    one = credential(Directive(("rv.example",), protocol=HTTP))
    search.waits(one)
    text = search.record.read_text()
    search.record.write_text(text.replace('"place": "0"', f'"place": "{place}"'))
    search.waits(one)

    assert network.asked == ["http://rv.example"]


# --- two credentials, of which the owner knows one


def test_both_credentials_are_tried_the_more_probable_one_first(search: Search, network: Network) -> None:
    pending = credential(Directive(("next.example",), protocol=HTTP), guid=b"p" * 16)
    current = credential(Directive(("rv.example",), protocol=HTTP))
    network.found, network.owners = {"http://rv.example": to1d()}, {OWNERS_URL: "taken"}

    assert search.run(pending, current) == f"taken {'g' * 16} redirected"
    assert network.asked == ["http://next.example", "http://rv.example", OWNERS_URL]


def test_the_last_delay_of_one_credential_does_not_hold_up_the_other(search: Search, network: Network) -> None:
    pending = credential(Directive(("next.example",), protocol=HTTP, delay=3600), guid=b"p" * 16)
    current = credential(Directive(("rv.example",), protocol=HTTP, delay=60))

    assert search.seconds(pending, current) == 60
    assert network.asked == ["http://next.example", "http://rv.example"]


@pytest.mark.parametrize(
    ("answers", "unknown"),
    [
        ((NOT_FOUND, NOT_FOUND), True),
        ((unreachable(), NOT_FOUND), True),
        ((NOT_FOUND, unreachable()), True),
        ((unreachable(), unreachable()), False),
    ],
)
@pytest.mark.parametrize("delay", [None, 30])
def test_a_device_is_unknown_when_everybody_who_answers_says_so(
    search: Search, network: Network, answers: Sequence[EnrollmentError], delay: int | None, *, unknown: bool
) -> None:
    """Also where the two are asked in two runs."""
    network.found = dict(zip(("http://a.example", "http://b.example"), answers, strict=True))
    one = credential(Directive(("a.example",), protocol=HTTP, delay=delay), Directive(("b.example",), protocol=HTTP))
    error = search.waits(one)
    if delay:
        assert not error.unknown
        search.pass_time(delay)
        error = search.waits(one)

    assert error.unknown is unknown
    assert not search.waits(one).unknown  # nobody was asked


def test_whoever_says_something_else_is_an_error_that_is_told(search: Search, network: Network) -> None:
    network.found = {"http://a.example": said(500, "http://a.example"), "http://b.example": NOT_FOUND}
    one = credential(Directive(("a.example",), protocol=HTTP), Directive(("b.example",), protocol=HTTP))

    with pytest.raises(ErrorReceived, match="500"):
        search.run(one)
    assert "500" in search.waits(one).what
