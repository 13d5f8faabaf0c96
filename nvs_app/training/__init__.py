"""From scenes to a checkpoint: configuration, data, losses, optimiser, the run. Import the module you need."""
