"""What screens are made of; no widget knows HTTP, chain or files."""
