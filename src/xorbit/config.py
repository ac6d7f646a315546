"""Every limit and interval of a node, with its unit in its name, checked once when made.

Nothing else may hold a number that bounds a queue, a table, a loop, a frame, a cache or a retry
(the sizes that items, messages and files of a home have by definition stand beside those).
"""

from typing import Self

import msgspec
from msgspec import Struct

from xorbit.errors import MisuseError

FRAME_BYTES_MAX = 65_536 + 8_192
"""The largest frame: a block of 64 KiB, its envelope, and the contacts that may ride along."""

CONTACTS_MAX = 64
"""How many contacts one message may carry."""
LEASE_S_MAX = 604_800
"""For how long one message may promise to push: a week."""

JOB_LOG_ENTRY_BYTES_MAX = 16 * 2**20
"""The largest entry of a job log that is read; nothing larger is ever written."""

# --- Contacts, lookups and timers (core) --------------------------------------------------------

ADDRESSES_TOLD_MAX = 8
"""How many of its addresses a node tells others, and believes of another."""
ADDRESSES_KEPT = 4
"""How many addresses of one contact the routing table keeps, the latest proved first."""
FAILURES_MAX = 3
"""After so many failures in a row, with nothing heard in between, a contact is forgotten."""
FAILURES_MIN = 2
"""The same where a newcomer waits for its place: it is tried again before it is replaced."""
BLAME_MAX = 3
"""From who named so many contacts that failed, no others are asked: it invents them, maybe."""
ADDRESS_VOTES_NEEDED = 2
"""So many independent peers must see us at an address before we tell others of it."""
OWN_FORMS_MAX = 64
"""How many addresses we remember that turned out to be our own."""
DIALS_PER_ROUND_MAX = 8
"""How many dials one round of maintenance may begin for its own sake."""
PROOFS_PER_ROUND_MAX = 4
"""Of them, how many go to neighbours that we have only heard of."""
FINGER_ROUNDS_SLOWER = 4.0
"""How much longer the wait between two checks of fingers is in each next round."""
SIGNATURES_REMEMBERED = 4_096
"""Of so many connection items it is remembered that they are signed rightly."""
HEALTH_WINDOW_S = 30.0
"""Health goes by what became of the requests of the last window, and of the one before."""
FIRST_ROUND_SHARE = 0.1
"""Who has just joined waits only this share of an interval, by chance less, for maintenance: then
others find it by its id."""
HOSTS_REMEMBERED = 16_384
"""Of so many hosts it is remembered how far they reach and which subnet they are in."""
SURVEY_NEAR = 5
"""Of so many who are nearest to the point of a survey one that is connected is asked."""
SURVEY_QUESTIONS_MAX = 128
"""How many questions one walk through the keyspace takes at most."""
SURVEY_GROWTH = 1.2
"""Where a walk ends with so many times as many known nodes, the next is as fast."""
PATHS_TURN = 3
"""Of so many whom a lookup asks, one is asked for the path that has come least far."""
FAR_STARTS = 1
"""At so many far contacts paths begin where a lookup must not be led astray."""
PATHS_PER_START = 6
"""So many of those named by whoever a path begins at there begin paths of their own."""
SPARSE = 1.6
"""Those found so many times as far as our own density makes likely may be liars only."""
CROWDED = 16
"""Who stand so many times closer to each other than our neighbours do may be liars only."""
CROWD_MIN = 5
"""So many of them make a crowd: one of 3,000 honest nodes has others that close by chance (four
where 5 / 16 are expected)."""
CELL_BITS = 8
"""Neighbours that share so many of the first bits in which they differ from us count as one: of
twenty that are as far from us as each other, two honest ones hardly do (128 cells)."""
NEIGHBOURS_PER_CELL = 4
"""So many times as many neighbours are gone through as are to be counted."""
CROWD_HALVES = 5
"""At so many points beside a crowd others are looked for, each twice as far from it as the one
before: from half the distance that one node is expected in to eight times that."""
ANCHORS_MAX = 4
"""So many of the nodes by which we came in are remembered: paths begin at them where a lookup must
not be led astray."""
LOOKS_SLOWER = 3
"""So many times as long is the wait after each look around."""
LINKS_PER_PEER_MAX = 4
"""Connections to one peer; more than one are open only while the two ends agree on which stays."""
SWEEP_STALLS_MAX = 4
"""Who leaves so many items in a row unanswered that it lacked is left out of that sweep."""
DIALS_PER_BOOTSTRAP_MAX = 8
"""How many of the addresses worth dialling one try to join dials; the others have their turn."""
PATIENCE_PER_HOP = 2 / 3
"""Each hop of a FindNext waits for the next one so much shorter than it is waited for itself."""
BACKOFF_MAX = 64
"""The most by which timeouts in a row stretch a reply timeout (its limit in seconds also holds)."""
STALE_MIN = 64
"""So many entries of moved and cancelled timers are left alone: clearing them away costs more."""
TRACE_CHARACTERS_MAX = 200
"""How much of what a peer said a trace keeps."""

