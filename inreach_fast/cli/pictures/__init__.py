"""Pictures that a person can judge: one colour scale, the threshold marked, words large enough to read.

colours.py   perceptual colour map, by formula
text.py      labels with Pillow's own font
heat.py      anomaly map -> colours, outline of what is over the threshold, colour bar
overlay.py   one inspected image: input beside its map
sheet.py     many inspected images in rows: input, truth, map, verdict
"""
