"""Later: messages with an ETA wait in the delay topic, and are forwarded when due."""
