"""A built bundle -> Kaggle, through its official client: data set, kernel, its run, its output. Needs a token.

The client is imported here only. It takes a token from KAGGLE_API_TOKEN, from KAGGLE_USERNAME and KAGGLE_KEY, or from
the files in ~/.kaggle that it describes; nothing here reads or stores one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from earshot.kaggle.checks import check_folder, identity
from earshot.kernel.manifest import identity_of
from earshot.messages import install_line
from earshot.stored import read_json

TOKEN_HELP = (
    "Kaggle's client found no token. On kaggle.com: Settings, API, create a token; then export KAGGLE_API_TOKEN, "
    "or save kaggle.json as ~/.kaggle/kaggle.json (chmod 600), or export KAGGLE_USERNAME and KAGGLE_KEY"
)
MISSING = re.compile(r"No module named '([\w.]+)'")
OTHER_PYTHON = re.compile(r"Python (\d+\.\d+), the bundle and its wheels were made for (\d+\.\d+)")
FAILED = re.compile(r'FAILED: ([^"\\\n]+)')  # lines of run_kernel.py, in the JSON of Kaggle's log
NOT_USED = re.compile(r'note: (\S+ is not used: [^"\\\n]+)')  # a table of another form than the one that is known
NO_NETWORK_RAN = "no network of the bundle runs here"
REPORT = "submission_report.json"
POLL_SECONDS, WAIT_SECONDS = 20.0, 12 * 3600.0
ENDED = ("complete", "error", "cancel")  # what the status of a kernel begins with when it is over


def connect():
    """Kaggle's client, logged in; without client or token an error that says what to do."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        raise ValueError(f"pushing needs Kaggle's client: {install_line('kaggle')}") from error
    api = KaggleApi()
    try:
        api.authenticate()
    except SystemExit as error:  # the client ends the process where there is no token
        raise ValueError(TOKEN_HELP) from error
    return api


