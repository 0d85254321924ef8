"""Where captures wait for the store: on disk, and in memory where that fails."""
