"""Everything that turns files, photos, videos and synthetic worlds into scenes."""
