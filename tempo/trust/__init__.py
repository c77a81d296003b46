"""What lets an owner trust a master that runs on somebody else's machine."""
