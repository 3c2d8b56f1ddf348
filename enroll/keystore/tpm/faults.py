"""What the TPM and its software stack answer when something is wrong, and what it means for us.

Response codes are those of the TPM 2.0 Library, Part 2, 6.6; the layers above the TPM put their number into bits 16 to
23 (TCG TSS 2.0 Overview, 3.4).
"""

from __future__ import annotations

from tpm2_pytss import TPM2_RC, TSS2_RC
from tpm2_pytss import TSS2_Exception as TssError

from enroll.errors import KeyStoreError, KeyStoreUnavailable, PinRefused, UnsupportedKey

_ERROR_OF_FORMAT_ONE = 0x0BF  # the others of its bits say where the fault was found
_FROM_THE_TPM = (TSS2_RC.TPM_RC_LAYER, TSS2_RC.RESMGR_RC_LAYER, TSS2_RC.RESMGR_TPM_RC_LAYER)

_AUTHORIZATION = (TPM2_RC.AUTH_FAIL, TPM2_RC.BAD_AUTH)
_NO_ROOM = (TPM2_RC.OBJECT_MEMORY, TPM2_RC.OBJECT_HANDLES)
_NO_ROOM_AT_ALL = (*_NO_ROOM, TPM2_RC.MEMORY, TPM2_RC.SESSION_MEMORY, TPM2_RC.SESSION_HANDLES)
_SIMULATORS = ("swtpm", "mssim")  # TCTIs without a resource manager
# A handle of ours means nothing any more: the TPM was reset, or somebody flushed it.
_HANDLE_GONE = (TPM2_RC.HANDLE, *range(TPM2_RC.REFERENCE_H0, TPM2_RC.REFERENCE_H6 + 1))
_UNSUPPORTED = (
    TPM2_RC.ASYMMETRIC,
    TPM2_RC.ATTRIBUTES,
    TPM2_RC.COMMAND_CODE,
    TPM2_RC.CURVE,
    TPM2_RC.HASH,
    TPM2_RC.KEY,
    TPM2_RC.KEY_SIZE,
    TPM2_RC.SCHEME,
    TPM2_RC.SIZE,
    TPM2_RC.TYPE,
    TPM2_RC.VALUE,
)
_LATER = (
    TPM2_RC.CANCELED,
    TPM2_RC.NV_RATE,
    TPM2_RC.NV_UNAVAILABLE,
    TPM2_RC.RETRY,
    TPM2_RC.TESTING,
    TPM2_RC.YIELDED,
)
_MEANINGS: tuple[tuple[tuple[int, ...], type[KeyStoreError], str, str], ...] = (
    (
        _AUTHORIZATION,
        PinRefused,
        "The TPM refused the authorization value",
        "Put the value that this key was made with into authorization_file. If it is lost, enroll again.",
    ),
    (
        _NO_ROOM_AT_ALL,
        KeyStoreUnavailable,
        "The TPM has no room for another object or session",
        "Somebody uses it without a resource manager: set [keystore.tpm] tcti to device:/dev/tpmrm0.",
    ),
    (
        (TPM2_RC.LOCKOUT,),
        KeyStoreUnavailable,
        "The TPM is locked after wrong authorization values",
        "They were for something else. Wait, or run: tpm2_dictionarylockout --clear-lockout",
    ),
    (_LATER, KeyStoreUnavailable, "The TPM cannot do this now", "Try again."),
    (_UNSUPPORTED, UnsupportedKey, "The TPM does not do this", "Choose another kind of key or signature."),
)


class ConnectionLost(KeyStoreUnavailable):
    """What was loaded is gone, with the connection or with a reset of the TPM; the next call begins anew."""


def response_code(error: TssError) -> int | None:
    """What the TPM answered, without the place where it found the fault; None where another layer failed."""
    if error.rc & TSS2_RC.RC_LAYER_MASK not in _FROM_THE_TPM:
        return None
    code: int = error.rc & ~TSS2_RC.RC_LAYER_MASK
    return code & _ERROR_OF_FORMAT_ONE if code & TPM2_RC.FMT1 else code


def is_out_of_room(error: TssError) -> bool:
    """Whether another loaded object would have to go first."""
    return response_code(error) in _NO_ROOM


def is_not_loadable(error: TssError) -> bool:
    """Whether Load says that there is something wrong with what it was given, and not with the TPM or with the turn."""
    code = response_code(error)
    if code is None or code in _AUTHORIZATION or code in _HANDLE_GONE:
        return False
    return bool(code & TPM2_RC.FMT1) or code == TPM2_RC.SENSITIVE


def is_authorization(error: TssError) -> bool:
    """Whether an authorization value was wrong."""
    return response_code(error) in _AUTHORIZATION


def is_of_the_connection(error: TssError) -> bool:
    """Whether what was loaded can no longer be relied on."""
    code = response_code(error)
    return code is None or code in _HANDLE_GONE or code in (TPM2_RC.INITIALIZE, TPM2_RC.FAILURE)


def translated(error: TssError, tcti: str = "") -> KeyStoreError:
    """The same in our words.

    Args:
        error: Of a command to an open TPM.
        tcti: How it is reached, if that is known.
    """
    kind, what, remedy = _meaning(error)
    if response_code(error) in _NO_ROOM_AT_ALL and tcti.startswith(_SIMULATORS):
        remedy = "Stop the agent while you do this: a simulator has room for one program."
    return kind(f"{what} (0x{int(error.rc):x}, {error}).", remedy=remedy)


def _meaning(error: TssError) -> tuple[type[KeyStoreError], str, str]:
    code = response_code(error)
    if is_of_the_connection(error):
        return ConnectionLost, "The TPM failed", "Check that it is there; the next call begins anew with it."
    for codes, kind, what, remedy in _MEANINGS:
        if code in codes:
            return kind, what, remedy
    return KeyStoreError, "The TPM refused", "Try again; if it stays, look up this answer."
