"""From the text of a policy to its model. Pure; `load.py` reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, timezone

from agent.dicom.report import ContentClass
from agent.policy.algorithms import BUILT_IN_RULES, KNOWN_NAMES
from agent.policy.consistency import check_anchors, check_entries
from agent.policy.model import (
    SCHEMA,
    AlgorithmRule,
    AlgorithmStatus,
    AlgorithmUse,
    Anchor,
    AnchorKind,
    Compromise,
    CompromiseKind,
    Entry,
    Expect,
    ExpectedSigner,
    Identifies,
    Layer,
    Match,
    MatchKey,
    Migration,
    Named,
    Period,
    Policy,
)
from agent.policy.table import Table, nearest
from agent.policy.toml_source import KeyPath, read_toml
from agent.policy.verdicts import NEVER_RELAXED, Action, Mode, Verdict, default_action

_LONGEST_GRACE = 3650  # days

_ENTRY_KEYS = ("id", "match", "expect", "from", "until", "grace_days", "mode", "reason", "on", "floor")
KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("schema", "policy", "anchor", "device", "rule", "algorithm", "compromise", "migration"),
    "policy": (
        *("id", "layer", "issuer", "serial", "issued", "expires"),
        *("mode", "no_match", "timezone", "report_to"),
    ),
    "anchor": ("id", "kind", "identifies", "sha256", "policy_oids"),
    "device": (*_ENTRY_KEYS, "signer"),
    "rule": _ENTRY_KEYS,
    "algorithm": ("use", "names", "sign_until", "verify", "proof_before"),
    "compromise": ("id", "key_sha256", "cert_sha256", "since", "kind"),
    "migration": ("id", "match", "received", "treat_as"),
    "match": tuple(MatchKey),
    "signer": ("anchor", "serial_number", "require"),
    "on": tuple(Verdict),
    "received": ("from", "until"),
}

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_ID_FORM = "1 to 64 letters, digits, dots, hyphens and underscores"
_SHA256 = r"[0-9a-f]{64}"
_SHA256_FORM = "64 digits 0-9 and a-f in quotes"
_OID = r"[0-2](\.(0|[1-9][0-9]{0,17})){1,30}"
_UID_FORM = (r"[0-9.]{1,64}", 'a UID, a text of digits and dots such as "1.2.840.10008.5.1.4.1.1.2"')
_ONE_VALUE = (r"[^\s\\]([^\\]*[^\s\\])?", "a text of one value, without a backslash")
# What an instance can have there; another value would never match.
_MATCH_FORMS = {
    MatchKey.DEVICE_UID: _UID_FORM,
    MatchKey.SOP_CLASS: _UID_FORM,
    MatchKey.MODALITY: _ONE_VALUE,
    MatchKey.SOFTWARE_VERSION: _ONE_VALUE,
}
_OFFSET = r"[+-](0[0-9]|1[0-4]):[0-5][0-9]"


def parse_policy(text: str, name: str) -> Policy:
    """Read a policy of one layer, in the format dicom-signing-policy/1.

    Args:
        text: The whole file.
        name: Of the file, for messages.

    Raises:
        PolicyError: It is not what the format allows, or contradicts itself. The message names the line.
    """
    values, source = read_toml(text, name)
    root = Table(values, (), source, KEYS[""])
    if (schema := root.text("schema")) != SCHEMA:
        raise root.error(f"the schema is {schema!r}.", f'Write schema = "{SCHEMA}".', "schema", "unknown-schema")
    head = root.table("policy", KEYS["policy"])
    _check_layer(head)
    mode = head.choice("mode", Mode, Mode.REPORT)
    anchors = tuple(_anchor(table) for table in root.tables("anchor", KEYS["anchor"]))
    entries = tuple(
        _entry(table, mode, anchors, is_device=kind == "device")
        for kind in ("device", "rule")
        for table in root.tables(kind, KEYS[kind])
    )
    places = _places(root)
    check_anchors(anchors, places, source)
    check_entries(entries, places, source)
    return _policy(head, mode, root, anchors, entries)


def _check_layer(head: Table) -> None:
    """Refuse what this version of the program does not read yet."""
    if (layer := head.choice("layer", Layer)) is not Layer.LOCAL:
        what = f"the layer is {layer.value!r}, and only local files are read yet."
        raise head.error(what, 'Write layer = "local" for the rules of this recipient.', "layer", "layer-not-local")


def _places(root: Table) -> dict[str, KeyPath]:
    """Where each id stands. They are unique in the whole file, so that a judgement can name entries by id alone."""
    places: dict[str, KeyPath] = {}
    for name in ("anchor", "device", "rule", "compromise", "migration"):
        for table in root.tables(name, KEYS[name]):
            entry = table.text("id", _ID, _ID_FORM)
            if entry in places:
                raise table.error(
                    f"the id {entry!r} is taken already.", "Give each entry its own.", "id", "duplicate-id"
                )
            places[entry] = table.path
    return places


def _policy(head: Table, mode: Mode, root: Table, anchors: tuple[Anchor, ...], entries: tuple[Entry, ...]) -> Policy:
    issued, expires = head.moment("issued"), head.moment("expires")
    if expires <= issued:
        raise head.error("the policy expires before it is issued.", "Correct issued or expires.", "expires")
    return Policy(
        id=head.text("id", _ID, _ID_FORM),
        layer=Layer.LOCAL,
        issuer=head.text("issuer"),
        serial=head.number("serial"),
        issued=issued,
        expires=expires,
        mode=mode,
        no_match=head.choice("no_match", Mode, Mode.REPORT),
        timezone=_timezone(head),
        report_to=head.texts("report_to", at_least=0),
        anchors=anchors,
        entries=entries,
        algorithms=_algorithms(root),
        compromises=tuple(_compromise(table) for table in root.tables("compromise", KEYS["compromise"])),
        migrations=tuple(_migration(table) for table in root.tables("migration", KEYS["migration"])),
    )


def _timezone(head: Table) -> timezone:
    text = head.text("timezone", _OFFSET, 'an offset from UTC in quotes, such as "+01:00"', default="+00:00")
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:]))
    return timezone(-offset if text.startswith("-") else offset)


def _anchor(table: Table) -> Anchor:
    kind = table.choice("kind", AnchorKind)
    identifies = None
    if kind is not AnchorKind.TIME_STAMP_AUTHORITY or "identifies" in table:
        identifies = table.choice("identifies", Identifies)
    if kind is AnchorKind.VENDOR_WIDE and identifies is not Identifies.VENDOR:
        what = f"a vendor-wide key cannot identify a {identifies}."
        raise table.error(what, 'Write identifies = "vendor", or another kind.', "identifies")
    return Anchor(
        id=table.text("id", _ID, _ID_FORM),
        kind=kind,
        identifies=identifies,
        sha256=table.text("sha256", _SHA256, _SHA256_FORM),
        policy_oids=table.texts("policy_oids", _OID, "object identifiers in quotes", at_least=0),
    )


def _entry(table: Table, mode: Mode, anchors: tuple[Anchor, ...], *, is_device: bool) -> Entry:
    if "floor" in table:
        remedy = "Remove it: only regional and national policies set floors, the local one is the lowest."
        raise table.error("there is a floor in a local policy.", remedy, "floor", "floor-in-local-layer")
    if is_device and "match" not in table:
        raise table.error("the device has no match.", "Say by what its instances are known.", code="missing-key")
    entry = Entry(
        id=table.text("id", _ID, _ID_FORM),
        is_device=is_device,
        match=_match(table.table("match", KEYS["match"])),
        expect=table.choice("expect", Expect),
        period=_period(table),
        grace_days=table.number("grace_days", 0, at_most=_LONGEST_GRACE),
        mode=table.choice("mode", Mode, mode),
        reason=table.text("reason", default=""),
        on=_actions(table.table("on", KEYS["on"])),
        signer=_signer(table.table("signer", KEYS["signer"]), anchors) if is_device else ExpectedSigner(),
    )
    _check_expectation(entry, table)
    return entry


def _check_expectation(entry: Entry, table: Table) -> None:
    if entry.grace_days and entry.period.first is None:
        raise table.error("the days of grace have no beginning.", "Add from.", "grace_days")
    if entry.expect is not Expect.UNSIGNED:
        return
    for key, missing in (("until", entry.period.last is None), ("reason", not entry.reason)):
        if missing:
            what = f"the exemption {entry.id!r} has no {key}."
            raise table.error(what, "Say until when and why no signature is expected.", code="exemption-unbounded")


def _match(table: Table) -> Match:
    values = []
    for key in MatchKey:
        if key in table:
            found = table.choices(key, ContentClass) if key is MatchKey.CONTENT else _texts(key, table)
            values.append((key, frozenset(map(str, found))))
    match = Match(tuple(values))
    if MatchKey.SERIAL in match.keys and not {MatchKey.MANUFACTURER, MatchKey.DEVICE_UID, MatchKey.UDI} & {*match.keys}:
        what = "a serial number alone names no device: two manufacturers may use the same."
        raise table.error(what, "Add manufacturer, or device_uid or udi.", "serial", "serial-without-manufacturer")
    return match


def _texts(key: MatchKey, table: Table) -> tuple[str, ...]:
    """The values of a key of `match`, in the form in which an instance is compared with them."""
    found = table.texts(key, *_MATCH_FORMS.get(key, ()))
    for value in found:
        if key is MatchKey.MODALITY and value != value.upper():
            raise table.error(
                f"{key} is {value!r}, not in capitals.", f"Did you mean {value.upper()}?", key, "unknown-value"
            )
    return found


def _period(table: Table) -> Period:
    period = Period(table.day("from"), table.day("until"))
    if period.first and period.last and period.last < period.first:
        raise table.error("until lies before from.", "Correct one of them; both days are included.", "until")
    return period


def _actions(table: Table) -> dict[Verdict, Action]:
    actions = {Verdict(key): table.choice(key, Action) for key in table}
    for verdict in NEVER_RELAXED & actions.keys():
        if actions[verdict].strictness < default_action(verdict, Mode.ENFORCE).strictness:
            what = f"{verdict} cannot be relaxed to {actions[verdict]}."
            raise table.error(what, "Remove it, or write quarantine or refuse.", verdict, "verdict-relaxed")
    return actions


def _signer(table: Table, anchors: tuple[Anchor, ...]) -> ExpectedSigner:
    named = table.texts("anchor", _ID, _ID_FORM, at_least=0)
    known = [anchor.id for anchor in anchors if anchor.kind is not AnchorKind.TIME_STAMP_AUTHORITY]
    for name in named:
        if name not in known:
            what = f"there is no [[anchor]] {name!r} that signs for devices."
            raise table.error(what, nearest(name, known) if known else "Add it.", "anchor", "unknown-anchor")
    return ExpectedSigner(
        anchors=frozenset(named),
        serial_number=table.text("serial_number", default=""),
        require=frozenset(table.choices("require", Named, at_least=0)),
    )


def _algorithms(root: Table) -> tuple[AlgorithmRule, ...]:
    rules: list[AlgorithmRule] = []
    for table in root.tables("algorithm", KEYS["algorithm"]):
        rule = _algorithm(table)
        for other in rules:
            if other.use is rule.use and other.names & rule.names:
                what = f"there is an entry for {min(other.names & rule.names)} already."
                raise table.error(what, "Keep one of them.", "names", "duplicate-algorithm")
        rules.append(rule)
    spoken_of = {rule.use for rule in rules}
    return (*rules, *(rule for rule in BUILT_IN_RULES if rule.use not in spoken_of))


def _algorithm(table: Table) -> AlgorithmRule:
    use = table.choice("use", AlgorithmUse)
    names = table.texts("names")
    for name in names:
        if name not in KNOWN_NAMES[use]:
            raise table.error(
                f"there is no algorithm {name!r}.", nearest(name, KNOWN_NAMES[use]), "names", "unknown-value"
            )
    rule = AlgorithmRule(
        use=use,
        names=frozenset(names),
        status=table.choice("verify", AlgorithmStatus),
        sign_until=table.day("sign_until"),
        proof_before=table.day("proof_before"),
    )
    if rule.status is AlgorithmStatus.ANTIQUE and rule.proof_before is None:
        what = "an antique algorithm has no proof_before."
        raise table.error(what, "Say before which day it proved something, or write forbidden.", code="missing-key")
    return rule


def _compromise(table: Table) -> Compromise:
    if ("key_sha256" in table) == ("cert_sha256" in table):
        what = "a compromise names a key or a certificate, one of them."
        raise table.error(what, "Write key_sha256 or cert_sha256.", code="missing-key")
    return Compromise(
        id=table.text("id", _ID, _ID_FORM),
        kind=table.choice("kind", CompromiseKind),
        since=table.moment("since"),
        key_sha256=table.text("key_sha256", _SHA256, _SHA256_FORM, default=""),
        cert_sha256=table.text("cert_sha256", _SHA256, _SHA256_FORM, default=""),
    )


def _migration(table: Table) -> Migration:
    table.text("treat_as", "history", 'the word "history"')
    match = _match(table.table("match", KEYS["match"]))
    received = _period(table.table("received", KEYS["received"]))
    if MatchKey.SENDING_AE not in match.keys or received.first is None or received.last is None:
        what = "a migration has no source or no window."
        raise table.error(what, "Add match.sending_ae, received.from and received.until.", code="migration-unbounded")
    return Migration(id=table.text("id", _ID, _ID_FORM), match=match, received=received)
