"""The gallery: a wider embedded world of dense scenes and posters, beside the world of `promptecho.shapes`."""
