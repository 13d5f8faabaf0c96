"""Pictures and films without cameras -> scenes, through structure from motion: see `photos`."""
