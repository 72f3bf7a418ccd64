"""Upload of a folder to a model on the Hugging Face Hub, by its own client; what it says never holds the token."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from earshot.kaggle.checks import check_folder

LOG_IN = (
    "log in by `hf auth login`, or set HF_TOKEN to a token that may write (huggingface.co: Settings, Access Tokens)"
)
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
LONGEST = 96  # characters of user/name
TOKEN = re.compile(r"\b(hf|api)_[A-Za-z0-9]{6,}|(?<=Bearer )\S+")


def check_model_name(name: str):
    """Raise unless `name` is user/name, as the hub takes it."""
    user, slash, model = name.partition("/")
    whole = NAME.fullmatch(user) and NAME.fullmatch(model) and "--" not in name and ".." not in name
    if not slash or not whole or len(name) > LONGEST or model.endswith(".git"):
        raise ValueError(
            f"--push-to-hub '{name}' must be user/name: letters, digits, and '-', '_', '.' between them, "
            f"{LONGEST} characters at most"
        )


def connect(name: str):
    """The hub's client, once a token is there and the hub knows whose it is: asked before hours of work."""
    import huggingface_hub as hub

    check_model_name(name)
    if not hub.get_token():
        raise ValueError(f"pushing to {name} needs a token of the Hugging Face Hub: {LOG_IN}")
    api = hub.HfApi(library_name="earshot")
    with _said(name):
        api.whoami()
    return api


def push_model(api, folder: Path, name: str, public: bool = False, say: Callable[[str], object] = print) -> str:
    """Upload what lies in `folder` as one commit, to a model that is made where it is not there -> its address.

    A new model is private but where `public`; of one that is there nothing is changed. A folder that holds a secret or
    a path of this machine is refused; whatever the hub does not take is a ValueError.
    """
    from huggingface_hub.utils import disable_progress_bars

    check_folder(folder)
    disable_progress_bars()  # the log has one line
    with _said(name):
        api.create_repo(name, private=not public, exist_ok=True, repo_type="model")
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a run of Earshot")
    say(f"{name}: pushed, {done.commit_url}")
    return done.commit_url


@contextmanager
def _said(name: str):
    """What the client raises becomes one line without the token."""
    from httpx2 import HTTPError  # which the client is made of
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        code = error.response.status_code
        remedy = f"; {LOG_IN}" if code in (401, 403) else ""
        raise ValueError(f"the hub refused {name} (HTTP {code}): {clean(error.server_message or str(error))}{remedy}"
                         ) from None  # fmt: skip
    except LocalTokenNotFoundError:
        raise ValueError(f"pushing to {name} needs a token of the Hugging Face Hub: {LOG_IN}") from None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise ValueError(f"the hub cannot be reached for {name}: {clean(str(error) or type(error).__name__)}") from None


def clean(text: str) -> str:
    """A message in one line, tokens blotted out."""
    return TOKEN.sub("***", " ".join(text.split()))[:300]
