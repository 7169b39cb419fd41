"""Settings of clipscore."""

from pydantic import Field

from promptecho.config.descriptors import ModelOptions
from promptecho.config.fields import Text
from promptecho.shipped import CLIPS


class ClipScoreSection(ModelOptions):
    """Which CLIP, and what it reads."""

    shipped = tuple(CLIPS)

    path: Text = Field(
        "openai/clip-vit-large-patch14",
        description="Folder or hub id of a CLIP model; `shapes-clip`: a tiny one that ships with the project. The "
        "authors took ViT-B/32; scores of different models do not compare.",
    )
    prefix: str = Field("A photo depicts ", description="What stands before each prompt, as the authors have it.")
