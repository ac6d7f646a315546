"""Files and directories as blocks, in the format of IPFS: UnixFS over dag-pb with raw leaves.

So a name means the same to every tool that speaks CIDs. What it is made of, lowest first:

- names: cid.py (of blocks, and paths after them), names.py (of entries: which may be one at all);
- one block: protobuf.py, dag_pb.py, unixfs_data.py, and what a node may be: unixfs.py (files),
  directory.py, hamt.py (large directories), nodes.py (any of them);
- many: tree.py (find, list, walk; what visits.py bounds), car.py (a tree as one file);
- the disk: local.py, local_tree.py (reading), new_tree.py (writing);
- the way: flow.py (many blocks in flight), transfer.py (files, and directories to the network),
  trees.py (directories from it, and CARs), reader.py (files that are open), listing.py (what `ls`
  shows).

Nothing here knows of nodes, stores or sockets: blocks go to and come from whatever has the two
methods of `flow.Blocks`. Only the files of the way know asyncio, and only those named for it touch
the disk.
"""