# --- The console ------------------------------------------------------------------------------

CONSOLE_TEXT_CHARACTERS_MAX = 2_000
"""Of a longer text only the beginning is shown."""
CONSOLE_HEX_BYTES_MAX = 64
"""Of bytes that are no text, only so many are shown."""
CONSOLE_LINES_MAX = 100
"""Of a longer answer only the beginning is shown."""
CONSOLE_WORKS_SHOWN_MAX = 10
"""So many of the works in progress are shown one by one, the others counted by kind."""
CONSOLE_LINE_BYTES_MAX = 65_536 + 1_024
"""The longest line that may be typed: the text of a block, and a command before it."""
CONSOLE_WORD_CHARACTERS_MAX = 40
"""Of a longer word that is no command only the beginning is shown."""
CONSOLE_SOURCES_MAX = 64
"""Of the lines of the queue only the longest are shown."""
CONSOLE_READ_BYTES = 65_536
"""How much is taken from standard input at once."""
CONSOLE_HISTORY_BYTES_MAX = 1_000_000
"""A longer history of typed lines begins anew."""
CONSOLE_SEEN_MAX = 1_000
"""How many guids, names, ... of earlier answers are remembered for completion."""
CONSOLE_COMPLETION_CHARACTERS_MAX = 24
"""Of a longer word only the beginning is listed, so that what it is has room beside it."""
TIMEOUT_RATE_FAILING = 0.5
"""The share of requests without an answer from which a node says that it is failing."""

# --- The local socket ---------------------------------------------------------------------------

CONTROL_HELLO_BYTES_MAX = 256
"""The largest first frame: nothing large is read before the token is known."""
CONTROL_READ_BYTES = 4 * FRAME_BYTES_MAX
"""How much of what the other end sends is read ahead."""
CONTROL_EVENTS_PER_ANSWER = 64
CONTROL_TEXT_CHARACTERS_MAX = 16_384
"""Of a longer answer at the console the rest is left out: a frame holds it in any script."""
CONTROL_PEERS_PER_ANSWER = 128
"""So many fit in one frame."""
CONTROL_CONTACTS_PER_ANSWER = 64
"""Of these, or of fingers, so many: each may have 16 addresses."""
CONTROL_ERROR_CHARACTERS_MAX = 8_192

# --- Nodes of a demonstration -------------------------------------------------------------------

SWARM_READY_S_MAX = 60.0
"""How long all nodes of a swarm may take to be ready."""
SWARM_STOP_S_MAX = 10.0
"""How long they may take to stop before they are killed."""
SWARM_LOG_LINES_SHOWN = 12
SWARM_LOG_BYTES_READ = 16_384
"""Of the log of a node that failed, the last lines, looked for in so many bytes."""

# --- Files --------------------------------------------------------------------------------------

