"""What may leave this machine in a bundle: no secrets, no paths of it, no folder outside the one that is meant."""

from __future__ import annotations

import re
from pathlib import Path

from earshot.stored import read_json, want

SECRET_NAMES = re.compile(
    r"^(\.env.*|\.netrc|kaggle\.json|access_token|.*credentials.*|.*secret.*|id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|p12)"
    r"|wandb|\.git|\.ssh|\.aws|\.kaggle|\.config)$",
    re.IGNORECASE,
)
SECRET_TEXTS = {
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a Kaggle key": rb"\"key\"\s*:\s*\"[0-9a-f]{32}\"|KAGGLE_KEY\s*[=:]\s*\S|KGAT_[0-9a-f]{16}",
    "a Weights & Biases key": rb"WANDB_API_KEY\s*[=:]\s*\S|api\.wandb\.ai\s+login|\bwandb_v1_[A-Za-z0-9_]{30}",
    "an API key": rb"(?<![\w-])sk-(?:[a-z]+-)*(?:v1-)?(?:(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{20}|[0-9a-f]{32})",
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30}",
    "a GitHub token": rb"\bgh[opsu]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{30}",
    "an AWS key": rb"\bAKIA[0-9A-Z]{16}\b",
}
# 40 hexadecimal digits are a key where a name before them says so: commits have as many
FORTY = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
NAMED_KEY = re.compile(
    rb"(?:(?<![a-z])(?:api|access|wandb)?key|token|secret|password|wandb)[\"']?\]?(?:\s*[=:,]\s*|\s+)[\"']?$",
    re.IGNORECASE,
)
ABSOLUTE = re.compile(
    rb"(?<![\w./~:<>*\-])/(?:home|root|Users|tmp|mnt|media|srv|opt|private|workspace|work|data|scratch|content|var)/[\w.\-]+"
    rb"|\b[A-Z]:\\+(?:Users|Documents|data)\\+\w+"
)
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
USER = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
BLOCK = 1 << 20  # bytes of a file looked at together


def check_slug(slug: str) -> tuple[str, str]:
    """Part a name of Kaggle into user and name, or say what is wrong with it.

    'user/name' -> (user, name) as Kaggle takes them; anything else, a path among them, is an error.
    """
    user, slash, name = slug.partition("/")
    if not slash or not USER.fullmatch(user) or not SLUG.fullmatch(name):
        raise ValueError(
            f"--slug '{slug}' must be user/name: your Kaggle user name, and a name of small letters, digits and single "
            "hyphens"
        )
    if not 5 <= len(name) <= 44:
        raise ValueError(f"--slug '{slug}': the name has {len(name)} characters, Kaggle takes 5 to 44")
    return user, name


def identity(path: Path) -> str:
    """user/name in the metadata of a built data set or kernel, as `check_slug` takes it."""
    remedy = "build the bundle again with src/bundle.py"
    about = read_json(path, "file", remedy)
    want(about, {"id": str}, str(path), remedy)
    check_slug(about["id"])
    return about["id"]


def check_folder(folder: str | Path, called: str = "", paths: bool = True):
    """Raise where a file under `folder` looks like a secret, holds one, or (`paths`) names a path of this machine.

    Every problem found is in the message, of a folder that people know as `called`. Wheels are others' archives: their
    names are checked, not what they hold.
    """
    folder = Path(folder)
    problems = []
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder)
        if path.is_symlink():
            problems.append(f"{where} is a link to elsewhere")
        elif SECRET_NAMES.match(path.name):
            problems.append(f"{where} looks like a secret")
        elif path.is_file() and path.suffix != ".whl":
            problems += [f"{where} holds {what}" for what in file_problems(path, paths)]
    if problems:
        raise ValueError(f"{called or folder.name} must not be uploaded: {'; '.join(problems)}")


def file_problems(path: Path, paths: bool = True) -> list[str]:
    """Secrets and (`paths`) absolute paths in a file, each kind once; archives are looked into."""
    import zipfile

    if path.suffix == ".pyz":
        with zipfile.ZipFile(path) as archive:
            return [f"{p} (in {n})" for n in archive.namelist() for p in _problems(archive.read(n), paths)]
    found, tail = {}, b""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found |= dict.fromkeys(_problems(tail + block, paths))
            tail = block[-200:]
    return list(found)


def _problems(data: bytes, paths: bool) -> list[str]:
    found = [what for what, pattern in SECRET_TEXTS.items() if re.search(pattern, data)]
    if any(NAMED_KEY.search(data[max(0, m.start() - 60) : m.start()]) for m in FORTY.finditer(data)):
        found.append("an API key")
    if not paths:
        return found
    home = str(Path.home()).encode()
    if match := ABSOLUTE.search(data):
        found.append(f"the absolute path {match[0].decode()}")
    elif len(home) > 5 and home in data:
        found.append(f"the absolute path {home.decode()}")
    return found
