"""Which files of a hub repository a model needs: weights as safetensors, configurations, tokenizers, licences."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from promptecho.errors import DataError, ModelError
from promptecho.files import read_json
from promptecho.models.required import ModelKind
from promptecho.pointers import pointer_problem

INDEX = "model_index.json"  # a diffusers pipeline
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "README.md")
LICENCES = ("LICENSE*", "NOTICE*")
TEXTS = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "*.md", *LICENCES)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The same weights once more, in another type or for another framework; transformers and diffusers ask for them by name.
_VARIANT = re.compile(r"\.(fp16|fp32|bf16|fp8|ema|non_ema)([.-]|$)")
_FOREIGN = ("consolidated*",)


def select_files(
    hub_id: str, names: Iterable[str], kind: ModelKind, *, components: Sequence[str] = (), code: bool = False,
    files: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """The files to fetch of a repository that has `names`, sorted.

    Args:
        components: folders of a pipeline's parts, as its model_index.json names them.
        code: take Python files too (`trust_remote_code`).
        files: take these, and licences, whatever else there is; what loads them reads nothing but tensors and texts.

    Raises:
        ModelError: weights that are only there as pickles, which run code when they are loaded; or no weights at all,
            or not all of `files`; or a name that leads out of the folder.
    """
    names = sorted(names)
    for name in names:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ModelError(f"{hub_id}: a file called {name!r} would lie outside of the model's folder; not fetched")
    if files:
        if absent := sorted({*files} - {*names}):
            raise ModelError(f"{hub_id}: has no {', '.join(absent)}; correct the name, or use another revision")
        return [name for name in names if name in files or any(fnmatch(name, pattern) for pattern in LICENCES)]
    if kind == "adapter":
        chosen = [name for name in names if name in ADAPTER]
        _check_weights(hub_id, chosen, [name for name in names if "/" not in name], "")
        return chosen
    folders = ["", *components] if kind == "pipeline" else [""]
    chosen = []
    for folder in folders:
        inside = [name for name in names if _folder_of(name) == folder]
        wanted = [name for name in inside if is_wanted(PurePosixPath(name).name, code)]
        if kind == "pipeline" and not folder:  # weights beside the parts are for other programs
            wanted = [name for name in wanted if not name.endswith(".safetensors")]
        else:
            _check_weights(hub_id, wanted, inside, folder)
        chosen += wanted
    if kind == "transformers":
        chosen += [name for name in names if fnmatch(name, "additional_chat_templates/*.jinja")]
        if code:
            chosen += [name for name in names if "/" in name and name.endswith(".py")]
    return sorted(chosen)


def pointers_in(folder: Path) -> str | None:
    """An error text for a model's folder in which files that are loaded are pointers of Git LFS; None if there is no
    pointer. Other pointers in the folder are ignored: people fetch what they need."""
    pipeline, parts = (folder / INDEX).is_file(), []
    if pipeline and pointer_problem(folder / INDEX) is None:
        with contextlib.suppress(DataError):  # a damaged index is reported by the loader
            index = read_json(folder / INDEX)
            names = index if isinstance(index, dict) else {}
            parts = [path for path in folder.iterdir() if path.is_dir() and path.name in names]
    elif not pipeline and not (folder / "config.json").is_file():
        return None  # an adapter: that of its files which is read is looked at then
    found = {}
    for path in sorted(path for place in (folder, *parts) for path in place.iterdir()):
        beside = pipeline and path.parent == folder and path.suffix == ".safetensors"
        loaded = is_wanted(path.name, code=False) and path.suffix not in ("", ".md") and not beside
        if loaded and path.is_file() and (problem := pointer_problem(path)):
            found[str(path.relative_to(folder))] = problem
    if not found:
        return None
    more = f" and {len(found) - 1} more of it" if len(found) > 1 else ""
    first, problem = next(iter(found.items()))
    return f"{folder / first}{more}: {problem}"


def _folder_of(name: str) -> str:
    folder = str(PurePosixPath(name).parent)
    return "" if folder == "." else folder


def is_wanted(name: str, code: bool) -> bool:
    if name.endswith(".safetensors") or name.endswith(".safetensors.index.json"):
        return not _VARIANT.search(name) and not any(fnmatch(name, pattern) for pattern in _FOREIGN)
    if name.endswith(".bin.index.json"):
        return False
    return any(fnmatch(name, pattern) for pattern in TEXTS) or (code and name.endswith(".py"))


def _check_weights(hub_id: str, wanted: list[str], inside: list[str], folder: str) -> None:
    if any(name.endswith(".safetensors") for name in wanted):
        return
    pickles = [name for name in inside if PurePosixPath(name).suffix in PICKLES]
    if pickles:
        raise ModelError(
            f"{hub_id}: {pickles[0]} is a pickle, which runs code when it is loaded, and there are no safetensors "
            "beside it; convert it where you trust it and give the folder, or use another revision"
        )
    parts = {PurePosixPath(name).name for name in wanted}  # schedulers, tokenizers and processors have no weights
    if not folder or ("config.json" in parts and not parts & {"tokenizer_config.json", "preprocessor_config.json"}):
        raise ModelError(f"{hub_id}: no safetensors in {f'{folder}/' if folder else 'it'}; is it a model?")
