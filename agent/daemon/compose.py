"""The composition root of the keyholder: what it is made of, and in which order it starts and ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import agent
from agent.audit import AuditTrail, only_writer
from agent.config import AgentSettings, Configuration, SigningIdentity
from agent.daemon.channels import SigningChannels
from agent.daemon.clock_watch import ClockWatch
from agent.daemon.connection import TimeLimits
from agent.daemon.demands import Demands
from agent.daemon.hardening import UNLOCKED_REMEDY, harden, lock_memory, reserve_descriptors
from agent.daemon.keyholder import Keyholder, Parts, caught_signals
from agent.daemon.listener import open_listener
from agent.daemon.memory_identity import KeyMaker, MemoryIdentity
from agent.daemon.notify import ServiceManager
from agent.daemon.options import WorkerOptions
from agent.daemon.renewal import Renewal
from agent.daemon.roles import RoleTable
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.workers import Workers
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.config import SigningIdentitySettings, StoreName
from enroll.errors import ConfigurationError
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles


def run_keyholder(configuration: Configuration, clock: Clock, files: StateFiles, renewal_command: Sequence[str]) -> int:
    """See `agent.daemon.run`."""
    settings, state = configuration.agent, configuration.enroll.state_directory
    started = clock.monotonic() - _process_age()
    cpus = os.cpu_count() or 1
    manager = ServiceManager.of_this_process()
    roles = RoleTable.resolve(settings.roles)
    demands = Demands.of(settings.signing, cpus)
    demands.check_stores(configuration.enroll.identity)
    memory_locked = _protect(configuration)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_writer(state, files))
        # Started before a key is loaded, so that both take their time together.
        workers = _start_workers(settings, cpus, clock)
        stack.callback(workers.kill)
        files.make_directory(state / "audit", 0o750)
        audit = AuditTrail(state / "audit" / "audit.jsonl", clock)
        stack.callback(audit.close)
        keys = KeyStores(configuration.enroll.keystore, state, files)
        stack.callback(keys.close)
        key_maker = stack.enter_context(ThreadPoolExecutor(1, "key-maker"))
        store = IdentityStore(state, files)
        sense = ClockSense.configured(clock, store)
        in_memory = _identities_in_memory(
            configuration, store, keys, files=files, audit=audit, clock=sense, thread=key_maker
        )
        identities = Identities(
            store, keys, audit, sense, demands=demands, in_memory=in_memory, originals=demands.originals
        )
        tally = SigningTally(audit, clock, started)
        figures = {"memory_locked": memory_locked}
        service = SigningService(identities, audit, sense, tally, lambda: {**figures, **_counts(workers, channels)})
        channels = SigningChannels(service.reply, audit, threads=cpus)
        stack.callback(channels.close)
        renewal = Renewal(renewal_command, clock)
        stack.callback(renewal.stop)
        signals = stack.enter_context(caught_signals())
        # Last: a socket that is there is answered, and an agent with a socket ends in good order.
        listener = open_listener(settings.socket, manager.descriptors)
        stack.callback(listener.close)
        audit.record("agent-started", {"version": agent.__version__, "pid": os.getpid()}, durable=True)
        Keyholder(
            Parts(
                signals=signals,
                listener=listener,
                workers=workers,
                channels=channels,
                identities=identities,
                roles=roles,
                limits=settings.limits,
                tally=tally,
                renewal=renewal,
                audit=audit,
                manager=manager,
                clock=clock,
                clock_watch=ClockWatch(sense, audit),
            )
        ).serve()
        audit.record("agent-stopped", {}, durable=True)
    return 0


def _protect(configuration: Configuration) -> bool:
    """Give up what the keyholder does not need, before it starts anything.

    Returns:
        Whether its memory is locked.

    Raises:
        ConfigurationError: The kernel refused something without which keys would not be safe.
    """
    reserve_descriptors(configuration.agent.limits.connections)
    harden()
    locked = lock_memory()
    if not locked and _settings_in_memory(configuration):
        raise ConfigurationError(
            'A key_store is "memory", and the memory of the agent cannot be locked: the key could reach the disk.',
            remedy=UNLOCKED_REMEDY,
            code="memory-not-locked",
        )
    return locked


def _start_workers(settings: AgentSettings, cpus: int, clock: Clock) -> Workers:
    workers = Workers(settings.workers.count or cpus, worker_options(settings), clock)
    workers.tend()
    if not workers.running():
        raise ConfigurationError(
            "No worker can be started; the log says why.",
            remedy="Make sure that this user may run the Python of scanseal.",
        )
    return workers


def _counts(workers: Workers, channels: SigningChannels) -> Mapping[str, int]:
    return {"workers": len(workers.running()), "connections": len(channels.open_channels())}


def _settings_in_memory(configuration: Configuration) -> Mapping[IdentityName, SigningIdentitySettings]:
    """The identities that sign, and whose keys are made in memory."""
    identities = configuration.enroll.identity
    signing = {IdentityName.DERIVATION: identities.derivation, IdentityName.SYNTHESIS: identities.synthesis}
    if configuration.agent.signing.identity is SigningIdentity.SIGNING:
        signing[IdentityName.SIGNING] = identities.signing
    return {name: wanted for name, wanted in signing.items() if wanted.key_store is StoreName.MEMORY}


def _identities_in_memory(  # noqa: PLR0913 - the parts of a keyholder
    configuration: Configuration,
    store: IdentityStore,
    keys: KeyStores,
    *,
    files: StateFiles,
    audit: AuditTrail,
    clock: Clock,
    thread: Executor,
) -> Mapping[IdentityName, MemoryIdentity]:
    device = configuration.enroll.device
    return {
        name: MemoryIdentity(KeyMaker(name, wanted, device, keys, clock), store, files, audit, thread)
        for name, wanted in _settings_in_memory(configuration).items()
    }


def _process_age() -> float:
    """Seconds since this process began (proc(5): the 22nd field of stat; the second one may hold anything)."""
    fields = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def worker_options(settings: AgentSettings) -> WorkerOptions:
    """What a worker has to know of the configuration."""
    limits, signing = settings.limits, settings.signing
    return WorkerOptions(
        times=TimeLimits(
            head=limits.head_seconds,
            body=limits.body_seconds,
            bytes_per_second=limits.bytes_per_second,
            idle=limits.idle_seconds,
        ),
        connections=limits.connections,
        instance_bytes=limits.instance_bytes,
        memory_bytes=settings.workers.memory_mebibytes << 20,
        spool_directory=str(settings.workers.spool_directory),
        profile=signing.profile,
        hash_name=signing.hash,
        private_elements=signing.private_elements,
        missing_device_identity=signing.missing_device_identity,
    )
