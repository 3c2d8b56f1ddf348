"""The committed tables are what their generators make; nobody edits them by hand."""

from __future__ import annotations

from scripts.make_dictionary import DICTIONARY, dictionary


def test_the_dictionary_is_that_of_the_installed_pydicom() -> None:
    assert DICTIONARY.read_text("ascii") == dictionary()
