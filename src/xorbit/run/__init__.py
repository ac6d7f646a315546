"""The driver of a live node and its hands: the only asyncio below the api."""
