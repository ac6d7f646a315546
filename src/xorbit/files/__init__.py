"""Files as blocks: their names (cid.py), shape (dag_pb.py, unixfs.py) and way (transfer.py).

A file is a tree of blocks in the format of IPFS: UnixFS over dag-pb with raw leaves, so that a name
means the same to every tool that speaks CIDs. Nothing here knows of nodes, stores or sockets:
blocks go to and come from whatever has the two methods of `transfer.Blocks`. Only transfer.py may
import asyncio, and only local.py touches the disk.
"""
