"""Lets a command write to given places alone: `python no_writes.py FOLDER [FILE ...] -- COMMAND ...` (Linux).

The kernel's Landlock refuses every other file to be made, written, moved or removed, to the process and all that it
starts, for good and without rights: "Permission denied". It stands alone, so that it can be started by its path.
"""

import ctypes
import os
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # numbers of the system calls, on every machine
PATH_BENEATH, GET_VERSION, PR_SET_NO_NEW_PRIVS = 1, 1, 38
# write a file, remove a folder or file, make a device, folder, file, socket, pipe, block device or link
WRITES = 1 << 1 | sum(1 << bit for bit in range(4, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14  # move between folders (version 2), cut a file (version 3)
OF_FILES = 1 << 1 | TRUNCATE  # what may be allowed of a file; the rest is of folders
OLDEST = 2  # version: before it nothing could be moved between folders at all
SYSTEM = ("/dev", "/proc/self")


def confine(allowed):
    """Put the wall around this process; OSError where the system has none."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *arguments):
        result = libc.syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), "the system takes no Landlock rules")
        return result

    version = call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(GET_VERSION))
    if version < OLDEST:
        raise OSError(f"Landlock of version {version} cannot let files be moved")
    handled = WRITES | REFER | (TRUNCATE if version >= 3 else 0)
    attributes = ctypes.create_string_buffer(struct.pack("Q", handled), 8)
    rules = call(CREATE_RULESET, attributes, ctypes.c_size_t(8), ctypes.c_uint32(0))
    for path in allowed:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = handled if os.path.isdir(path) else handled & OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, file), 12)
        call(ADD_RULE, ctypes.c_int(rules), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0))
        os.close(file)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the system keeps no process from new rights")
    call(RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


if __name__ == "__main__":
    end = sys.argv.index("--")
    try:
        confine([*sys.argv[1:end], *(path for path in SYSTEM if os.path.exists(path))])
    except (OSError, AttributeError) as error:
        sys.exit(f"error: no wall around writing here: {error}")
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
