"""Work that is kept and shared out: folders of finished parts, shards, spools, arrays on disk."""
