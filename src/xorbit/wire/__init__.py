"""What travels on a connection: frames (frame.py) and the messages in them (message.py)."""