def push(
    build: Path, message: str, api=None, wait: bool = True, say=print, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Upload kernels/<name>/build: a new data set or a new version of it, then the kernel; returns its last status.

    With `wait` the output of the finished kernel lies in build/output. What the client refuses is a ValueError.
    """
    dataset, kernel = build / "dataset", build / "kernel"
    for path in (dataset / "dataset-metadata.json", kernel / "kernel-metadata.json"):
        if not path.is_file():
            raise ValueError(f"{path} does not exist; build the bundle first: src/bundle.py --runs ... --slug ...")
    check_folder(build)
    api = api or connect()
    dataset_id = identity(dataset / "dataset-metadata.json")
    kernel_id = identity(kernel / "kernel-metadata.json")
    _upload(api, dataset, dataset_id, message, say)
    _wait(lambda: str(api.dataset_status(dataset_id)), ("ready", "error"), f"data set {dataset_id}", say, sleep)
    response = api.kernels_push(str(kernel))
    _refuse(response, f"kernel {kernel_id}")
    _refuse_without_inputs(response, kernel_id)
    say(f"kernel {kernel_id}: pushed, version {getattr(response, 'version_number', '?')}")
    if not wait:
        return "pushed"
    status = _wait(lambda: _status(api, kernel_id), ENDED, f"kernel {kernel_id}", say, sleep)
    output = build / "output"
    api.kernels_output(kernel_id, str(output), force=True)
    say(f"kernel {kernel_id}: {status}; its output lies in {output}")
    lacks = explain(output) + other_version(output, dataset)
    for line in lacks:
        say(line)
    if not status.startswith("complete"):
        raise ValueError(f"kernel {kernel_id} ended as '{status}': its log lies in {output}")
    if lacks:
        raise ValueError(f"kernel {kernel_id} ended well, but did not run as it should: see above, and {output}")
    return status


def explain(output: Path) -> list[str]:
    """What a kernel's log says of packages that Kaggle's image lacks, or has otherwise, and what to do about it."""
    text = "\n".join(p.read_text(encoding="utf-8", errors="replace") for p in sorted(output.glob("*.log")))
    found = []
    for top in dict.fromkeys(name.split(".")[0] for name in MISSING.findall(text)):
        found.append(
            f"Kaggle's image has no package that gives '{top}', or cannot load it. Fetch its wheel for the image "
            "(src/bundle.py --fetch-wheels DIR for the runtime of a graph, else pip download into that folder), then "
            "build with --wheels DIR and push again"
        )
    if match := OTHER_PYTHON.search(text):
        found.append(
            f"Kaggle runs Python {match[1]}, the bundle was made for {match[2]}: make a new list of the image (docs/"
            "kernels.md), fetch the wheels again with --image-packages FILE, build and push again"
        )
    if NO_NETWORK_RAN in text:
        found.append("no network of the bundle ran: the submission holds the training priors alone")
    failed = [line.strip() for line in dict.fromkeys(FAILED.findall(text)) if NO_NETWORK_RAN not in line]
    found += [f"the kernel says that something failed: {line}" for line in failed]
    found += [f"the kernel says: {line.strip()}" for line in dict.fromkeys(NOT_USED.findall(text))]
    return found


def other_version(output: Path, dataset: Path) -> list[str]:
    """That the kernel was run with an older version of the data set, as Kaggle does while the newest is not ready."""
    report = output / REPORT
    ran_with = read_json(report, "report").get("bundle", "") if report.is_file() else ""
    if not ran_with or ran_with == identity_of(dataset):
        return []
    return [
        "the kernel ran with another version of its data set than the one that was uploaded: wait until Kaggle shows "
        "the new version, then push again"
    ]


def _upload(api, folder: Path, dataset_id: str, message: str, say):
    """A new version where the data set is there already, else a new, private data set."""
    if _exists(api, dataset_id):
        response = api.dataset_create_version(str(folder), message, quiet=True, dir_mode="zip")
    else:
        response = api.dataset_create_new(str(folder), public=False, quiet=True, dir_mode="zip")
    _refuse(response, f"data set {dataset_id}")
    say(f"data set {dataset_id}: uploaded")


def _exists(api, dataset_id: str) -> bool:
    from requests.exceptions import HTTPError

    try:
        api.dataset_status(dataset_id)
        return True
    except HTTPError as error:
        if error.response is not None and error.response.status_code in (403, 404):
            return False  # Kaggle says "forbidden" of what does not exist
        raise ValueError(f"Kaggle does not answer for data set {dataset_id}: {error}") from error


def _refuse(response, what: str):
    reason = getattr(response, "error", "") or ""
    if reason or str(getattr(response, "status", "") or "").lower() == "error":
        raise ValueError(f"Kaggle refused {what}: {reason or 'no reason given'}")


def _refuse_without_inputs(response, kernel_id: str):
    """Kaggle takes a kernel whose inputs it does not find, or may not give, and runs it without them."""
    if lost := getattr(response, "invalid_competition_sources", None):
        raise ValueError(
            f"kernel {kernel_id} was pushed without the competition {', '.join(lost)}, and will not do: accept its "
            "rules on kaggle.com (Join Competition), then push again"
        )
    if lost := getattr(response, "invalid_dataset_sources", None):
        raise ValueError(
            f"kernel {kernel_id} was pushed without the data set {', '.join(lost)}, and will not do: look on "
            "kaggle.com whether it is there, then push again"
        )


def _status(api, kernel_id: str) -> str:
    """'complete', 'running', ... whatever the client wraps it in."""
    status = api.kernels_status(kernel_id).status
    return str(getattr(status, "name", status)).lower().removeprefix("kernelworkerstatus.")


def _wait(ask: Callable[[], str], until: tuple[str, ...], what: str, say, sleep) -> str:
    """Ask until the answer begins with one of `until`; a new answer is said."""
    last, waited = "", 0.0
    while not last.startswith(until):
        if waited > WAIT_SECONDS:
            raise ValueError(f"{what} is still '{last}' after {WAIT_SECONDS / 3600:g} hours: look at it on kaggle.com")
        if last:
            sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        answer = ask().lower()
        if answer != last:
            say(f"{what}: {answer}")
        last = answer
    if last.startswith("error") and what.startswith("data set"):
        raise ValueError(f"{what}: Kaggle could not process it")
    return last
