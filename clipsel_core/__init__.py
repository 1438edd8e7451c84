"""Scores pools of image-text pairs with a frozen CLIP and selects what to train on."""

__version__ = "0.1.0"
