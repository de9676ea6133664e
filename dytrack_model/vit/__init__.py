"""timm's plain vision transformers, which the network is built on, and the import of timm."""
