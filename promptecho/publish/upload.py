"""Send a published folder to a model hub, in one commit; the token comes from the environment and is shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from promptecho.errors import ConfigError, DataError
from promptecho.hub_record import HUB_ID

TOKEN = "HF_TOKEN"
OWN = {".gitattributes"}  # files that the hub itself puts into a new repository


def check_upload(name: str) -> None:
    """Whether an upload can begin, before anything is made.

    Raises:
        ConfigError: no name owner/name, or no token in the environment.
    """
    if HUB_ID.fullmatch(name) is None:
        raise ConfigError(f"--upload {name}: expected owner/name, as the hub will call it")
    if not os.environ.get(TOKEN):
        raise ConfigError(f"--upload: {TOKEN} is not set; put a token of the hub that may write into the environment")


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Make the repository and send all files in one commit; returns the repository's address.

    Raises:
        ConfigError: as `check_upload`.
        DataError: the repository has files already, or the hub refuses or does not answer. What it says is told without
            the token.
    """
    check_upload(name)
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    token = os.environ[TOKEN]
    api = HfApi(token=token, library_name="promptecho")
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        if there := sorted(set(api.list_repo_files(name)) - OWN):
            raise DataError(
                f"{name}: has files on the hub already, such as {there[0]}; nothing is overwritten, give another name"
            )
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Adapter, card, evaluation and images")
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).replace(token, "***").split())[:400]
        raise DataError(
            f"{name}: the hub did not take it ({reason}); the folder {folder} is whole, try again"
        ) from None
    return address
