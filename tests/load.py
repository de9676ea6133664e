"""What a promised time is on a machine that has other work too."""

import os


def allowed(seconds):
    """Return a time that a calm machine keeps, longer by how many processes share each core."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
