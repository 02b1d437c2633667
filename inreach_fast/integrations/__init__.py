"""inreach_fast inside other libraries. Each module needs its library, which the package itself does not.

sklearn.py    a scikit-learn outlier detector on descriptors (extra ``[sklearn]``)
versions.py   whether a library has a version that works
anomalib.py   an anomalib model, for anomalib's Engine, datamodules and metrics (extra ``[anomalib]``)
"""
