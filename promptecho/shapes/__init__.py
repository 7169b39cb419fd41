"""The embedded world: scenes of coloured shapes, their captions, an oracle, and tiny trained models."""
