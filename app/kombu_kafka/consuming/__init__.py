"""From Kafka to tasks: fetching, handing out in order, and keeping what is done."""
