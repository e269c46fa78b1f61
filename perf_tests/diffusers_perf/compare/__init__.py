"""Head against base: refs, environments, shards."""