WINDOW_BLOCKS = 256
"""How many blocks of a file may be in flight unless the caller says otherwise: 16 MiB. How many are
is what the throughput that is measured asks for."""
WINDOW_BLOCKS_FIRST = 4
"""How many are at first: 256 KiB."""
WINDOW_BLOCKS_MIN = 2
WINDOW_GAIN_MIN = 1.125
"""A window of twice the size is kept where it carries so many times as much."""
WINDOW_ROUNDS_HELD = 16
"""After so many rounds of its blocks a window is tried larger, then smaller, and so on."""
WINDOW_CHANGE = 2.0
"""Where it carries so many times as much or as little as when it began, one is tried at once."""
WINDOW_ROUND_BLOCKS_MIN = 16
"""The throughput is measured over at least so many blocks, or it would be chance."""
WINDOW_FLIGHT_S_MAX = 4.0
"""Where blocks take longer, fewer are in flight: requests time out after 10 s at most."""
BLOCK_COST_BYTES = 32_768
"""What a block costs besides its bytes: its time, put as bytes."""
BATCH_BLOCKS_MAX = 32
"""How many blocks are cut and hashed in one go on the worker thread: 2 MiB."""
LOOK_FIRST_BYTES_MIN = 1_024
"""From what size on the nodes closest to a block are asked whether they have it before it is sent;
a smaller one is as quickly sent."""
TREE_ENTRIES_HELD_MAX = 1_048_576
"""How many entries of directories that are being built may be in memory, about 150 bytes each."""
TREE_DEPTH_MAX = 128
"""How many directories may be inside one another, in what is put and in what is got."""
TREE_BLOCKS_DEPTH_MAX = 256
"""How many blocks may be below one another in a tree of any shape that is gone through."""
TREE_DIRECTORIES_SEEN_MAX = 1_048_576
"""Of how many directories a walk remembers that it has been there, about 70 bytes each; any further
ones count as seen."""
TREE_REPEATED_ENTRIES_MAX = 100_000
"""How many entries a walk takes from directories that it has been in before, however few there were
that it had not: a few blocks may describe a tree without an end that anybody could wait for."""
TREE_REPEATED_PER_NEW_MAX = 64
"""How many such entries it takes for each that was new, where these are more: a tree may have so
many copies of whatever is in it."""
TREE_NODES_MAX = 1_048_576
"""How many nodes one pass over all blocks of a tree takes; each it remembers, about 100 bytes."""
PUT_BLOCKS_SEEN_MAX = 65_536
"""Of how many blocks a put remembers, the latest ones, that it has stored them: what comes twice in
it is one block, and was not in the network before."""
TREE_LEAVES_SEEN_MAX = 65_536
"""Of how many leaves such a pass remembers that it had them; what is forgotten may come again."""
MIRROR_ENTRIES_MAX = 1_048_576
"""How many entries a tree that is mirrored may have; each takes about 500 bytes of memory, as long
as a version is being put in place."""
MIRROR_LEAVES_MAX = 262_144
"""How many leaves of its files, and nodes above them, a mirror looks at to know where a leaf stands
(16 GiB of them); what is below a node that comes again counts once."""
MIRROR_LEAVES_PER_STEP = 256
"""How many leaves of a file on the disk are hashed in one step of a comparison (16 MiB), or looked
at in one step."""
MIRROR_STEPS_AT_ONCE = 16
"""How many such steps are taken before it is seen whether the mirror was told to stop."""
MIRROR_COMING_MAX = 4
"""How many versions that could not be put in place a mirror remembers as long as something in the
folder is of them; what only an older one put there counts as the user's."""
MIRROR_LEFT_OUT_SHOWN_MAX = 10
"""How many paths that were left out the command tells one by one."""
STAY_AGAIN_S_MIN = 1.0
"""When `mirror` and `follow` first look for a node that stopped; each wait is twice the last."""
STAY_AGAIN_S_MAX = 30.0
"""The longest of these waits."""
MIRROR_RETRY_S = 30.0
"""When a mirror tries again to get a version that could not be had, unless a newer one comes."""
AHEAD_BLOCKS_MAX = 32
"""How many of the blocks that will be wanted next are named beside the one that is wanted."""
FLOW_STEPS_MAX = 1_024
"""How many steps of what is being written (a folder, a leaf) may wait for their turn."""
PARTIAL_KEPT_S = 604_800.0
"""What an interrupted get left is removed by a later get to the same folder after a week."""
PARTIAL_NODES_MAX = 65_536
"""How many inner nodes of an interrupted get are kept; any others are fetched again."""
PARTIAL_LOOK_LEAVES = 32
"""How many leaves of an interrupted get are held against their names in one go: 2 MiB."""
SYNCED_FILES_MAX = 256
"""How many files of a tree are put on disk one by one, in a second; if there are more, all of the
disk is, once."""
READER_NODES_MAX = 64
"""How many inner nodes of a file that is open for reading are remembered: 4 MiB, for 4 GiB of
it."""
CAR_ROOTS_MAX = 255
"""How many roots a CAR may have."""

