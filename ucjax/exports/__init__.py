"""Finished images handed to other ecosystems, byte for byte; `exports.export` writes one of these.

An export holds the protected files, their names and, if there are any, labels and class names:
nothing of the clean images or the protector, nor a word that the pictures are protected.
"""

# The modules that write them, imported on demand; each has `write` and `reading`.
TARGETS = {
    "hf": "huggingface",
    "tfds": "tfds",
    "webdataset": "webdataset",
    "imagefolder": "imagefolder",
    "azure": "azure",
    "paddle": "paddle",
}
