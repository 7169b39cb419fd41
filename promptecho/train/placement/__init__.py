"""Where the reward's VLM sits: on the ranks that train, or on ranks of its own."""
