"""An embedded world for video: one or two coloured shapes in five frames that move or stay where they are."""
