"""The LaCT network: configuration, layers, scene state, checkpoints."""
