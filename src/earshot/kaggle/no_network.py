"""Takes the network away from a command, without rights or namespaces: `python no_network.py COMMAND ...` (Linux).

A filter of system calls (seccomp), which the process and its children cannot take off again, answers socket() with
"network is unreachable" for all families but those that stay on this machine, and knows no other way to open one. It
stands alone, so that it can be started by its path.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # audit architecture, number of socket()
FAMILIES = (1, 16)  # that stay on this machine: AF_UNIX, AF_NETLINK
OTHER_WAYS = 0x40000000  # from here on x86's second set of system calls, which has a socket() of its own
IO_URING = 425  # io_uring_setup(): its requests open sockets without a system call
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.ENETUNREACH, 0x00000000
UNKNOWN = 0x00050000 | errno.ENOSYS
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # of a word; jump if equal, if not below; return a constant


def filter_program(machine: str) -> bytes:
    """The filter's instructions (code, jump if true, jump if false, value) for a machine; another is a KeyError."""
    architecture, socket_call = MACHINES[machine]
    n = len(FAMILIES)
    steps = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        (AT_LEAST, n + 5, 0, OTHER_WAYS),
        (EQUAL, n + 4, 0, IO_URING),
        (EQUAL, 0, n + 2, socket_call),
        (LOAD, 0, 0, 16),  # seccomp_data.args[0], the family
        *[(EQUAL, n - i, 0, family) for i, family in enumerate(FAMILIES)],
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, UNKNOWN),
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
