"""Search, augmentation and generation: what turns indexed documents into cited answers."""
