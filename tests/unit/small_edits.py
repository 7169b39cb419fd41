"""`promptecho ARGUMENTS` with source images that are shown to the model smaller than the pipeline does, for time."""

from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

from promptecho.cli import main

pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE = 112 * 112
pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = 64 * 64
if __name__ == "__main__":
    main()
