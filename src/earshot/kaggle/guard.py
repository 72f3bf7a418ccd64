"""What a dry run puts around a kernel, inside its Python: copied there as sitecustomize.py, it stands alone.

guard.json beside it may say more: `blocked` {import name: why}, `stand_ins` [import names that come from this machine's
packages although a wheel has them], `working` (the one folder to write to), `log` (a file for what is written
elsewhere).
"""

import importlib.abc
import importlib.machinery
import json
import os
import socket
import sys

HEAVY = ("torch", "timm", "torchlibrosa")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# event: places among its arguments of the paths that it changes, each with that of the folder they are relative to
CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
    "shutil.rmtree": ((0, 1),),
    "sqlite3.connect": ((0, None),),
}


def refuse(*_, **__):
    raise OSError("no network: this is a dry run")


class Gate(importlib.abc.MetaPathFinder):
    """Refuses what Kaggle's image would not have, and what no kernel should import."""

    def __init__(self, blocked, stand_ins):
        self.blocked, self.stand_ins, self.here = blocked, set(stand_ins), list(sys.path)

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in HEAVY:
            raise ImportError(f"a kernel imports no {name}")
        if name == top and top in self.blocked and not in_wheels(top, self.here):
            raise ModuleNotFoundError(f"No module named '{name}' ({self.blocked[top]})", name=name)
        if name in self.stand_ins:
            return importlib.machinery.PathFinder.find_spec(name, self.here)
        return None


def in_wheels(name, here):
    """Whether a folder that the kernel itself put on the path, where it unpacks wheels, has it."""
    added = [entry for entry in sys.path if entry not in here and os.path.isdir(entry)]
    return bool(added) and importlib.machinery.PathFinder.find_spec(name, added) is not None


def watch(working, log):
    """Write to `log` what is opened for writing, made, moved or removed anywhere but in `working`."""
    out = open(log, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115, open to the end
    allowed = (os.path.realpath(working), "/dev", "/proc")

    def note(path, folder=None):
        if isinstance(path, int) or path is None or os.fsdecode(path) == ":memory:":
            return
        if isinstance(folder, int) and folder >= 0:  # an open folder that the path is relative to
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        real = os.path.realpath(os.fsdecode(path))
        if not any(real == folder or real.startswith(folder + os.sep) for folder in allowed):
            out.write(real.replace("\n", "\\n") + "\n")

    def hook(event, arguments):
        if event == "open":
            if isinstance(arguments[2], int) and arguments[2] & WRITES:
                note(arguments[0])
        elif event in CHANGES:
            for path, folder in CHANGES[event]:
                if path < len(arguments):
                    note(arguments[path], None if folder is None or folder >= len(arguments) else arguments[folder])

    sys.addaudithook(hook)


def main():
    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.json")
    about = {}
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
    sys.meta_path.insert(0, Gate(about.get("blocked", {}), about.get("stand_ins", ())))
    if about.get("log"):
        watch(about["working"], about["log"])


if __name__ == "sitecustomize":
    main()
