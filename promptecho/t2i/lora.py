"""The LoRA adapter: adding it, its weights by name, saving and loading it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from promptecho.config.families import Family
from promptecho.config.training_parts import LoraSection
from promptecho.errors import DataError, ModelError, counted
from promptecho.seeds import derive_seed
from promptecho.t2i.adapter_files import write_adapter
from promptecho.t2i.lora_linear import AdaptedWeights, lora_linear


def add_lora(
    transformer: torch.nn.Module, lora: LoraSection, seed: int, targets: Mapping[str, Sequence[str]]
) -> PeftModel:
    """Wrap `transformer` with a fresh adapter in float32; its initial values depend on `seed` alone.

    Weights, gradients and optimizer are float32. Products are computed in the type of what flows through the layer, as
    `torch.autocast` would: their result is rounded to that type anyway, where it joins the base layer's.

    Args:
        targets: the family's own lists by `lora.layers`, where `lora.target_modules` names none.

    Raises:
        ModelError: a target module does not exist in this transformer.
    """
    chosen = _for_peft(
        transformer, adapted_layers(transformer, lora, targets), lora.target_modules or targets[lora.layers]
    )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides it, as any number
        target_modules=chosen,
        init_lora_weights="gaussian" if lora.init == "gaussian" else True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        model = get_peft_model(transformer, config)
    for parameter in trained_parameters(model).values():
        parameter.data = parameter.data.float()
    return _computing_as_the_base(model)


def adapted_layers(transformer: torch.nn.Module, lora: LoraSection, targets: Mapping[str, Sequence[str]]) -> set[str]:
    """Names of the linear layers that get an adapter; arguments and errors as of `add_lora`."""
    return adapted_among(linear_layers(transformer), lora, targets)


def linear_layers(transformer: torch.nn.Module) -> set[str]:
    """Names of all linear layers."""
    return {name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}


def adapted_among(names: Collection[str], lora: LoraSection, targets: Mapping[str, Sequence[str]]) -> set[str]:
    """`adapted_layers` of a transformer with linear layers of these names."""
    found = set()
    for target in sorted(lora.target_modules or targets[lora.layers]):
        ending = {name for name in names if f".{name}".endswith(f".{target}")}
        if not ending:
            raise ModelError(f"training.lora.target_modules: no linear layer of the transformer ends in {target!r}")
        found |= ending
    return found


def _for_peft(transformer: torch.nn.Module, layers: Collection[str], endings: Collection[str]) -> list[str]:
    """`endings` for PEFT, which refuses those that also fit what is no linear layer, such as a list of layers: in their
    place the whole names of the linear layers that they fit."""
    others = {name for name, _ in transformer.named_modules()} - linear_layers(transformer)
    chosen: set[str] = set()
    for ending in endings:
        if any(f".{name}".endswith(f".{ending}") for name in others):
            chosen |= {name for name in layers if f".{name}".endswith(f".{ending}")}
        else:
            chosen.add(ending)
    return sorted(chosen)


class _CastLinear(torch.nn.Linear):
    """Weights as they are kept, products in the type of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight.to(x.dtype))


class _LoraLinear(PeftLinear):
    """PEFT's layer, computed as one operator in half precision. In float32 it is PEFT's own, to the bit."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters and not (args or kwargs or self.merged):
            return self.base_layer(x)
        weights = None if args or kwargs else self.adapted_weights(x)
        return super().forward(x, *args, **kwargs) if weights is None else lora_linear(x, weights)[0]

    def adapted_weights(self, x: torch.Tensor) -> AdaptedWeights | None:
        """What the operator takes, where it computes the layer's result for x."""
        if self.disable_adapters or self.merged or self.cast_input_dtype_enabled:
            return None
        base: Any = self.base_layer
        a: Any
        b: Any
        a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
        if x.dtype == torch.float32 or x.dtype != base.weight.dtype:
            return None
        return AdaptedWeights(base.weight, base.bias, a, b, self.scaling["default"])


