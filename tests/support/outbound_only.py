"""A hospital's CA and a scanner in two network namespaces; nothing reaches the scanner that it has not asked for.

    unshare --map-root-user --net python -m tests.support.outbound_only FOLDER

Enrolls and renews by the command line. Prints a JSON object: the exit codes, which sockets of the scanner were seen
listening meanwhile, and whether a listener that is put there on purpose can be reached from outside.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.evaluation.authority import Authority, certificate_builder
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.statefile import StateFiles

ROOT = Path(__file__).parents[2]
CA_ADDRESS, SCANNER_ADDRESS, BAIT_PORT = "10.77.0.1", "10.77.0.2", 4711
TIMEOUT = 60  # seconds
ESTABLISHED_ONLY = """
add table inet f
add chain inet f i { type filter hook input priority 0; policy drop; }
add rule inet f i ct state established accept
"""
BAIT = (
    f"import socket, time; s = socket.create_server(('', {BAIT_PORT})); print('up', flush=True); time.sleep({TIMEOUT})"
)
CONFIGURATION = """
state_directory = "{folder}/state"
[device]
serial_number = "CT-000123"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[identity.signing]
key_algorithm = "rsa-2048"
[est]
url = "{url}"
anchor_file = "{folder}/ca/root.pem"
username = "{username}"
password_file = "{folder}/ca/password"
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=TIMEOUT)


def for_address(ca: EvaluationCa) -> None:
    """A server certificate for the address in the namespace; the CA makes one for loopback only."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = certificate_builder(x509.Name([]), key.public_key(), SystemClock().now(), timedelta(days=1))
    names = [x509.IPAddress(ipaddress.ip_address(CA_ADDRESS))]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    certificate = Authority(ca.directory / "root", StateFiles()).sign(builder)
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (ca.directory / "server.pem").write_bytes(pem([certificate]))
    (ca.directory / "server.key").write_bytes(key.private_bytes(*kind))


@contextmanager
def scanner_namespace() -> Iterator[int]:
    """A namespace that is wired to ours; the process that keeps it."""
    with subprocess.Popen(["unshare", "--net", "sleep", str(TIMEOUT)]) as keeper:
        try:
            ours = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{keeper.pid}/ns/net").readlink() == ours:
                time.sleep(0.01)
            ip("link", "add", "ca0", "type", "veth", "peer", "name", "scanner0", "netns", str(keeper.pid))
            ip("address", "add", f"{CA_ADDRESS}/24", "dev", "ca0")
            ip("link", "set", "ca0", "up")
            inside = ("nsenter", "--net", f"--target={keeper.pid}")
            wired = f"ip address add {SCANNER_ADDRESS}/24 dev scanner0 && ip link set scanner0 up && ip link set lo up"
            subprocess.run([*inside, "sh", "-c", wired], check=True, timeout=TIMEOUT)
            subprocess.run([*inside, "nft", "-f", "-"], input=ESTABLISHED_ONLY.encode(), check=True, timeout=TIMEOUT)
            yield keeper.pid
        finally:
            keeper.kill()


def listening(namespace: int) -> set[str]:
    """Addresses of TCP sockets that listen and of bound UDP sockets (proc(5): state 0A, 07)."""
    found = set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{namespace}/net/{table}").read_text("ascii").splitlines()[1:]:
            columns = line.split()
            if columns[3] == state:
                found.add(f"{table} {columns[1]}")
    return found


def bait(namespace: int, inside: tuple[str, ...]) -> dict[str, bool]:
    """Whether a listener in the scanner's namespace is seen, and answers: the firewall has to be one."""
    with subprocess.Popen([*inside, sys.executable, "-c", BAIT], stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != "up":
                raise RuntimeError("the bait does not listen")
            return {"seen": bool(listening(namespace)), "answers": answers(BAIT_PORT)}
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        with socket.create_connection((SCANNER_ADDRESS, port), timeout=1):
            return True
    except TimeoutError:
        return False


def main(folder: Path) -> None:
    ca = EvaluationCa.create_or_open(folder / "ca", SystemClock())
    for_address(ca)
    with scanner_namespace() as namespace, EstServer(ca, (CA_ADDRESS, 0)) as server:
        inside = ("nsenter", "--net", f"--target={namespace}")
        configuration = folder / "scanseal.toml"
        configuration.write_text(CONFIGURATION.format(folder=folder, url=server.url, username=USERNAME), "utf-8")
        (folder / "passphrase").write_text("a passphrase\n", "ascii")
        (folder / "passphrase").chmod(0o600)
        codes: list[int] = []
        seen: set[str] = set()
        for command in (["enroll", "est"], ["renew", "--force"]):
            program = [sys.executable, "-m", "agent.cli.main", *command, "--config", str(configuration)]
            with subprocess.Popen([*inside, *program], stdout=subprocess.DEVNULL) as running:
                while running.poll() is None:
                    seen |= listening(namespace)
                    time.sleep(0.01)
            codes.append(running.returncode)
        result = {"codes": codes, "listening": sorted(seen), "bait": bait(namespace, inside)}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
