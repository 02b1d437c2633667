"""From an image to a prediction: bounded searches, streams, and the GPU."""
