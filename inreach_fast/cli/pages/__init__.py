"""Pages for people: one self-contained HTML file each, which loads nothing and works without a network.

html.py         values escaped into the templates; the frame of every page, written whole
charts.py       histogram and curves, inline SVG
crops.py        parts of images, and images as data URIs
audit.py        `inreach audit --report`
explanation.py  `inreach predict --explain`
evaluation.py   `inreach evaluate --report`
templates/      plain HTML, CSS and JavaScript; ${name} is a value
"""
