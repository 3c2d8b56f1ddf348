"""docs/keys.md, typed as it stands: into a folder instead of the machine, and without a systemd that runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agent import config
from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles
from tests.support.agent_process import wait_until
from tests.support.other_user import NOBODY
from tests.support.swtpm import running_swtpm

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "keys.md").read_text("utf-8")
SECRETS = {"token-pin", "hsm-pin", "tpm-authorization", "key-passphrase"}
HOST_KEY = Path("/var/lib/systemd/credential.secret")
SIZES = {"scanseal.service": 1.0, "scanseal-renew.service": 1.5}

# What needs a real machine only says that it was called. systemd is played as far as the page relies on it.
PRELUDE = """
set -euo pipefail
umask 022
apt-get() { echo apt-get "$@"; }
chown() { echo chown "$@"; }
scanseal() { echo scanseal "$@"; }
usermod() { echo usermod "$@"; }
runuser() {
    shift 3
    if [ "$1" = env ]; then setpriv --reuid "$nobody" --regid "$nobody" --clear-groups "$@"; else "$@"; fi
}
systemctl() {
    [ "$*" = "start scanseal-secrets" ] || return 0
    unit=$root/etc/systemd/system/scanseal-secrets.service
    export CREDENTIALS_DIRECTORY=$root/credentials RUNTIME_DIRECTORY=$root/run/scanseal-secrets
    mkdir -p "$CREDENTIALS_DIRECTORY" "$RUNTIME_DIRECTORY"
    sed -n 's/^LoadCredentialEncrypted=//p' "$unit" | while IFS=: read -r name file; do
        systemd-creds decrypt --name="$name" "$file" "$CREDENTIALS_DIRECTORY/$name"
    done
    chmod 0400 "$CREDENTIALS_DIRECTORY"/*
    eval "$(sed -n 's/^ExecStart=//p' "$unit")"
}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def in_folder(text: str, root: Path) -> str:
    """The same with every path of the machine that is written to below `root`; none may be left."""
    return re.sub(r"(?<![\w.])/(?=(?:etc|opt|var|run)/)", f"{root}/", text)


@pytest.fixture(scope="module")
def followed(softhsm_library: Path) -> Iterator[Path]:
    """The folder after all commands of the page."""
    for tool in ("systemd-creds", "systemd-analyze", "softhsm2-util", "p11-kit", "openssl", "pkcs11-tool"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install systemd softhsm2 p11-kit openssl opensc")
    if not Path("/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so").exists():
        pytest.skip("no libtpm2_pkcs11.so for amd64: apt-get install libtpm2-pkcs11-1")
    if os.geteuid() != 0:
        pytest.skip("p11-kit is asked as another user: run the tests as root")
    before = HOST_KEY.exists()
    # Not pytest's own folder: the other user has to get there.
    with tempfile.TemporaryDirectory(prefix="scanseal-guide-") as folder, running_swtpm(Path(folder, "tpm")) as tpm:
        root = Path(folder)
        root.chmod(0o755)
        (root / "etc/systemd/system").mkdir(parents=True)
        (root / "etc/scanseal").mkdir()
        (root / "var/lib/scanseal").mkdir(parents=True)
        (root / "opt/scanseal/bin").mkdir(parents=True)
        (root / "opt/scanseal/bin/pip").symlink_to("/bin/true")
        (root / "tokens").mkdir()
        (root / "softhsm2.conf").write_text(f"directories.tokendir = {root}/tokens\nobjectstore.backend = file\n")
        environment = {
            **os.environ,
            "root": folder,
            "nobody": str(NOBODY),
            "module": str(softhsm_library),
            "SOFTHSM2_CONF": f"{folder}/softhsm2.conf",
            "SYSTEMD_CREDENTIAL_SECRET": f"{folder}/host.secret",
            "TPM2_PKCS11_TCTI": tpm.tcti,
        }
        printed = []
        for block in blocks("sh"):
            command = ["bash", "-c", PRELUDE + in_folder(block, root)]
            ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, block + ran.stderr
            printed.append(ran.stdout)
        (root / "printed").write_text("".join(printed), "utf-8")
        yield root
    assert HOST_KEY.exists() == before


@pytest.fixture(scope="module")
def softhsm_library() -> Path:
    library = next(Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"), None)
    if library is None:
        pytest.skip("no libsofthsm2.so: apt-get install softhsm2")
    return library


def test_every_command_can_be_parsed() -> None:
    subprocess.run(["bash", "-n"], input="\n".join(blocks("sh")), text=True, check=True)


def test_secrets_lie_encrypted_on_the_disk_and_readable_in_memory(followed: Path) -> None:
    for name in SECRETS:
        encrypted = followed / f"etc/credstore.encrypted/scanseal.{name}"
        decrypted = followed / f"run/scanseal-secrets/{name}"
        secret = read_secret(decrypted, name, StateFiles())
        assert len(secret) == 32
        assert secret not in encrypted.read_bytes()
        assert stat.S_IMODE(decrypted.stat().st_mode) == 0o400


def test_a_secret_is_opened_under_its_own_name_only(followed: Path) -> None:
    command = ["systemd-creds", "decrypt", "--name=token-pin"]
    command += [str(followed / "etc/credstore.encrypted/scanseal.key-passphrase"), "-"]
    environment = {**os.environ, "SYSTEMD_CREDENTIAL_SECRET": str(followed / "host.secret")}
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)

    assert ran.returncode != 0
    assert b"does not match" in ran.stderr


def test_p11_kit_loads_the_one_library_that_is_registered(followed: Path, softhsm_library: Path) -> None:
    printed = (followed / "printed").read_text("utf-8")

    assert str(softhsm_library) in printed
    assert set(re.findall(r"\S+\.so", printed)) == {str(softhsm_library)}


def test_the_token_in_the_tpm_is_set_up_and_opens_with_its_pin(followed: Path) -> None:
    database = followed / "var/lib/scanseal/tpm2-pkcs11"

    assert stat.S_IMODE(database.stat().st_mode) == 0o700
    assert "User PIN successfully initialized" in (followed / "printed").read_text("utf-8")


def test_the_token_of_softhsm_lies_where_the_units_may_write_and_they_find_it(followed: Path) -> None:
    """systemd/*.service: ProtectSystem=strict, ReadWritePaths=/var/lib/scanseal."""
    tokens = followed / "var/lib/scanseal/softhsm"
    variables = (followed / "etc/scanseal/token.env").read_text("utf-8").splitlines()

    assert any(tokens.iterdir())
    assert f"SOFTHSM2_CONF={followed}/etc/scanseal/softhsm2.conf" in variables
    for name in SIZES:
        dropped = followed / "etc/systemd/system" / f"{name}.d/token.conf"
        assert f"EnvironmentFile={followed}/etc/scanseal/token.env" in dropped.read_text("utf-8")


def test_every_loop_makes_the_folder_of_its_drop_ins() -> None:
    """Sections are read alone: none relies on the folder that another one makes."""
    loops = re.findall(r"for unit in .*; do\n(.*)", "\n".join(blocks("sh")))

    assert set(loops) == {'    install -d "/etc/systemd/system/$unit.service.d"'}


def test_the_units_are_what_systemd_understands(followed: Path) -> None:
    for name, text in units(followed).items():
        (followed / "units" / name).write_text(text, "utf-8")
    shutil.copytree(followed / "etc/systemd/system", followed / "units", dirs_exist_ok=True)
    command = [
        "systemd-analyze",
        "verify",
        "--recursive-errors=no",
        *(str(followed / "units" / name) for name in SIZES),
    ]
    command += [str(followed / "units/scanseal-secrets.service"), str(followed / "units/scanseal-hsm.service")]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{followed}/units:"}
    verified = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("name", SIZES)
def test_the_service_is_exposed_to_little_with_a_tpm_as_well(followed: Path, name: str) -> None:
    dropped = followed / "etc/systemd/system" / f"{name}.d/tpm.conf"
    unit = followed / f"with-tpm-{name}"
    unit.write_text(units(followed)[name] + dropped.read_text("utf-8"), "utf-8")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged.stdout)

    assert score is not None, judged.stderr
    assert float(score[1]) <= SIZES[name]


def units(root: Path) -> dict[str, str]:
    """Our units with a program that every machine has: systemd refuses a unit whose program is not installed."""
    (root / "units").mkdir(exist_ok=True)
    found = {}
    for path in sorted((ROOT / "systemd").glob("scanseal*.*")):
        if path.suffix in {".service", ".socket", ".timer", ".path"}:
            text = path.read_text("utf-8")
            found[path.name] = re.sub(r"ExecStart=/usr/bin/scanseal", "ExecStart=/bin/true", text)
    return found


@pytest.mark.parametrize("number", range(len(blocks("toml"))))
def test_every_configuration_of_the_page_can_be_used(tmp_path: Path, number: int) -> None:
    path = tmp_path / "scanseal.toml"
    path.write_text('[device]\nserial_number = "CT-1"\n' + blocks("toml")[number], "utf-8")

    config.load(path, StateFiles())


@contextmanager
def hsm_server(root: Path) -> Iterator[Path]:
    """The service of the page that carries calls to a library, with SoftHSM for the maker's."""
    unit = (root / "etc/systemd/system/scanseal-hsm.service").read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    address = root / "run/scanseal-hsm/pkcs11"
    address.parent.mkdir()
    environment = {**os.environ, "SOFTHSM2_CONF": str(root / "etc/scanseal/softhsm2.conf")}
    arguments = [argument.strip('"') for argument in command.split()]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(address.exists)
            yield address
        finally:
            process.terminate()


def test_a_process_without_a_network_signs_through_the_service_that_has_one(
    followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
    (path,) = set(re.findall(r'module = "(\S*p11-kit-client.so)"', PAGE))
    client = next(Path("/usr/lib").glob(f"*/pkcs11/{Path(path).name}"), None)
    if client is None:
        pytest.skip("no p11-kit-client.so: apt-get install p11-kit-modules")
    with hsm_server(followed) as address:
        monkeypatch.setenv("P11_KIT_SERVER_ADDRESS", f"unix:path={address}")
        settings = Pkcs11StoreSettings(client, "scanseal", followed / "run/scanseal-secrets/token-pin")
        stores = KeyStores(KeyStoreSettings(pkcs11=settings), followed, StateFiles())
        uri = stores.generate(StoreName.PKCS11, "far-away", KeyAlgorithm.P_256)
        key = stores.load(uri)

        assert isinstance(key, ec.EllipticCurvePrivateKey)
        key.public_key().verify(key.sign(b"image", ec.ECDSA(hashes.SHA256())), b"image", ec.ECDSA(hashes.SHA256()))
        assert stores.protection(uri) is Protection.SOFTWARE
        stores.destroy(uri)
        stores.close()
