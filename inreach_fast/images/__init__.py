"""Images in, the network's input out: reading, identity, resizing and alignment."""
