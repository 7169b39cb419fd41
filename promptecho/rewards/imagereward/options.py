"""Settings of imagereward."""

from pydantic import Field

from promptecho.config.descriptors import ModelOptions, OwnModel
from promptecho.config.fields import Text

WEIGHTS, CONFIG, VOCABULARY = "ImageReward.pt", "med_config.json", "vocab.txt"


class ImageRewardSection(ModelOptions):
    """Which ImageReward, and whose vocabulary."""

    shipped = ()

    path: Text = Field(
        "THUDM/ImageReward",
        description=f"Folder or hub id with the authors' {WEIGHTS}, of which tensors alone are read, and {CONFIG}.",
    )
    tokenizer: Text = Field(
        "google-bert/bert-base-uncased",
        description=f"Folder or hub id with the {VOCABULARY} of BERT, uncased, that ImageReward was taught with.",
    )
    tokenizer_revision: Text | None = Field(
        None, description="Hub revision (commit) of the tokenizer; null: the folder as it is."
    )

    @property
    def models(self) -> dict[str, OwnModel]:
        return {
            "path": OwnModel(self.path, self.revision, "files", (WEIGHTS, CONFIG)),
            "tokenizer": OwnModel(self.tokenizer, self.tokenizer_revision, "tokenizer", (VOCABULARY,)),
        }
