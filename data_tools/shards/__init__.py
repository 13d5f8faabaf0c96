"""Training shards: scenes -> tar files (`write`), and back (`read`)."""
