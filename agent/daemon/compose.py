"""The composition root of the keyholder: what it is made of, and in which order it starts and ends."""

from __future__ import annotations

import contextlib
import os

import agent
from agent.audit import AuditTrail
from agent.config import AgentSettings, Configuration
from agent.daemon.channels import SigningChannels
from agent.daemon.connection import TimeLimits
from agent.daemon.hardening import harden, reserve_descriptors
from agent.daemon.keyholder import Keyholder, Parts, caught_signals
from agent.daemon.listener import open_listener
from agent.daemon.notify import ServiceManager
from agent.daemon.options import WorkerOptions
from agent.daemon.roles import RoleTable
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.workers import Workers
from agent.errors import AlreadyRunning
from enroll.clock import Clock
from enroll.errors import ConfigurationError
from enroll.identity import IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles


def run_keyholder(configuration: Configuration, clock: Clock, files: StateFiles) -> int:
    """See `agent.daemon.run`."""
    settings, state = configuration.agent, configuration.enroll.state_directory
    cpus = os.cpu_count() or 1
    manager = ServiceManager.of_this_process()
    roles = RoleTable.resolve(settings.roles)
    reserve_descriptors(settings.limits.connections)
    harden()
    with contextlib.ExitStack() as stack:
        files.make_directory(state, 0o750)
        busy = AlreadyRunning(
            f"Another agent works in {state}.", remedy="Stop it first, or give this one its own state_directory."
        )
        stack.enter_context(files.locked(state / "agent.lock", busy))
        # Started before a key is loaded, so that both take their time together.
        workers = Workers(settings.workers.count or cpus, worker_options(settings), clock)
        stack.callback(workers.kill)
        workers.tend()
        if not workers.running():
            raise ConfigurationError(
                "No worker can be started; the log says why.",
                remedy="Make sure that this user may run the Python of scanseal.",
            )
        files.make_directory(state / "audit", 0o750)
        audit = AuditTrail(state / "audit" / "audit.jsonl", clock)
        stack.callback(audit.close)
        keys = KeyStores(configuration.enroll.keystore, state, files)
        stack.callback(keys.close)
        identities = Identities(IdentityStore(state, files), keys, audit, clock)
        service = SigningService(
            identities,
            audit,
            clock,
            lambda: {"workers": len(workers.running()), "connections": len(channels.open_channels())},
        )
        channels = SigningChannels(service.reply, audit, threads=cpus)
        stack.callback(channels.close)
        signals = stack.enter_context(caught_signals())
        # Last: a socket that is there is answered, and an agent with a socket ends in good order.
        listener = open_listener(settings.socket, manager.descriptors)
        stack.callback(listener.close)
        audit.record("agent-started", {"version": agent.__version__, "pid": os.getpid()}, durable=True)
        Keyholder(
            Parts(signals, listener, workers, channels, identities, roles, settings.limits, audit, manager, clock)
        ).serve()
        audit.record("agent-stopped", {}, durable=True)
    return 0


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
