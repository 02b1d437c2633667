"""Pictures of inspected images: one colour scale, the threshold marked, words large enough to read.

text.py         labels in Pillow's own font
heat.py         anomaly map -> colours, outline of what is above the threshold, colour bar
inspection.py   one inspected image next to its map; many in rows: input, truth, map, overlay
"""
