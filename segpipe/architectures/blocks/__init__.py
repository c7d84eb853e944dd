"""Building blocks that several network families share; a network's own parts stay in its own file."""
