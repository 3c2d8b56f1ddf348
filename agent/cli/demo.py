"""`scanseal demo`: the whole way once, with the commands that a user would type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from agent.cli import exits
from agent.cli.try_out import SERIAL_NUMBER
from agent.policy.verdicts import ExitCode
from enroll.clock import Clock, SystemClock
from enroll.errors import ConfigurationError, ScansealError
from enroll.statefile import StateFiles

CONFIGURATION = "ca/scanseal.toml"
ANCHOR = "ca/root.pem"
START_TIMEOUT = 20.0  # seconds
COMMAND_TIMEOUT = 120  # seconds

_EXTRA = "Run scripts/demo instead, or first pip install '.[demo]' in the checkout."

# What each sample shows -> its name among the files that ship with pydicom.
SAMPLES = {
    "a CT slice": "CT_small.dcm",
    "an enhanced multi-frame MR": "emri_small.dcm",
    "a compressed image (JPEG 2000)": "693_J2KR.dcm",
    "a structured report": "test-SR.dcm",
}
DERIVED = "made-of-the-CT-slice.dcm"


class DemoError(ScansealError):
    """The demonstration did not show what it should."""

    code = "demo-failed"


class DemoNotInstalled(ConfigurationError):
    """What only the demonstration needs is not there."""

    code = "demo-not-installed"


@click.command("demo")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("scanseal-demo"),
    show_default=True,
    help="Where everything is put. Removed first, if it is of an earlier demo.",
)
def command(directory: Path) -> int:
    """Show the whole way on this machine: CA, enrollment, signing, verification, tampering.

    Needs no root, no hardware and no network but loopback. Takes a few seconds.
    """
    directory = directory.absolute()
    for name in SAMPLES.values():
        sample(name)
    _prepare(directory)
    _Demo(directory, SystemClock()).show()
    return exits.OK


def _prepare(directory: Path) -> None:
    marker = directory / "made-by-scanseal-demo"
    if directory.exists() and not marker.exists():
        raise DemoError(f"{directory} exists and is not of an earlier demo.", remedy="Name another --directory.")
    if directory.exists():
        shutil.rmtree(directory)
    files = StateFiles()
    files.make_directory(directory)
    files.write(marker, b"")


@dataclass(frozen=True)
class _Demo:
    directory: Path
    clock: Clock

    def show(self) -> None:
        """Run all steps; the first that does not end as it should ends the demonstration."""
        _say("This shows how a scanner gets an identity and signs its images. Everything is real but the scanner.")
        with self._evaluation_ca():
            _step(2, "The scanner makes its keys and gets its certificates from that CA (EST, RFC 7030).")
            self._run("enroll", "est", "--config", CONFIGURATION)
            _say("    What is made of images gets a key of its own, and a certificate that says so.")
            self._run("enroll", "est", "--identity", "derivation", "--config", CONFIGURATION)
        _say("    The CA is stopped now: signing does not need it.")
        with self._agent():
            signed = self._sign()
            self._derive(signed[0])
        self._verify(signed)
        self._tamper(signed)
        second = self._second_opinion(signed)
        command = shlex.join((*_scanseal(), "verify", "--anchor", ANCHOR, "signed/CT_small.dcm"))
        _say(f"\nTo look again: cd {shlex.quote(str(self.directory))} && {command}")
        _say(
            f"Proved: {len(signed)} images were signed by a key that only the scanner has, and verify{second}; "
            "a changed pixel is noticed, a corrected patient name is not held against the image."
        )
        _say(f"The files are in {self.directory}: signed images in signed/, the CA's certificate is ca/root.pem.")

    @contextmanager
    def _evaluation_ca(self) -> Iterator[None]:
        _step(1, "A small certificate authority starts on this machine. It plays the hospital's CA.")
        arguments = ("evaluation-ca", "--json", "--directory", "ca", "--port", "0")
        with self._background(arguments, "evaluation-ca.log") as output:
            try:
                facts = json.loads(output.readline())
            except ValueError as error:
                log = self.directory / "evaluation-ca.log"
                raise DemoError("The evaluation CA did not start.", remedy=f"See {log}.") from error
            _say(f"    It listens on {facts['url']}. What a scanner has to know of it is in {CONFIGURATION}.")
            yield

    @contextmanager
    def _agent(self) -> Iterator[None]:
        _step(3, "The signing agent starts and listens on a local socket.")
        with self._background(("agent", "--config", CONFIGURATION), "agent.log"):
            deadline = self.clock.monotonic() + START_TIMEOUT
            while self._call("status", "--config", CONFIGURATION).returncode != exits.OK:
                if self.clock.monotonic() > deadline:
                    raise DemoError("The agent did not start.", remedy=f"See {self.directory / 'agent.log'}.")
                self.clock.sleep(0.1)
            self._run("status", "--config", CONFIGURATION)
            yield

    def _sign(self) -> list[Path]:
        _step(4, "Four images are signed through the socket:")
        import pydicom

        originals, target = self.directory / "images", self.directory / "signed"
        originals.mkdir()
        target.mkdir()
        for meaning, name in SAMPLES.items():
            image = pydicom.dcmread(sample(name))
            image.DeviceSerialNumber = SERIAL_NUMBER  # as if the pretend scanner had made it
            image.save_as(originals / name)
            _say(f"    {name}: {meaning}")
        files = [f"images/{name}" for name in SAMPLES.values()]
        self._run("sign", "--config", CONFIGURATION, "--output-directory", "signed", *files)
        return [target / name for name in SAMPLES.values()]

    def _derive(self, source: Path) -> None:
        """Make an image of the CT slice and have it signed."""
        import pydicom
        from pydicom.uid import generate_uid

        _step(5, "An image is made of the CT slice. The key for originals does not sign it; another one does:")
        image = pydicom.dcmread(source)
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        image.SourceImageSequence = [reference]
        image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.PixelData = bytes(255 - value for value in image.PixelData)
        del image.MACParametersSequence, image.DigitalSignaturesSequence
        image.save_as(self.directory / "images" / DERIVED)
        sign = ("sign", "--config", CONFIGURATION, f"images/{DERIVED}", "--output", f"signed/{DERIVED}")
        self._run(*sign, expected=exits.INSTANCE_REFUSED)
        self._run(*sign, "--role", "derivation")

    def _verify(self, signed: Sequence[Path]) -> None:
        _step(6, "A recipient who has only the CA's certificate checks them:")
        self._run("verify", "--anchor", ANCHOR, *(f"signed/{file.name}" for file in signed))
        self._run("verify", "--anchor", ANCHOR, "--sources", f"signed/{signed[0].name}", f"signed/{DERIVED}")

    def _tamper(self, signed: Sequence[Path]) -> None:
        import pydicom

        _step(7, "One pixel of the CT slice is changed, and in another copy the patient's name:")
        changed, renamed = self.directory / "one-pixel-changed.dcm", self.directory / "patient-renamed.dcm"
        image = pydicom.dcmread(signed[0])
        image.PixelData = bytes([image.PixelData[0] ^ 1]) + image.PixelData[1:]
        image.save_as(changed)
        image = pydicom.dcmread(signed[0])
        image.PatientName = "Corrected^Name"
        image.save_as(renamed)
        self._run("verify", "--anchor", ANCHOR, changed.name, expected=ExitCode.BROKEN)
        self._run("verify", "--anchor", ANCHOR, renamed.name)

    def _second_opinion(self, signed: Sequence[Path]) -> str:
        program = shutil.which("dcmsign")
        if program is None:
            _step(8, "dcmsign is not installed, so there is no second opinion (Debian: apt-get install dcmtk).")
            return ""
        _step(8, "DCMTK's dcmsign, which shares no code with scanseal, checks the same files:")
        anchor = str(self.directory / ANCHOR)
        for file in signed:
            ran = subprocess.run(
                (program, "--verify", "+rc", "+cf", anchor, str(file)),
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
            if ran.returncode != 0:
                raise DemoError(f"dcmsign does not agree on {file.name}: {ran.stdout}{ran.stderr}")
            _say(f"    {file.name}: dcmsign agrees")
        return ", as dcmsign confirms"

    def _run(self, *arguments: str, expected: int = exits.OK) -> None:
        _say(f"    $ scanseal {' '.join(arguments)}")
        ran = self._call(*arguments)
        for line in ran.stdout.splitlines():
            _say(f"      {line}")
        if ran.returncode != expected:
            raise DemoError(f"That ended with {ran.returncode} instead of {expected}. {ran.stderr.strip()}")

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*_scanseal(), *arguments),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )

    @contextmanager
    def _background(self, arguments: Sequence[str], log: str) -> Iterator[IO[str]]:
        with (
            (self.directory / log).open("w") as errors,
            subprocess.Popen(
                (*_scanseal(), *arguments), cwd=self.directory, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            if process.stdout is None:
                raise DemoError("The output of a started program cannot be read.")
            try:
                yield process.stdout
            finally:
                process.terminate()


def sample(name: str) -> str:
    """The path of an image that ships with pydicom.

    Raises:
        DemoNotInstalled: It is not there.
    """
    try:
        from pydicom.data import get_testdata_file
    except ImportError as error:
        raise DemoNotInstalled("pydicom is not installed.", remedy=_EXTRA) from error
    path = get_testdata_file(name, download=False)
    if not isinstance(path, str):
        raise DemoNotInstalled(f"The sample {name} is not installed.", remedy=_EXTRA)
    return path


def _scanseal() -> tuple[str, ...]:
    program = Path(sys.executable).with_name("scanseal")
    return (str(program),) if program.exists() else (sys.executable, "-m", "agent.cli.main")


def _step(number: int, text: str) -> None:
    _say(f"\n{number}. {text}")


def _say(text: str) -> None:
    click.echo(text)
