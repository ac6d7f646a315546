"""What a dag-pb block of a tree is: a part of a file, a directory, a shard, or a symbolic link.

Pure; one block at a time. What blocks are together is for tree.py.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import assert_never

from xorbit.errors import FormatError
from xorbit.files.cid import Cid
from xorbit.files.dag_pb import decode_node
from xorbit.files.directory import Directory, SymbolicLink, directory, symbolic_link
from xorbit.files.hamt import Shard, shard
from xorbit.files.unixfs import FileNode, file_node
from xorbit.files.unixfs_data import Type, decode_data
from xorbit.items import BLOCK_BYTES_MAX

TreeNode = FileNode | Directory | Shard | SymbolicLink


def parse_node(data: bytes) -> TreeNode:
    """Return what the bytes of a dag-pb block are.

    Each is consistent in itself, as its own room says; nothing is known of its children.

    Raises:
        FormatError: not the canonical encoding of a UnixFS node, or of a type that is not used
            (raw bytes in a dag-pb node, metadata), or not consistent.
    """
    if len(data) > BLOCK_BYTES_MAX:
        raise FormatError(f"a node has at most {BLOCK_BYTES_MAX:,} bytes, got {len(data):,}")
    node = decode_node(data)
    unixfs = decode_data(node.data)
    type_ = unixfs.type
    match type_:
        case Type.FILE:
            return file_node(node.links, unixfs)
        case Type.DIRECTORY:
            return directory(node.links, unixfs)
        case Type.SHARDED_DIRECTORY:
            return shard(node.links, unixfs)
        case Type.SYMBOLIC_LINK:
            return symbolic_link(node.links, unixfs)
        case Type.RAW | Type.METADATA:
            raise FormatError(
                f"expected a file, directory or symbolic link, got UnixFS type {type_} "
                f"({type_.words})"
            )
        case _:
            assert_never(type_)


@contextmanager
def naming(cid: Cid) -> Generator[None]:
    """Put the name of a block before the message of a `FormatError` that is raised inside."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"block {cid}: {error}") from error
