"""Adapters from elsewhere: find them, check them against the model, and write them as this project's adapter folders.

Read are PEFT folders (adapter_config.json + adapter_model.safetensors) and LoRA files of diffusers and other trainers.
Only plain LoRA on linear layers: what else a file may hold would be left out in silence by one loader or another, so
it is refused. Pickles are refused: loading one runs the code in it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from promptecho.config.families import Family, misfit
from promptecho.errors import ConfigError, DataError, ModelError, counted
from promptecho.files import sha256_file
from promptecho.hub_record import HUB_ID, read_record
from promptecho.models import hub_access
from promptecho.models.locate import locate_model
from promptecho.t2i.adapter_files import write_adapter
from promptecho.t2i.lora_files import DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE, Lora, read_lora_file, read_peft

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Target(NamedTuple):
    """What an adapter must fit: the model's family and the (out, in) features of the transformer's linear layers."""

    family: Family
    linears: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Imported:
    """Facts of a converted adapter; `ranks` and `alphas` count the modules that have each value.

    `note`: where an alpha comes from that the source does not tell.
    """

    source: str
    form: str
    revision: str | None
    modules: int
    ranks: dict[str, int]
    alphas: dict[str, int]
    use_rslora: bool
    sha256: dict[str, str]
    note: str = ""

    def describe(self) -> str:
        """One line."""
        ranks, alphas = (_counts(values) for values in (self.ranks, self.alphas))
        rslora = ", rank-stabilised" if self.use_rslora else ""
        note = f" ({self.note})" if self.note else ""
        modules = counted(self.modules, "module")
        return f"rank {ranks}, alpha {alphas}{rslora}{note}, {modules}; {self.form} from {self.source}"


def _counts(values: dict[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({counted(count, 'module')})" for value, count in values.items())


def locate_adapter(source: str, cache: Path | None = None, revision: str | None = None, **hub: Any) -> Path:
    """The adapter as a path here: a folder or file as it is, or the adapter files of a hub id `owner/name`, as fetched
    or else downloaded into `cache` (default: Hugging Face's own). `hub` goes to `snapshot_download` (endpoint, ...).

    Raises:
        ConfigError: a revision is given for a folder.
        DataError: neither a path nor a hub id that is available.
        ModelError: fetched at another revision; or it is not on this machine and the hub may not be asked.
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise ConfigError(f"{source}: a folder has no revision ({revision}); leave it out, or give a hub id")
        return path
    if not HUB_ID.fullmatch(source):
        raise DataError(f"{source}: no such folder or file, and no hub id (owner/name) either")
    # An endpoint that is given is asked as it is: `locate_model` looks for the site's own. Where the hub is
    # forbidden, none is asked.
    if ("endpoint" not in hub or hub_access.forbidden()) and (known := locate_model(source, revision)) != source:
        return Path(known)
    import httpx2
    from huggingface_hub import HfApi, snapshot_download

    where = {"revision": revision, "cache_dir": cache, **hub}
    try:
        found = Path(snapshot_download(source, allow_patterns=[PEFT_CONFIG, PEFT_FILE, DIFFUSERS_FILE], **where))
        if not list(found.glob("*.safetensors")):
            names = HfApi(endpoint=hub.get("endpoint")).list_repo_files(source, revision=revision)
            snapshot_download(source, allow_patterns=[_only_file(source, names)], **where)
    except (OSError, ValueError, httpx2.HTTPError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{source}: no such folder, and the hub does not give it ({reason}); without network, download it "
            "elsewhere and give its folder"
        ) from error
    return found


def _only_file(source: str, names: list[str]) -> str:
    """The one LoRA file of a repository that has none of the usual names."""
    files = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if len(files) > 1:
        some = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        raise DataError(f"{source}: the hub has several weight files ({some}); download one, and give its path")
    if not files:
        raise DataError(f"{source}: the hub's folder has no LoRA file ending in .safetensors; pickles are not read")
    return files[0]


def load_target(family: Family, path: str, revision: str | None = None) -> Target:
    """The layers of a pipeline's transformer, from its configuration files alone: no weights are read.

    Raises:
        ModelError: the pipeline cannot be read, or it is not of this family.
    """
    import diffusers

    path = locate_model(path, revision)
    if problem := misfit(family, path):
        raise ModelError(f"{path}: {problem}")
    try:
        transformer_class = getattr(diffusers, family.transformer_class)
        config = transformer_class.load_config(path, subfolder="transformer", revision=revision)
        with torch.device("meta"):
            transformer = transformer_class.from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: cannot read the pipeline's configuration ({reason}); check models.t2i") from error
    linears = {
        module_name: (module.out_features, module.in_features)
        for module_name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    return Target(family, linears)


def read_adapter(source: Path, family: Family, alpha: float | None = None) -> tuple[str, Path, Lora]:
    """What kind of adapter `source` is (`find_weights`), the path of it, and the adapter; arguments and errors as of
    `convert_adapter`."""
    form, path = find_weights(source)
    if form == "PEFT folder" and alpha is not None:
        raise ConfigError(f"{path / PEFT_CONFIG} tells alpha; leave --alpha (`alpha:` in the configuration) out")
    return form, path, read_peft(path) if form == "PEFT folder" else read_lora_file(path, family, alpha)


def convert_adapter(
    source: Path, out: Path, target: Target, *, alpha: float | None = None, origin: str | None = None
) -> Imported:
    """Write an adapter from elsewhere as an adapter folder (`runs/R/N/adapter`); its `source.json` says from where.

    Args:
        source: a PEFT folder, a folder with diffusers' file or one other safetensors file, or such a file.
        out: the folder to write; nothing is there unless all went well.
        target: what it must fit.
        alpha: what it was trained with, for a file that does not tell it; None: strength 1 there, as in diffusers.
        origin: what the user gave as the source, for the record.

    Raises:
        DataError: no adapter, a pickle, damaged, not finite, all zero, not plain LoRA, or a module is unknown, missing
            or of another shape (names the first).
    """
    form, path, lora = read_adapter(source, target.family, alpha)
    _check_fit(lora, target, path)
    _check_values(lora, path)
    files = [path / PEFT_CONFIG, path / PEFT_FILE] if form == "PEFT folder" else [path]
    ranks = Counter(str(pair.rank) for pair in lora.pairs.values())
    alphas = Counter(f"{pair.alpha:g}" for pair in lora.pairs.values())
    imported = Imported(
        source=origin or str(source),
        form=form,
        revision=_commit(source),
        modules=len(lora.pairs),
        ranks=dict(ranks.most_common()),
        alphas=dict(alphas.most_common()),
        use_rslora=lora.use_rslora,
        sha256={file.name: sha256_file(file) for file in files},
        note=lora.note,
    )
    _write(lora, out, target, imported)
    return imported


def _commit(source: Path) -> str | None:
    """The commit of an adapter that was fetched, or that lies in the hub's cache, which has a folder for each."""
    if source.is_dir() and (record := read_record(source)) is not None:
        return record.commit
    return source.name if source.parent.name == "snapshots" else None


def find_weights(source: Path) -> tuple[str, Path]:
    """What kind of adapter is there: ("PEFT folder", folder) or ("LoRA file", file).

    Raises:
        DataError: none, several, or pickles only.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() not in (*PICKLES, ".json"):
        return "LoRA file", source  # whatever its name is: what it holds decides
    files = [source] if source.is_file() else sorted(path for path in source.glob("*") if path.is_file())
    weights = {path.name: path for path in files if path.suffix.lower() == ".safetensors"}
    if source.is_dir() and (source / PEFT_CONFIG).is_file() and PEFT_FILE in weights:
        return "PEFT folder", source
    if DIFFUSERS_FILE in weights:
        return "LoRA file", weights[DIFFUSERS_FILE]
    if len(weights) == 1 and not (source / PEFT_CONFIG).is_file():
        return "LoRA file", next(iter(weights.values()))
    if len(weights) > 1:
        raise DataError(f"{source}: several weight files ({', '.join(sorted(weights))}); give the adapter's own file")
    pickles = [path for path in files if path.suffix.lower() in PICKLES]
    if pickles:
        raise DataError(
            f"{pickles[0]}: a pickle, which runs code when it is loaded, so it is not; ask for the adapter as "
            "safetensors, or convert it where you trust it"
        )
    raise DataError(f"{source}: no adapter in it; expected {PEFT_CONFIG} with {PEFT_FILE}, or {DIFFUSERS_FILE}")


def _check_fit(lora: Lora, target: Target, where: Path) -> None:
    """Every module of the adapter exists with these shapes, and none that it should have is missing."""
    no_fit = f"{where}: the adapter does not fit this text-to-image model"
    for name, pair in sorted(lora.pairs.items()):
        if name not in target.linears:
            raise DataError(f"{no_fit}: it has no linear layer {name}")
        found = (pair.up.shape[0], pair.down.shape[1])
        if found != target.linears[name]:
            expected = " x ".join(map(str, target.linears[name]))
            raise DataError(f"{no_fit}: {name} is {expected} (out x in), the adapter's {found[0]} x {found[1]}")
    missing = [name for name in sorted(target.linears) if name not in lora.pairs and lora.targets(name)]
    if missing:
        raise DataError(f"{no_fit}: its configuration targets {missing[0]}, for which there are no weights")


def _check_values(lora: Lora, where: Path) -> None:
    """All numbers are finite, and the adapter changes something."""
    for name, pair in sorted(lora.pairs.items()):
        for half, weight in (("lora_A", pair.down), ("lora_B", pair.up)):
            if bad := int((~torch.isfinite(weight)).sum()):
                raise DataError(
                    f"{where}: {name}: {bad} of the {weight.numel()} values of {half} are not finite; its training "
                    "diverged, or the file is damaged"
                )
        if not math.isfinite(pair.alpha):
            raise DataError(f"{where}: {name}: alpha is {pair.alpha}; the file is damaged")
    if not any(pair.alpha and pair.down.any() and pair.up.any() for pair in lora.pairs.values()):
        raise DataError(
            f"{where}: it changes nothing: of every pair one half, or alpha, is all zero; was it saved before training?"
        )


def _write(lora: Lora, out: Path, target: Target, imported: Imported) -> None:
    from peft import LoraConfig

    rank = Counter(pair.rank for pair in lora.pairs.values()).most_common(1)[0][0]
    alpha = Counter(pair.alpha for pair in lora.pairs.values()).most_common(1)[0][0]
    state = {}
    for name, pair in lora.pairs.items():
        state[f"base_model.model.{name}.lora_A.weight"] = pair.down
        state[f"base_model.model.{name}.lora_B.weight"] = pair.up
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides it, as any number
        # Names from the root, and patterns anchored there: each means one module.
        target_modules=sorted(lora.pairs),
        rank_pattern={f"^{name}": pair.rank for name, pair in sorted(lora.pairs.items()) if pair.rank != rank},
        alpha_pattern={f"^{name}": pair.alpha for name, pair in sorted(lora.pairs.items()) if pair.alpha != alpha},
        use_rslora=lora.use_rslora,
    )
    write_adapter(out, state, config, target.family, {"source.json": asdict(imported)})
