"""The rows of docs/reliability.md: what may happen to a scanner, what must come of it, and how far that is shown.

Written by hand and said plainly: a row whose aim is missed says so. The figures come from runs of the tests, by
`tests.support.reliability.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Result(StrEnum):
    """How much of what must come of it the tests show."""

    SHOWN = "shown"
    IN_PART = "in part"
    MISSING = "missing"


@dataclass(frozen=True)
class Row:
    """One kind of thing that happens.

    Args:
        name: By which tests name it: "R2".
        title: In a few words.
        happens: What is done to the scanner.
        required: What must come of it.
        result: How much of that is shown.
        tests: What shows it, from the root of the repository.
        simulated: What stands in for something real.
        open: What is missed, not there or not tried.
        measures: Whether its tests bring figures.
    """

    name: str
    title: str
    happens: str
    required: str
    result: Result
    tests: tuple[str, ...]
    simulated: str
    open: str
    measures: bool = True


ROWS: Final = (
    Row(
        "R1",
        "Load on the socket, and rotations meanwhile",
        "The acquisition software asks for as many signatures as the machine can make, on many connections; up to"
        " 1,000 times the certificate is renewed meanwhile.",
        "Every request is answered, with a signature that verifies or at once with a named refusal; nothing hangs. A"
        " rotation costs no signature and makes no gap over 50 ms; memory and file descriptors stay as they are, and"
        " no old key stays in the token.",
        Result.IN_PART,
        (
            "tests/interop/test_rotation_under_load.py",
            "tests/interop/test_agent_life.py",
            "tests/interop/test_agent_with_token.py",
            "scripts/soak",
            "scripts/bench",
        ),
        "The token is SoftHSM. It keeps 2 to 3 KiB of every pair of keys that was ever in it, until the process ends:"
        " what a process holds that uses the same keys without scanseal is measured beside. Callers and agent share two"
        " CPUs, so the callers' work counts against the agent; the same is measured without rotations beside it.",
        "In 1,000 rotations the keyholder grew by less than 1 KiB for each, beyond what SoftHSM keeps. Of four runs of"
        " 1,000 with SoftHSM two had one gap of about 90 ms each, and two none over 23 ms; whether the host of the"
        " virtual machine took the processor in those two gaps was not recorded. Rates and delays depend on the"
        " machine: [benchmarks.md](benchmarks.md) has them, and names the aims that are missed. There is no queue for"
        " each user: a user who has too many connections is refused, others are not.",
    ),
    Row(
        "R2",
        "A process is killed at any moment",
        "SIGKILL at each write, fsync, rename, link and removal of a state file and at each call of the token, of"
        " every command that changes state.",
        "After the next run there is exactly one matching pair of key and certificate in use, or a state with a name."
        " No key is left that nothing names, no second certificate is asked for while the first can still be fetched,"
        " no acknowledged signature and no acknowledged line of the audit trail is lost.",
        Result.SHOWN,
        (
            "tests/interop/test_kill_sweep.py",
            "tests/unit/test_kill_commands.py",
            "tests/contract/test_every_fault.py",
            "tests/interop/test_killed_enrollments.py",
            "tests/interop/test_killed_import.py",
            "tests/interop/test_fdo_cuts.py",
            "tests/interop/test_collector.py",
        ),
        "The CAs, vendors and owners are test servers on the same machine. Tokens are SoftHSM, the TPM is swtpm. How"
        " many certificates were issued is counted at all of them but the owner of FDO, whose sessions begin anew.",
        "The number of moments is kept and may not shrink; it is not proven that there are no others. With the TPM,"
        " which takes its time, only each seventh is tried. The key that a real token was making when its power went is"
        " tried with SoftHSM only.",
    ),
    Row(
        "R3",
        "Power cuts",
        "Power goes while images are signed and certificates renewed: what was written and not yet on the disk is"
        " gone.",
        "As R2, after the file system has been repaired from its journal. Of the audit trail at most the lines of"
        " signatures of the last second are gone; every other line is there.",
        Result.SHOWN,
        ("tests/interop/test_power_cuts.py", "tests/unit/test_issue_power_cuts.py"),
        "Power is not cut: the image of a mounted ext4 file system is copied while it is written to, and the copy is"
        " mounted. The same is done without fsync, where damage has to show: so the test is known to see it.",
        "No real disk, no flash card and no other file system was tried. A disk that says that it has written what it"
        " has not may lose more. The test needs root and loop devices.",
    ),
    Row(
        "R4",
        "The disk is full, broken or read-only",
        "ENOSPC, EIO, EROFS and EMFILE at every operation on a state file, one by one; and the audit trail on a disk"
        " without room.",
        "An error with a name; what was there before stays in use; the same command comes to its end once there is"
        " room. Nothing is signed that the audit trail cannot hold, and signing comes back by itself.",
        Result.IN_PART,
        (
            "tests/contract/test_every_fault.py",
            "tests/unit/test_issue_power_cuts.py",
            "tests/unit/test_audit_durability.py",
            "tests/interop/test_audit_on_a_bad_disk.py",
        ),
        "The errors are put in place of the system calls, inside the process; the sweep of R2 asks the real kernel.",
        "Nothing is set aside for the audit trail: on a full disk no image is signed and no agent starts, by choice"
        " ([ADR 39](adr/0039-when-an-audit-line-is-durable.md)); the service manager starts it again. Free"
        " room is not looked at before a renewal begins. File systems that run out of inodes were not tried apart"
        " from ENOSPC.",
    ),
    Row(
        "R5",
        "Clocks that are wrong or jump",
        "The machine starts in 1970, 2038 or 2050; the clock jumps by seconds, hours or years, forward or back.",
        "The clock is not believed where it contradicts what is known: nothing expires by it, no renewals follow each"
        " other, images are signed on, and every answer says that the clock is in doubt. A person can say that the"
        " clock is right.",
        Result.SHOWN,
        (
            "tests/unit/test_clock_sense.py",
            "tests/unit/test_clock_watch.py",
            "tests/unit/test_time_decisions.py",
            "tests/interop/test_start_dates.py",
        ),
        "Jumps while a process runs are those of a scripted clock; whole processes see other dates"
        " through a wall clock that is shifted below the C library.",
        "The date in a signature is what the machine's clock says, right or wrong ([ADR 36](adr/0036-clock-sense.md))."
        " A clock that is wrong by less than a day, or that shows any later time when the machine starts, is believed."
        " In 1970 no CA can be reached over TLS; the error names the clock. Whoever can set the clock back, who is"
        " root, can have an expired certificate sign on, with the doubt in each answer.",
    ),
    Row(
        "R6",
        "The CA is away for a month",
        "The CA refuses connections, hangs, answers with errors or asks to come back later, for 30 days; certificates"
        " live 90 days, or expire meanwhile.",
        "Renewal comes back by itself at the first attempt after the CA is back, with at most 40 requests of a device"
        " in the 30 days. Of 1,000 devices not all come at once: the busiest hour has at most three times the mean. An"
        " expired device proves itself by its factory identity.",
        Result.SHOWN,
        ("tests/interop/test_outage.py", "tests/interop/test_unattended_renewal.py"),
        "The days are those of a scripted clock. The 1,000 devices are decisions only: no 1,000 processes are run.",
        "A device without a factory identity, whose certificate has expired, needs a person; the error says who.",
    ),
    Row(
        "R7",
        "The token is away, or its PIN is wrong",
        "The token is taken out while it signs, exchanged for another, full or busy; its PIN is wrong or locked.",
        "A named error within a second, never a signature by another key; within five seconds of its return it signs"
        " again. A PIN that was refused is not sent again by anybody, until it is written anew.",
        Result.SHOWN,
        (
            "tests/contract/test_token_faults.py",
            "tests/contract/test_token_pin.py",
            "tests/unit/test_token_tries.py",
            "tests/interop/test_agent_with_token.py",
        ),
        "Tokens are SoftHSM; they are taken out by moving their directory away.",
        "No real token and no smart card was tried.",
    ),
    Row(
        "R8",
        "The TPM is reset, cleared, locked or full",
        "Each of these while a key of the TPM is in use.",
        "After a reset signing goes on. A cleared TPM has lost its keys: the scanner says `key-lost`, and a person"
        " enrolls it again; no key in software takes the place of one in the TPM. A locked one is not asked again and"
        " again.",
        Result.SHOWN,
        (
            "tests/contract/test_tpm.py",
            "tests/contract/test_token_faults.py",
            "tests/unit/test_tpm_faults.py",
            "tests/interop/test_agent_with_token.py",
        ),
        "The TPM is swtpm.",
        "No TPM chip was tried.",
        measures=False,
    ),
    Row(
        "R9",
        "State files are damaged",
        "Every byte of every state file and of the audit trail changed, every file cut at every length, exchanged for"
        " another, replaced by a link, a FIFO or a directory, of a wrong owner or mode; an old copy of the whole"
        " directory is put back. A test finds every place in the source that writes a state file, so none is left out.",
        "The same answer as before, or an error with a name. A damaged newest generation falls back to the one before;"
        " otherwise the scanner needs service. Never a silent fresh start that forgets that it was disabled or"
        " revoked.",
        Result.IN_PART,
        (
            "tests/hostile/test_damaged_state.py",
            "tests/hostile/test_damaged_audit.py",
            "tests/interop/test_old_copies.py",
            "tests/unit/test_fallback_generation.py",
            "tests/unit/test_records.py",
        ),
        "Nothing: these are real files. Key files of more than 2,000 bytes are damaged at each 17th byte, all others at"
        " each; those that a TPM has wrapped, in tests/contract/test_tpm.py.",
        "Checksums find damage, not intent: whoever may write state files can write right ones. An audit trail that was"
        " cut at the end of a line shows it only by a hash that was noted elsewhere. An old copy of"
        " everything is noticed only where the world has gone on without it, such as by a key that is destroyed since."
        " No counter of a TPM is used for that.",
    ),
    Row(
        "R10",
        "Hostile callers of the socket",
        "500 clients at once: slow ones, half frames, lengths of 4 GiB, resets, readers that stop, wrong users, odd"
        " file descriptors, 20,000 connections.",
        "A good client gets every answer, right, 99 of 100 within 500 ms. Nobody who may not sign does.",
        Result.IN_PART,
        (
            "tests/hostile/test_socket_abuse_by_many.py",
            "tests/hostile/test_socket_abuse.py",
            "tests/property/test_socket_input.py",
        ),
        "Attackers and agent share two CPUs.",
        "A caller is known by its user and process number when it connects (SO_PEERCRED), not by a pidfd.",
    ),
    Row(
        "R11",
        "Hostile servers",
        "A CA, an owner or a rendezvous server, or whoever poses as one, does what it should not.",
        "No wrong certificate, CA or owner is accepted, what is in use stays in use, and the run ends in time and with"
        " little memory.",
        Result.SHOWN,
        (
            "tests/hostile/test_hostile_ca.py",
            "tests/hostile/test_fdo_servers.py",
            "tests/hostile/test_est_server_answers.py",
            "tests/hostile/test_cmp_answers.py",
            "tests/hostile/test_scep_answers.py",
            "tests/hostile/test_acme_answers.py",
        ),
        "The servers are ours, and speak over real connections.",
        "[hostile-ca.md](hostile-ca.md) and [hostile-owner.md](hostile-owner.md) list what was tried; there is more"
        " that nobody has thought of.",
    ),
    Row(
        "R12",
        "Bombs in CBOR and COSE",
        "Messages of FIDO Device Onboard that are damaged, made up, nested deeply or claim to be huge.",
        "They are read, if there is one way to, or refused with a name, in little time and memory.",
        Result.SHOWN,
        (
            "tests/fuzz/test_fdo_codec.py",
            "tests/property/test_fdo_codec.py",
            "tests/unit/test_fdo_cbor.py",
            "tests/unit/test_fdo_cose.py",
        ),
        "Nothing: what is right is decided by a second codec.",
        "",
    ),
    Row(
        "R13",
        "Malformed images, and workers that break",
        "Damaged and malicious DICOM instances; a worker that is killed, out of memory or stuck.",
        "An instance is signed rightly or refused with a name. The caller of a broken worker gets an error, the worker"
        " is replaced, nobody else notices. What reads images holds no key.",
        Result.SHOWN,
        (
            "tests/hostile/test_dicom_input.py",
            "tests/hostile/test_broken_worker.py",
            "tests/hostile/test_lost_workers.py",
            "tests/hostile/test_two_readers.py",
            "tests/fuzz/test_verifier.py",
            "tests/interop/test_agent_life.py",
        ),
        "Workers are stopped by signals and by images that cost much; no fault of a worker is known that could be"
        " used.",
        "A worker has a bound for its memory and one for the time of a request, none for the CPU time of one request.",
    ),
    Row(
        "R14",
        "The disk is stolen, or the scanner copied",
        "A copy of the state directory, or of the whole machine, starts elsewhere.",
        "It does not sign.",
        Result.IN_PART,
        ("tests/contract/test_tpm.py", "tests/interop/test_memory_of_processes.py"),
        "The TPM is swtpm.",
        "Shown for keys in a TPM, which no other TPM loads, and for keys in memory, which are on no disk. **Not done"
        " for keys in files:** whoever copies the state directory and the passphrase has a second scanner, and nothing"
        " notices. Status, audit trail and certificate request call such a key `software`.",
        measures=False,
    ),
    Row(
        "R15",
        "The owner disables the scanner or gives it up",
        "`scanseal owner disable`, `enable` and `release`, in any order with everything else that may happen.",
        "Disabled within a second, after every restart still, until a person enables it; what the owner had is gone"
        " after a release, and the factory identity stays. Both are in the audit trail.",
        Result.SHOWN,
        (
            "tests/property/test_device_states.py",
            "tests/interop/test_disable.py",
            "tests/contract/test_owner_release.py",
        ),
        "The steps of the property test are those of one process, with a scripted clock.",
        "The owner disables a scanner at the scanner: there is no order from afar but the revocation of its"
        " certificates, which `scanseal renew` asks for.",
    ),
    Row(
        "R16",
        "Another version of scanseal",
        "State of this release is read by later ones, and state of later ones by this.",
        "What this release wrote is read. What a later one wrote is refused with a name, and stays as it is.",
        Result.SHOWN,
        ("tests/unit/test_golden_state.py", "tests/hostile/test_damaged_state.py", "tests/unit/test_records.py"),
        "The later release is made up: a record of format 2.",
        "There is one release so far, so no upgrade has been tried.",
    ),
    Row(
        "R17",
        "Two at once",
        "Twenty agents or twenty renewals are started at once on one state directory.",
        "Exactly one works, the others end with a code of their own; nothing is damaged.",
        Result.SHOWN,
        ("tests/interop/test_two_agents.py",),
        "Nothing: these are real processes.",
        "State directories on network file systems, whose locks differ, are not meant to be used.",
    ),
    Row(
        "R18",
        "Years of work",
        "Signatures without end, at the highest rate that the machine gives.",
        "No failed signature, memory within 2 % and file descriptors as at the beginning, a line in the audit trail"
        " for every signature.",
        Result.IN_PART,
        ("tests/interop/test_soak.py", "scripts/soak"),
        "Half an hour at the highest rate stands for months of use; the run of the tests lasts some seconds.",
        "Nothing ran for three days, let alone for years. The audit trail grows and is not rotated.",
    ),
    Row(
        "R19",
        "The audit trail is sent elsewhere",
        "The server that audit messages go to is away, slow or full.",
        "Nothing is lost and signing is not held up.",
        Result.MISSING,
        ("tests/unit/test_audit.py",),
        "Nothing.",
        "**Not done:** scanseal sends no audit messages. The trail is a file on the scanner; copy its last hash to"
        " another machine now and then. What a full disk does to it is in R4.",
        measures=False,
    ),
)
