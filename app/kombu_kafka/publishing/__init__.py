"""From tasks to Kafka: confirmed, in bulk, or as dead letters."""
