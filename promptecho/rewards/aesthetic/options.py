"""Settings of aesthetic."""

from pydantic import Field

from promptecho.config.descriptors import ModelOptions
from promptecho.config.fields import Text
from promptecho.shipped import CLIPS


class AestheticSection(ModelOptions):
    """Which CLIP, and which head on its image embedding."""

    shipped = tuple(CLIPS)

    path: Text = Field(
        "openai/clip-vit-large-patch14", description="Folder or hub id of the CLIP model that the head was taught on."
    )
    head: Text = Field(
        "models/sac+logos+ava1-l14-linearMSE.pth",
        description="File with the head's weights: linear layers, one after another, as safetensors or as a .pth, of "
        "which tensors alone are read (docs/rewards.md says where it is). Relative to where you start.",
    )

    @property
    def files(self) -> dict[str, str]:
        return {"head": self.head}
