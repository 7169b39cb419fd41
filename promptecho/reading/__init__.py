"""How a VLM reads prompts on images, word by word, as pages to look at."""
