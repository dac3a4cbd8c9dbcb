"""How every Kafka client is made, secured, asked and measured."""
