"""What a scene is on disk and in memory, its pictures, and the choice of context and target views."""
