"""Who brings payments onto the chain: ourselves, or somebody at a URL."""
