"""The front: its members as others read them, its page, and picking and rebuilding one."""
