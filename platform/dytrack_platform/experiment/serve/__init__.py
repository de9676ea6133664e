"""The server of :mod:`dytrack_platform.serving` as replicas on Ray Serve."""
