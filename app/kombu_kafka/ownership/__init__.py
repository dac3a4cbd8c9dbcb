"""Which partitions a process owns, and how a second owner is refused or fenced."""
