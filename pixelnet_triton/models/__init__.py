"""PixelNet itself: backbones, the MLP head, and the network of both."""
