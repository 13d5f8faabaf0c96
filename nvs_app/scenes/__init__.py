"""What a scene is on disk and in memory, its images, and the choice of context and target views."""
