"""The demonstration without what only it needs."""

from __future__ import annotations

import sys

import pytest

from agent.cli import exits
from agent.cli.demo import DemoNotInstalled, sample


def test_without_pydicom_the_demonstration_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.data", None)

    with pytest.raises(DemoNotInstalled) as error:
        sample("CT_small.dcm")
    assert "scripts/demo" in error.value.remedy
    assert exits.exit_code(error.value) == exits.CONFIGURATION


def test_a_sample_that_is_not_there_names_the_extra() -> None:
    with pytest.raises(DemoNotInstalled, match=r"no-such-sample\.dcm") as error:
        sample("no-such-sample.dcm")
    assert "'.[demo]'" in error.value.remedy
