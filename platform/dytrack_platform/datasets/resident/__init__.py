"""Pictures that lie whole in a device's memory, where pairs are drawn, cut and augmented.

A graphics card trains on more pairs a second than processors can decode and crop. Tracking
datasets of tens of thousands of frames fit into its memory, so this room reads a dataset's raw
folder once, keeps every picture as bytes in one flat tensor (:mod:`store`), chooses pairs by the
thousand on the host (:mod:`draws`), and renders their crops on the device (:mod:`render`). Things
with masks are also laid over other pictures: as targets, as distractors, and in front of targets.
The same code runs on processors, slower. It needs neither Ray nor Parquet.
"""
