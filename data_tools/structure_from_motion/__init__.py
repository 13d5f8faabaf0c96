"""Images and videos without cameras -> scenes, through structure from motion: see `photos`."""
