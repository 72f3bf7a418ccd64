"""Answers synth with the data set user/earshot-demo-files. Made by Earshot; runs offline, on CPUs."""
import os
import runpy
import sys
import tempfile
import zipfile
from pathlib import Path

INPUT = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("KAGGLE_WORKING", "/kaggle/working"))
MINUTES = os.environ.get("KERNEL_MINUTES", "108")


def find(name):
    """The file or folder of this name, at most four folders below INPUT."""
    found = (path for depth in range(5) for path in INPUT.glob("*/" * depth + name))
    return next(found, INPUT / name)


bundle = find("earshot-demo-files/bundle.json").parent
libraries = tempfile.mkdtemp()
for wheel in sorted(bundle.glob("*.whl")):
    zipfile.ZipFile(wheel).extractall(libraries)
sys.path.insert(0, libraries)

sys.argv = ["run_kernel.py", "--bundle", str(bundle), "--competition", "synth"]
sys.argv += ["--test-folder", str(find("synth") / "test_audio"), "--minutes", MINUTES]
sys.argv += ["--out", str(WORKING / "submission.csv")]
runpy.run_path(str(bundle / "earshot.pyz"), run_name="__main__")
