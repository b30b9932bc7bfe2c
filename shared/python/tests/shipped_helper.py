"""A module of one's own beside the models: it is shipped whole."""

OFFSET = 1000
