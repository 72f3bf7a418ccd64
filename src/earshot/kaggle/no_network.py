"""Takes the network away from a command, without rights or namespaces: `python no_network.py COMMAND ...` (Linux).

A filter of system calls (seccomp), which the process and its children cannot take off again, answers socket() for IPv4,
IPv6 and packets with "network is unreachable". It stands alone, so that it can be started by its path.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # audit architecture, number of socket()
FAMILIES = (2, 10, 17)  # AF_INET, AF_INET6, AF_PACKET
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.ENETUNREACH, 0x00000000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of a word, jump if equal, return a constant


def filter_program(machine: str) -> bytes:
    """The filter's instructions (code, jump if true, jump if false, value) for a machine; another is a KeyError."""
    architecture, socket_call = MACHINES[machine]
    n = len(FAMILIES)
    steps = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        (EQUAL, 0, n + 1, socket_call),
        (LOAD, 0, 0, 16),  # seccomp_data.args[0], the family
        *[(EQUAL, n - i, 0, family) for i, family in enumerate(FAMILIES)],
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def block():
    """Put the filter on this process; OSError where the system does not take it."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.create_string_buffer(filter_program(platform.machine()))
    count = (len(program) - 1) // 8
    header = struct.pack("HxxxxxxP", count, ctypes.addressof(program))
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the system takes no filter of system calls")


if __name__ == "__main__":
    try:
        block()
    except (KeyError, OSError, AttributeError) as error:
        sys.exit(f"error: no filter of system calls here: {error}")
    os.execvp(sys.argv[1], sys.argv[1:])
