"""Files that hold a PIN or a passphrase."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enroll.errors import KeyStoreUnavailable
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles

OPTION = "[keystore.pkcs11] pin_file"
SECRET = b"4711"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.touch(0o600)
    return path


def read(path: Path | None) -> bytes:
    return read_secret(path, OPTION, StateFiles())


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"4711", b"4711"),
        (b"4711\n", b"4711"),
        (b"4711\r\n", b"4711"),
        (b"4711\n\n", b"4711\n"),
        (b" 47 11 \n", b" 47 11 "),
        (b"x" * 1023 + b"\n", b"x" * 1023),
    ],
)
def test_one_line_end_is_not_part_of_the_secret(path: Path, content: bytes, secret: bytes) -> None:
    path.write_bytes(content)

    assert read(path) == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"x" * 1024, b"x" * 5000])
def test_empty_and_endless_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(KeyStoreUnavailable, match="pin") as caught:
        read(path)
    assert caught.value.remedy


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o601])
def test_a_file_that_everybody_can_open_is_refused(path: Path, mode: int) -> None:
    path.write_bytes(SECRET)
    path.chmod(mode)

    with pytest.raises(KeyStoreUnavailable, match="Every local user") as caught:
        read(path)
    assert "chmod o=" in caught.value.remedy
    assert SECRET.decode() not in str(caught.value)


def test_group_permission_is_what_systemd_credentials_show(path: Path) -> None:
    path.write_bytes(SECRET)
    path.chmod(0o440)

    assert read(path) == SECRET


def test_an_option_that_is_not_set_is_named() -> None:
    with pytest.raises(KeyStoreUnavailable, match="pin_file is not set"):
        read(None)


def test_the_file_may_be_named_by_a_link(path: Path) -> None:
    path.write_bytes(SECRET)
    link = path.with_name("link")
    link.symlink_to(path)

    assert read(link) == SECRET
    path.chmod(0o604)
    with pytest.raises(KeyStoreUnavailable, match="Every local user"):
        read(link)


def test_only_a_regular_file_is_read(path: Path) -> None:
    missing, link, pipe = (path.with_name(name) for name in ("missing", "link", "pipe"))
    link.symlink_to(pipe)
    os.mkfifo(pipe)

    for wrong in (missing, link, pipe, path.parent):
        with pytest.raises(KeyStoreUnavailable) as caught:
            read(wrong)
        assert str(wrong) in caught.value.what
        assert OPTION in caught.value.remedy
