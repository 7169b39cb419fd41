"""Send a published folder to a model hub, in one commit; the token comes from the environment and is shown nowhere."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import quote

from promptecho.errors import ConfigError, DataError
from promptecho.hub_record import HUB_ID

TOKEN = "HF_TOKEN"
OWN = {".gitattributes"}  # files that the hub itself puts into a new repository


def check_upload(name: str) -> None:
    """Whether an upload can begin, before anything is made.

    Raises:
        ConfigError: no name owner/name, or no usable token in the environment.
    """
    if HUB_ID.fullmatch(name) is None:
        raise ConfigError(f"--upload {name}: expected owner/name, as the hub will call it")
    _token()


def _token() -> str:
    """The token without what surrounds it, such as the end of a line of the file that it was read from.

    Raises:
        ConfigError: there is none, or it holds what no header may hold. The value is not told.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(f"--upload: {TOKEN} is not set; put a token of the hub that may write into the environment")
    if re.fullmatch(r"[!-~]+", token) is None:
        raise ConfigError(
            f"--upload: {TOKEN} has a space, a control character or a letter outside of ASCII inside; set it to the "
            "token alone"
        )
    return token


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Make the repository and send all files in one commit; returns the repository's address.

    Raises:
        ConfigError: as `check_upload`.
        DataError: the repository has files already, or is public where it was to be private, or the hub refuses or does
            not answer. What it says is told without the token.
    """
    check_upload(name)
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    token = _token()
    api = HfApi(token=token, library_name="promptecho")
    again = shlex.join(["hf", "upload", name, str(folder), *(["--private"] if private else [])])
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        if private and api.repo_info(name).private is not True:  # one that was there stays as it was
            raise DataError(
                f"{name}: is there on the hub already and is not private; nothing was sent. Make it private there, "
                f"then: {again}"
            )
        if there := sorted(set(api.list_repo_files(name)) - OWN):
            raise DataError(
                f"{name}: has files on the hub already, such as {there[0]}; nothing is overwritten, give another name "
                f"to --upload and another folder to --out"
            )
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Adapter, card, evaluation and images")
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(_without(token, str(error)).split())[:400]
        raise DataError(
            f"{name}: the hub did not take it ({reason}); the folder {folder} is whole, send it with: {again}"
        ) from None
    return address


def _without(token: str, text: str) -> str:
    """A message without the token, also where it is quoted or escaped."""
    for form in (token, repr(token)[1:-1], quote(token, safe="")):
        text = text.replace(form, "***")
    return text
