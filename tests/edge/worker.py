"""What worker processes of a test do; small, since a process that is spawned imports it anew."""

import pickle


def read_there(data: bytes, path: str, at: int) -> bytes:
    """Return ten bytes of a file of a pickled file system."""
    fs = pickle.loads(data)
    with fs.open(path) as file:
        file.seek(at)
        return file.read(10)
