"""Strategies that draw any item, message and envelope within its bounds. No tests here."""

from hypothesis import strategies as st

from xorbit.ids import GUID_BYTES, ID_BYTES, Guid, Id
from xorbit.items import (
    SEQUENCE_MAX,
    Address,
    Block,
    ConnectionItem,
    Contact,
    ItemKey,
    Kind,
    Record,
)
from xorbit.wire import message as m

ids = st.binary(min_size=ID_BYTES, max_size=ID_BYTES).map(Id)
guids = st.binary(min_size=GUID_BYTES, max_size=GUID_BYTES).map(Guid)
sequences = st.integers(0, SEQUENCE_MAX)
public_keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
keys = st.builds(ItemKey, st.sampled_from(Kind), ids)

addresses = st.builds(Address, st.text(min_size=1, max_size=12), st.integers(1, 65_535))
address_tuples = st.lists(addresses, max_size=4).map(tuple)
contacts = st.builds(Contact, ids, address_tuples)
contact_tuples = st.lists(contacts, max_size=4).map(tuple)

block_kinds = st.sampled_from([Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256])
blocks = st.builds(Block, block_kinds, st.binary(max_size=64))
records = st.builds(
    Record, public_keys, sequences, st.binary(max_size=64), signatures, st.binary(max_size=64)
)
connection_items = st.builds(ConnectionItem, public_keys, sequences, address_tuples, signatures)
items = st.one_of(blocks, records, connection_items)

reasons = st.text(max_size=20)
receipts = st.builds(m.Receipt, ids, st.sampled_from(["stored", "refused", "timeout"]), reasons)
codes = st.sampled_from(["full", "busy", "stale", "invalid", "stopping", "unsupported", "failed"])

requests = st.one_of(
    st.builds(m.Ping, address_tuples, sequences),
    st.builds(m.FindNext, ids, st.integers(0, 255), st.booleans()),
    st.builds(m.FindClosest, ids),
    st.builds(m.Get, keys),
    st.builds(m.Store, items, st.none() | sequences, contact_tuples, st.floats(0, m.AGE_S_MAX)),
    st.builds(m.Have, st.lists(keys, max_size=4).map(tuple)),
    st.builds(m.Follow, ids),
)
responses = st.one_of(
    st.builds(m.Pong, st.none() | addresses, address_tuples),
    st.builds(m.Next, contacts, st.integers(0, 255)),
    st.builds(m.Closest, contact_tuples),
    st.builds(m.Found, items, contact_tuples),
    st.builds(m.Stored, st.lists(receipts, max_size=4).map(tuple)),
    st.builds(m.Refused, codes, reasons, st.none() | records),
    st.builds(m.Missing, st.lists(keys, max_size=4).map(tuple)),
    st.builds(m.Following, st.floats(0, m.LEASE_S_MAX, exclude_min=True), st.none() | records),
    st.builds(m.Updated, records),
)
envelopes = st.builds(m.Envelope, guids, guids, st.one_of(requests, responses))