# --- As a file system (fsspec) ------------------------------------------------------------------

FS_HELD_BYTES_MAX = 32 * 2**20
"""How many bytes of blocks that were read last are kept for whoever reads them again."""
FS_BLOCKS_IN_FLIGHT_MAX = 64
"""How many blocks are asked for at once, by all who read from one home in this process."""
FS_RANGES_AT_ONCE_MAX = 64
"""How many ranges of files are fetched at once; each may have a window of blocks in memory."""
FS_ENTRIES_HELD_MAX = 65_536
"""Of how many paths it is remembered what is there, about 500 bytes each."""
FS_FOUND_HELD_MAX = 64
"""Of how many paths the root node is kept as it was parsed; that of a large file takes 0.5 MB."""
FS_VERSIONS_HELD_MAX = 256
FS_VERSION_S = 30.0
"""For how long the newest version of the tree under a key counts as that."""
FS_ATTACH_S = 10.0
"""How long to wait for a home that another process has taken and does not, or not yet, share."""
FS_ATTACH_PAUSE_S = 0.1
FS_CLOSE_S_MAX = 10.0
"""How long an interpreter that ends waits for the client that it was."""
FS_LINE_BYTES = 8_192
"""In pieces of how many bytes the end of a line is looked for."""

# --- Sockets ------------------------------------------------------------------------------------

RECEIVE_BYTES = 262_144
"""The most that is taken from a socket at once; one buffer serves all connections."""
FLUSH_BYTES = 32_768
"""Frames wait for others of their turn up to this many bytes: small ones share a TLS record, a
block fills several and gains nothing from waiting."""
ACCEPT_PAUSE_S = 1.0
"""How long nothing is accepted after the system refused, as when no file descriptor is left."""
DRAW_BYTES = 4_096
"""How much chance is asked of the system at once."""
MDNS_ASK_S_MAX = 3.0
"""How long one service is asked for its addresses."""
MDNS_ASKED_MAX = 16
"""How many services may be asked at once; further ones wait until they show themselves anew."""
REVOKED_MAX = 1_800
"""How many ids a list of revoked nodes may hold: what fits a record."""

# --- The disk -----------------------------------------------------------------------------------

BATCH_EFFECTS_MAX = 256
"""How many effects the store takes in one go: what may be in one commit."""
BATCH_BYTES_MAX = 8 * 2**20
"""The same, by bytes; the last effect of a batch may go beyond."""
READ_ELSEWHERE_S = 0.25
"""How long reads go to their thread after one that had to wait for the disk."""
MAP_PER_QUOTA = 2
"""A block of 64 KiB takes 17 pages of 4 KiB; pages of records are about two thirds full."""
MAP_BYTES_MIN = 64 * 2**20
"""The bound of the store's file, besides what its quota needs."""
MAP_GROWTH_MAX = 16
"""A quota's worth of tiny items may grow the file to this many times its first bound, no more."""
VIEWED_BYTES_MAX = 48 * 2**20
"""Pages of the map that were read count as memory of this process until the map is laid anew."""
VIEWED_PER_LOOKUP_BYTES = 2 * 2**20
"""What the system may map around one page that is looked at (Linux: 64 KiB, or a huge page).

This counts until a measurement (`resident_file_bytes`) says what it really was.
"""
EVICTION_LOOKS_MAX = 256
"""How many items one write may look at for what it could replace; pinned ones are passed over."""
EVICTION_SPARED_MAX = 16
"""How many items that were asked for lately one write passes over for nearer ones that were not."""
ASKED_KEPT_MAX = 65_536
"""Of how many items a store remembers, in memory, when they were asked for."""
EXPIRED_LOOK_INTERVAL_S = 60.0
"""A full store looks through its ages for what has expired no more often than this."""


