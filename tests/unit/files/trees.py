"""Trees of blocks in a dict, as the tests of reading them want them: honest ones and lies."""

import asyncio
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from xorbit.errors import NotFoundError
from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.dag_pb import Link, Node, encode_node
from xorbit.files.directory import DirectoryBuilder, build_symbolic_link
from xorbit.files.hamt import FANOUT, MURMUR3_X64_64
from xorbit.files.local_tree import build_source
from xorbit.files.new_tree import Written
from xorbit.files.tree import Entry, Found, drive, finish, open_block, walk
from xorbit.files.trees import export_car, get_tree
from xorbit.files.unixfs import build_file
from xorbit.files.unixfs_data import Type, UnixFsData, encode_data
from xorbit.items import ItemKey


class Shelf:
    """Blocks by name; counts what is asked for."""

    def __init__(self) -> None:
        self.held: dict[Cid, bytes] = {}
        self.asked: list[Cid] = []

    def get(self, cid: Cid) -> bytes:
        self.asked.append(cid)
        if cid not in self.held:
            raise NotFoundError(f"nobody has {cid}")
        return self.held[cid]

    def add(self, data: bytes, codec: Codec = Codec.DAG_PB) -> Cid:
        cid = cid_of_block(data, codec)
        self.held[cid] = data
        return cid

    def take(self, made: Iterable[tuple[Cid, bytes]]) -> Cid:
        """Hold the blocks that are made and return the last one's name."""
        for cid, data in made:
            self.held[cid] = data
            last = cid
        return last

    def tree(self, path: Path) -> Cid:
        return self.take(build_source(path))

    def file(self, content: bytes, chunk_bytes: int = 4, children_max: int = 3) -> Cid:
        return self.take(build_file([content], chunk_bytes=chunk_bytes, children_max=children_max))

    def link(self, target: str) -> Cid:
        return self.take([build_symbolic_link(target)])

    def directory(self, entries: dict[str, Cid]) -> Cid:
        builder = DirectoryBuilder()
        for name, cid in entries.items():
            builder.add(name, cid, 1)
        return self.take(builder.finish())

    def node(self, links: Iterable[Link], data: UnixFsData) -> Cid:
        """Hold a node that nobody has checked."""
        return self.add(encode_node(Node(tuple(links), encode_data(data))))

    def raw_directory(self, links: Iterable[tuple[str, Cid]]) -> Cid:
        return self.node((Link(cid, name, 1) for name, cid in links), UnixFsData(Type.DIRECTORY))

    def shard(self, slots: dict[str, Cid]) -> Cid:
        """Hold a shard whose slots are labelled as given, its bitfield true to them."""
        bits = 0
        for label in slots:
            bits |= 1 << int(label[:2], 16)
        data = UnixFsData(
            Type.SHARDED_DIRECTORY,
            bits.to_bytes(FANOUT // 8, "big"),
            hash_type=MURMUR3_X64_64,
            fanout=FANOUT,
        )
        return self.node((Link(cid, label, 1) for label, cid in slots.items()), data)

    def file_node(self, parts: Iterable[tuple[Cid, int]]) -> Cid:
        listed = list(parts)
        sizes = tuple(size for _, size in listed)
        data = UnixFsData(Type.FILE, size=sum(sizes), sizes=sizes)
        return self.node((Link(cid, "", 1) for cid, _ in listed), data)

    def found(self, cid: Cid) -> Found:
        return finish(open_block(cid), self.get)

    def walk(self, cid: Cid) -> Iterator[Entry]:
        return drive(walk(self.found(cid)), self.get)

    async def get_block(self, key: ItemKey) -> bytes:
        held = (cid for codec in Codec if (cid := Cid(codec, key)) in self.held)
        return self.get(next(held, Cid(Codec.RAW, key)))

    def write(self, root: Cid, out: Path) -> Written:
        """Write a tree to a path, as a user gets it."""
        return asyncio.run(get_tree(self, self.found(root), out))

    def car(self, root: Cid) -> BytesIO:
        """Return a tree as a CAR, as a user exports it."""
        parts: list[bytes] = []
        asyncio.run(export_car(self, root, parts.append))
        return BytesIO(b"".join(parts))


def on_disk(top: Path) -> dict[str, bytes | str | None]:
    """Return what is below a folder: bytes of files, targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
