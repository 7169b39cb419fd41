"""A trained adapter as a folder that a model hub takes: weights in three formats, a card made of the scores, images."""
