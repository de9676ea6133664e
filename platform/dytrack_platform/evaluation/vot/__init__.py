"""VOT's protocols: regions on a pixel grid, runs that restart, runs from anchors, long-term runs."""
