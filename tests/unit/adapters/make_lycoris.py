"""Write lycoris-*.safetensors, as LyCORIS' own code saves its kinds of adapters.

Run once, from tests/unit, in an environment that has lycoris-lora 4.1.3 beside this project's packages:
`PYTHONPATH=. python adapters/make_lycoris.py`. Two layers of a Z-Image block, weights by formula where they are LoRA.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from adapter_formula import pair
from lycoris import LycorisNetwork, create_lycoris

DIM, RANK, ALPHA = 16, 2, 3.0
LAYERS = ("layers.0.attention.to_q", "layers.0.attention.to_out.0")
KINDS = {
    "locon": {"algo": "locon"},
    "dora": {"algo": "locon", "dora_wd": True},
    "loha": {"algo": "loha"},
    "lokr": {"algo": "lokr", "factor": 4},
    "oft": {"algo": "diag-oft"},
    "boft": {"algo": "boft"},
    "ia3": {"algo": "ia3"},
    "glora": {"algo": "glora"},
    "full": {"algo": "full"},
    "tlora": {"algo": "tlora"},
}


def transformer() -> torch.nn.Module:
    torch.manual_seed(0)
    block, attention = torch.nn.Module(), torch.nn.Module()
    attention.to_q = torch.nn.Linear(DIM, DIM)
    attention.to_out = torch.nn.ModuleList([torch.nn.Linear(DIM, DIM)])
    block.attention = attention
    root = torch.nn.Module()
    root.layers = torch.nn.ModuleList([block])
    return root


def main() -> None:
    for kind, options in KINDS.items():
        LycorisNetwork.apply_preset({"target_name": [".*attention.*"], "target_module": []})
        model = transformer()
        network = create_lycoris(model, 1.0, linear_dim=RANK, linear_alpha=ALPHA, preset="full", **options)
        network.apply_to()
        generator = torch.Generator().manual_seed(1)
        for _, parameter in sorted(network.named_parameters()):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        for one in network.loras:
            if kind == "locon":
                name = next(layer for layer in LAYERS if one.lora_name == "lycoris_" + layer.replace(".", "_"))
                down, up = pair(name, (DIM, DIM), RANK)
                one.lora_down.weight.data, one.lora_up.weight.data = down.float(), up.float()
                torch.testing.assert_close(one.get_diff_weight(1.0)[0], (ALPHA / RANK * up @ down).float())
        path = Path(__file__).with_name(f"lycoris-{kind}.safetensors")
        network.save_weights(str(path), torch.float32, {})
        print(path.name, path.stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    main()
