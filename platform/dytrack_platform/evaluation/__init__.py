"""Judge anything with ``start`` and ``step``, or anybody's boxes: numpy only, no model."""
