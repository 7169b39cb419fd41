"""The environments of the stages (`envs/*.yaml`) as virtual environments, where there is no conda."""
