"""Folders and files on any storage: a local path, NFS, or an object store's URL."""
