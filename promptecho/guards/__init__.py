"""Guards: rewards that watch. They score the images of every checkpoint, and tables and curves warn by them."""
