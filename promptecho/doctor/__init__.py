"""The preflight of an experiment: everything that would stop it later, listed before anything starts."""
