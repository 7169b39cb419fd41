"""Settings of pickscore."""

from pydantic import Field

from promptecho.config.descriptors import ModelOptions
from promptecho.config.fields import Text
from promptecho.shipped import CLIPS


class PickScoreSection(ModelOptions):
    """Which PickScore."""

    shipped = tuple(CLIPS)

    path: Text = Field("yuvalkirstain/PickScore_v1", description="Folder or hub id of PickScore, a CLIP ViT-H/14.")
