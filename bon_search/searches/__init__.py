"""One search a file, each a generator over the four verbs of a sampler."""
