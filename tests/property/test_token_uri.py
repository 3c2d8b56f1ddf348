"""URIs of keys in tokens: what is written is read back, and nothing but a refusal comes of anything else."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from enroll.errors import KeyNotFound
from enroll.keystore.tokenuri import TokenUri

LABELS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]).filter(str.isprintable), min_size=1, max_size=40)
TOKENS = LABELS.filter(lambda label: len(label.encode()) <= 32)
IDENTIFIERS = st.binary(min_size=1, max_size=64)


@given(TOKENS, LABELS, st.one_of(st.none(), IDENTIFIERS))
def test_what_is_written_is_read_back(token: str, label: str, identifier: bytes | None) -> None:
    uri = TokenUri(token, label, identifier)

    assert TokenUri.parse(str(uri)) == uri


@given(st.one_of(st.text(), st.text("pkcs1:=;%?&tokenbjidyp03fF\n").map("pkcs11:token=t;id=".__add__)))
def test_any_text_is_a_uri_or_refused(text: str) -> None:
    with contextlib.suppress(KeyNotFound):
        assert TokenUri.parse(str(TokenUri.parse(text))) == TokenUri.parse(text)