def _computing_as_the_base(model: PeftModel) -> PeftModel:
    """PEFT would compute a float32 adapter in float32, input and result too: on a GPU that costs half a pass more.

    Layers of other kinds than plain LoRA (DoRA, biases), which adapters from elsewhere may have, are left as PEFT
    computes them.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        linears = [*layer.lora_A.values(), *layer.lora_B.values()]
        if all(type(one) is torch.nn.Linear and one.bias is None for one in linears) and not layer.lora_variant:
            layer.cast_input_dtype_enabled = False
            for one in linears:
                one.__class__ = _CastLinear
            plain = type(layer) is PeftLinear and type(layer.get_base_layer()) is torch.nn.Linear
            dropouts = [type(one) for one in layer.lora_dropout.values()]
            if plain and list(layer.lora_A) == ["default"] and dropouts == [torch.nn.Identity]:
                layer.__class__ = _LoraLinear
    return model


def compute_apart(model: torch.nn.Module) -> None:
    """Have base and adapter computed by the modules that own their weights, as PEFT does it.

    For weights that are partitioned over ranks (ZeRO-3): a module gathers its own before it is called and lets them go
    after it; a weight that another module's pass reads is gathered on the spot, and stays.
    """
    for layer in model.modules():
        if type(layer) is _LoraLinear:
            layer.__class__ = PeftLinear  # type: ignore[assignment]


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name, sorted."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


@contextmanager
def merged(model: torch.nn.Module, *, half: bool = False) -> Iterator[None]:
    """Run `model` with the adapter folded into its base weights: passes without gradient cost what the base model's do.

    Where the base weights are float32; with `half` also where they are bfloat16 (`rounded` says how). Not where the
    weights are partitioned over ranks (ZeRO-3). The base weights are put back as they were, bit for bit; meanwhile
    there are two of each (`folded_bytes`).
    """
    if not isinstance(model, PeftModel):  # it has no adapter, but trained weights of its own
        yield
        return
    # Their common class does not declare what each kind of them has.
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    foldable = (torch.float32, torch.bfloat16) if half else (torch.float32,)
    if any(weight.dtype not in foldable or hasattr(weight, "ds_id") for weight in weights):
        yield
        return
    kept = [layer.get_base_layer().weight.data for layer in layers]
    with torch.no_grad():
        for index, (layer, weight) in enumerate(zip(layers, kept, strict=True)):
            folded = weight + layer.get_delta_weight("default").to(weight.device)
            layer.get_base_layer().weight.data = folded if weight.dtype == torch.float32 else rounded(folded, index)
    try:
        with model.disable_adapter():
            yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data = weight


def rounded(values: torch.Tensor, seed: int) -> torch.Tensor:
    """float32 to bfloat16, up or down by chance in proportion to the distance: right on average.

    To the nearest, all of an adapter that is small beside its weights' last digit would be lost. The same seed gives
    the same bits.
    """
    generator = torch.Generator(values.device).manual_seed(seed)
    chance = torch.randint(0, 1 << 16, values.shape, generator=generator, dtype=torch.int32, device=values.device)
    # A bfloat16 is the upper half of a float32's bits.
    return ((values.float().view(torch.int32) + chance) & -(1 << 16)).view(torch.float32).bfloat16()


def folded_bytes(model: torch.nn.Module, *, half: bool) -> int:
    """What `merged` takes beside the weights themselves."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    foldable = (torch.float32, torch.bfloat16) if half else (torch.float32,)
    if any(weight.dtype not in foldable for weight in weights):
        return 0
    return sum(weight.numel() * weight.element_size() for weight in weights)


def save_adapter(model: PeftModel, weights: dict[str, torch.Tensor], folder: Path, family: Family) -> None:
    """Save `weights` (as `trained_parameters` names them) as a PEFT folder with files for diffusers and ComfyUI, too.

    `pytorch_lora_weights.safetensors` carries rank and alpha as metadata; without it diffusers would load the
    adapter at half strength for alpha = 2 r.
    """
    named = get_peft_model_state_dict(model, state_dict=dict(weights))
    state = {name: value.detach().to("cpu", torch.float32) for name, value in named.items()}
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig), "`add_lora` made it"
    write_adapter(folder, state, config, family)


def load_adapter(transformer: torch.nn.Module, folder: Path) -> PeftModel:
    """Put a saved PEFT adapter onto a transformer for inference.

    Raises:
        DataError: the folder is incomplete or does not fit the transformer.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise DataError(f"{folder}: {name} is missing; is this an adapter folder (runs/R/N/adapter)?")
    try:
        model = _computing_as_the_base(PeftModel.from_pretrained(transformer, str(folder)).eval())
        wanted = get_peft_model_state_dict(model).keys()
        found = load_file(Path(folder) / "adapter_model.safetensors").keys()
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{folder}: the adapter does not fit this text-to-image model ({reason})") from error
    if wanted != found:  # PEFT only warns of it
        odd = sorted(wanted ^ found)
        raise DataError(
            f"{folder}: the adapter does not fit this text-to-image model: "
            f"{counted(len(odd), 'layer is', 'layers are')} in one of the two only, such as {odd[0]}"
        )
    return model
