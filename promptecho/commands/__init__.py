"""Sub-commands, one file each; every file has `register(app)`. No heavy imports at module level."""
