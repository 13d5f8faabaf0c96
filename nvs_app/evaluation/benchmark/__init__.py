"""A benchmark from its protocol to its report: scene by scene, over several processes, resumable."""
