"""What crosses the facility's bus: messages, keys, topics, what is due to be said. mqtt.py beside it has the wire."""
