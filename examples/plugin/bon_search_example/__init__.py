"""A reward and a search for bon-search."""