LEDGER_ROWS_MAX = 256
"""How many roots or pins are read from the store in one go."""
PUT_S_MAX = 120.0
"""By how much the pin of a root's topmost item may be older than the root itself."""
UNPIN_KEYS_MAX = 16_384
"""For how many pins at a time it is found out whether another root needs them: about 2 MiB."""
MEMBERS_ROW_KEYS = 512
"""How many of the blocks that a private tree is made of are noted in one go, 33 bytes each."""
PIN_TRIES_MAX = 5
"""How often something is pinned anew because pins that it may need were let go of meanwhile."""
UNPIN_BATCH_KEYS_MAX = 512
"""How many pins one commit lets go of, so that others' commits do not wait long behind it."""


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of one node. The defaults suit a node on the open internet and a laptop alike."""

    # Items: who keeps them, and how many are asked.
    replicas: int = 5
    """r: how many nodes closest to an item's id hold it."""
    closest_count: int = 20
    """k: how many contacts an answer names."""
    lookup_width: int = 8
    """How many of the closest must have answered before a lookup of nodes ends."""
    lookup_parallel: int = 3
    """alpha: how many nodes one lookup asks at once."""
    lookup_asked_max: int = 96
    """How many nodes one lookup may ask before it gives up."""
    store_quota_bytes: int = 10 * 2**30
    """How many bytes of items the node keeps."""

    # Keeping items.
    item_lifetime_s: float = 172_800.0
    """An item that no owner has refreshed for so long is dropped."""
    refresh_after_s: float = 57_600.0
    """An owner refreshes what it put when this has passed; sooner, by chance."""
    sweep_interval_s: float = 3_600.0
    """How often a node goes through all its items."""
    sweep_items_max: int = 64
    """Items that a sweep looks at in one go."""
    sweep_pause_s: float = 0.02
    """How long it rests in between."""
    sweep_stores_max: int = 8
    """Items that a sweep hands over at once."""
    sweep_settle_s: float = 10.0
    """How long after its start a node leaves the upkeep to others."""
    send_again_s_min: float = 10.0
    """When an owner sends again what no other node took; doubled each time, up to
    `sweep_interval_s`."""
    hand_off_delay_s: float = 3.0
    """How long after a neighbour went a sweep looks after the items that this concerns."""
    newcomer_delay_s: float = 15.0
    """How long after one came: nothing is in danger, and more may come."""
    hand_off_stagger_s: float = 2.0
    """How much later than the nearest holder each next one acts itself."""
    neighbours_max: int = 40
    """How many contacts around us are watched for coming and going."""
    concerned_max: int = 64
    """Of how many nodes that came or went a sweep looks after the items; of more, after all."""
    surplus_holders_max: int = 2
    """How many nodes beyond the r closest keep a copy that they have."""

    # Contacts.
    contacts_max: int = 4_096
    """The budget of the routing table."""
    subnet_contacts_max: int = 8
    """Contacts of one IPv4 /24 or IPv6 /48 in a bucket; private scopes are exempt."""
    newcomers_max: int = 256
    """Contacts that wait for a place in a full bucket."""
    knowns_max: int = 1_024
    known_retry_s: float = 30.0
    """How often one of the knowns is dialled that is no contact (any more)."""
    possibles_max: int = 1_024
    contact_silent_s: float = 300.0
    """A contact unheard for so long is asked whether it is there."""
    contact_retry_s: float = 30.0
    """How long before one that failed, or was asked, is asked again."""
    liveness_pings_per_minute_max: int = 60
    dial_back_connected_s: float = 30.0
    """How often one of the possibles that are connected to us, and no neighbours, is dialled."""
    dial_back_s_min: float = 2.0
    """When a possible that could not be dialled is dialled again; doubled each time."""
    dial_back_s_max: float = 600.0
    dial_back_tries_max: int = 8
    """After so many in vain it is forgotten, unless it is connected to us."""
    relays_max: int = 1_024
    """FindNext requests of others that are on their way through us."""
    relays_per_peer_max: int = 16
    save_contacts_s: float = 20.0
    """How often the contacts are saved, where they changed."""

    # Connections and their workers.
    connections_max: int = 512
    subnet_connections_max: int = 128
    """Of them, those with one public IPv4 /24 or IPv6 /48 that dialled us."""
    neighbours_connected: int = 8
    """How many of our nearest neighbours stay connected."""
    kept_connections_max: int = 64
    """How many connections to neighbours and fingers are kept up while nobody uses them."""
    dials_max: int = 64
    """How many dials may be under way at once."""
    dials_waiting_max: int = 1_024
    """How many more may wait for one of those to end; further ones fail."""
    workers: int = 64
    """N: out-workers of a connection, and as many in-workers."""
    waiting_requests_max: int = 1_024
    """How many of our requests may wait for one connection's out-workers."""
    handshakes_max: int = 256
    """Inbound connections that have not proved an id yet; the oldest gives way."""
    handshakes_per_host_max: int = 64
    write_buffer_bytes_max: int = 1 * 2**20
    """Unsent bytes of one connection beyond which its requests are not served."""

    # The queue.
    line_jobs_max: int = 256
    """Jobs of one source that may wait; beyond, the source is not read from."""
    line_bytes_max: int = 4 * 2**20
    """The same, by bytes; at least a block for each of `workers`, so that a peer's requests never
    keep the answers behind them from being read."""
    quantum_bytes: int = 32_768
    """What one source may spend before the next is served (deficit round-robin)."""
    job_cost_bytes: int = 32_768
    """What a job costs besides its bytes: its time, put as bytes."""
    patience_jobs_max: int = 2
    """How often a waiting class of jobs may be passed over by a more urgent one."""
    turn_jobs_max: int = 8
    """Jobs stepped in a row before sockets are looked at again."""
    turn_jobs_alone_max: int = 32
    """The same while there is one connection at most, so that no other peer can be waiting."""
    turn_s_max: float = 0.002
    """The same, by time."""
    works_max: int = 4_096
    """Operations in progress at once; further calls are refused."""
    works_share_for_peers: float = 0.5
    """What share of them may be taken when another peer wants one done; the rest is our user's."""

    # Time.
    request_timeout_s_first: float = 3.0
    """Before a peer's round-trip time is known."""
    request_timeout_s_min: float = 1.0
    request_timeout_s_max: float = 10.0
    hedge_s_min: float = 0.1
    """The earliest at which a lookup asks one node more because another is slow."""
    timeouts_in_row_max: int = 3
    """Unanswered requests in a row after which a connection counts as dead."""
    dial_timeout_s: float = 5.0
    """TCP and TLS together, for each address tried."""
    handshake_timeout_s: float = 5.0
    work_timeout_s: float = 60.0
    idle_connection_s: float = 120.0
    """A connection unused for this long is closed, unless maintenance wants it."""
    ping_interval_s: float = 20.0
    """After so long a silence a neighbour is asked whether it is there."""
    finger_ping_interval_s: float = 60.0
    """The same for a finger that is no neighbour."""
    maintenance_interval_s: float = 10.0
    lost_look_s: float = 2.0
    """How soon after the connection to a neighbour broke there is a round of maintenance."""
    interval_jitter: float = 0.2
    """Every interval is stretched or shrunk by up to this share, by chance."""
    bootstrap_retry_s_min: float = 1.0
    bootstrap_retry_s_max: float = 60.0
    heard_max: int = 4_096
    """Contacts only heard of that lookups may begin at."""
    survey_s_min: float = 5.0
    """How soon the survey of the keyspace asks its next question; doubled after each round that
    has found few more."""
    survey_s_max: float = 60.0
    look_around_s_min: float = 0.5
    """When a node that has just joined looks for its neighbours again; three times as long after
    each time."""
    look_around_s_max: float = 60.0
    finger_check_s_min: float = 1.0
    """How soon after joining the fingers are checked; four times as long after each
    round of them."""
    finger_check_s_max: float = 60.0
    announce_interval_s: float = 3_600.0
    """How often our connection item is put again, changed or not."""
    announce_again_s_min: float = 2.0
    """The least time between two announcements, however often something changes."""
    lease_s: float = 60.0
    """How long a follower is told of newer versions before it must ask again."""
    follow_holders: int = 2
    """How many holders a follower asks to push."""
    follow_poll_s: float = 30.0
    """How often a follower reads all holders besides; more often when nobody pushes."""
    follow_retry_s: float = 2.0
    """How often a follower reads all holders while nobody pushes to it."""
    followers_max: int = 4_096
    """Followers of others' that a node serves, over all records."""
    followers_per_peer_max: int = 128
    """How many records one peer may follow here."""
    push_interval_s: float = 0.25
    """How soon the followers of a record are told of it again; of what came meanwhile, the newest
    is told."""
    shutdown_s_max: float = 5.0
    """How long a stopping node finishes what is in flight."""

    # What a user looks at.
    unkept_warning_s: float = 60.0
    """How often the log is told that the disk takes no copies of what the owner puts: a full one
    refuses every block of a file."""
    trace_events_max: int = 8_192
    """How many events (requests sent, answered, served) a node remembers."""
    console_works_max: int = 64
    """Commands typed at consoles that may be in progress at once."""
    console_texts_max: int = 1_024
    """Answers to one line that may wait for a console that is slow to read."""

    follow_versions_max: int = 16
    """Versions of a record that wait for a slow local follower; the oldest give way."""
    revoked_retry_s: float = 5.0
    """When the list of revoked nodes is followed again after that failed."""
    revoke_tries_max: int = 3
    """How often a list of revoked nodes is stored while it is not sure that it stays."""
    revoke_wait_s: float = 1.0
    """How long between two of these: the node that is being revoked drops out meanwhile."""
    publish_tries_max: int = 5
    """How often a publish without an explicit `cas` begins anew after losing a race."""
    publish_wait_s: float = 0.25
    """How long before a version that too few took is stored again; twice as long each time.

    In all longer than `lost_look_s`: who has just gone counts as silent until its neighbours look.
    """

    # The local socket.
    control_calls_max: int = 256
    """Calls in flight of one local client."""

    def __post_init__(self) -> None:
        """Hold every limit against what it must be.

        Raises:
            MisuseError: a limit is not positive, or a minimum stands above its maximum.
        """
        for field in msgspec.structs.fields(self):
            if not getattr(self, field.name) > 0:
                raise MisuseError(f"limit {field.name} must be positive")
        for low, high in (
            ("request_timeout_s_min", "request_timeout_s_max"),
            ("request_timeout_s_min", "request_timeout_s_first"),
            ("request_timeout_s_first", "request_timeout_s_max"),
            ("bootstrap_retry_s_min", "bootstrap_retry_s_max"),
            ("look_around_s_min", "look_around_s_max"),
            ("survey_s_min", "survey_s_max"),
            ("finger_check_s_min", "finger_check_s_max"),
            ("dial_back_s_min", "dial_back_s_max"),
            ("send_again_s_min", "sweep_interval_s"),
            ("replicas", "closest_count"),
            ("refresh_after_s", "item_lifetime_s"),
            ("handshakes_per_host_max", "handshakes_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise MisuseError(f"limit {low} must not be above {high}")
        if self.closest_count > CONTACTS_MAX:
            raise MisuseError(f"limit closest_count must not be above {CONTACTS_MAX}")
        if self.lease_s > LEASE_S_MAX:
            raise MisuseError(f"limit lease_s must not be above {LEASE_S_MAX}")
        for share in ("interval_jitter", "works_share_for_peers"):
            if getattr(self, share) >= 1:
                raise MisuseError(f"limit {share} must be below 1")

    def replace(self, **changes: float) -> Self:
        """Return the same limits with some changed, checked again."""
        return msgspec.structs.replace(self, **changes)


DEFAULT_LIMITS = Limits()
