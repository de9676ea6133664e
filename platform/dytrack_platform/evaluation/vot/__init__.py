"""VOT's protocols: regions as pixels, runs that restart, runs from anchors, long-term runs."""
