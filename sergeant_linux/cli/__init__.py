"""Who types: the command `sergeant-linux`, its verbs, and what they put on a terminal."""
