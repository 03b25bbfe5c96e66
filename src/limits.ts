/** Every bound of Narvik, with its unit and its reason. docs/LIMITS.md lists them, and a test compares the two. */

const KIB = 1024
const MIB = 1024 * KIB
const SECOND = 1000

/** Bytes of one tag of a NAR (`regular`, `entry`, …); as in Nix 2.34.8 and newer. */
export const MAX_NAR_TAG_BYTES = 32
/** Bytes of one name in a directory; as in Nix 2.34.8 and newer, and in the kernel. */
export const MAX_NAR_NAME_BYTES = 255
/** Bytes of one symlink target; as in Nix 2.34.8 and newer, and in the kernel. */
export const MAX_NAR_TARGET_BYTES = 4095
/** Levels of a NAR, the root being level 0; an entry at this level is refused, as in Nix 2.34.8 and newer. */
export const MAX_NAR_DEPTH = 64
/** Bytes of one image's NAR: 16 TiB, far above any disk image and far below what a float64 counts exactly. */
export const MAX_NAR_SIZE = 16 * 1024 ** 4

/** Entries of one tree; bounds the memory of a layout. */
export const MAX_LISTING_ENTRIES = 4_000_000
/** Bytes of an encoded manifest; bounds what a peer can make this host hold before anything is proven. */
export const MAX_MANIFEST_BYTES = 128 * MIB

/** Bytes of a chunk, but for the last one of a NAR, which may be shorter. Another value would cut every image otherwise than the fleet does. */
export const MIN_CHUNK_BYTES = 16 * KIB
/** Bytes of a chunk at most; bounds what is held before it can be checked, and cuts where nothing in the data does, such as in zeros. */
export const MAX_CHUNK_BYTES = 256 * KIB
/** Chunks of one image that are listed: as many as a manifest has room for, some 240 GiB of NAR without long runs of zeros. An image of more goes in one stream. */
export const MAX_CHUNKS = 3_800_000

/** Milliseconds that a thread waits for another one that shares a tree's work, once only that is left: after it, it is taken for dead, and its share is done again. */
export const HELPER_PATIENCE_MS = 10 * SECOND
/** The same for the thread that cuts chunks, whose work nobody else can take over: the hash fails. */
export const CHUNK_THREAD_PATIENCE_MS = 60 * SECOND
/** The same for the thread that has a whole tree to handle, counted from the last step that it took; above what the two others may take, and one flush of a large file to a slow disk. */
export const TREE_THREAD_PATIENCE_MS = 15 * 60 * SECOND

/** Bytes from the start of a NAR that have come without a gap before it is hashed while it is received: less is read at the end as soon as that is started. */
export const MIN_FOLLOWED_BYTES = 16 * MIB
/** Trees that are hashed while they are received, at once; each takes a thread and some 20 MB. Further ones are read at the end. */
export const MAX_FOLLOWED_TREES = 2

/** Bytes of the metadata in a reply; room for an image with thousands of references. */
export const MAX_METADATA_BYTES = 1 * MIB
/** References of one image. */
export const MAX_REFERENCES = 8192
/** Other providers that are asked for the signatures that the first one lacks. */
export const MAX_SIGNATURE_ASKS = 16
/** Signatures of one image. */
export const MAX_SIGNATURES = 64
/** Bytes of an image's name; the length of a store path's name. */
export const MAX_NAME_BYTES = 211

/** Bytes of one request or reply header on the wire, without its body. */
export const MAX_WIRE_HEADER_BYTES = 64 * KIB
/**
 * Bytes of one buffer given to a stream: with the muxer's header it fills four packets of Noise, and 16 records of TLS. Smaller ones cost more
 * for each byte; larger ones hold up other streams.
 */
export const WIRE_BUFFER_BYTES = 4 * (65_535 - 16) - 12
/** Bytes received and not yet taken, per stream, above which the stream is paused. */
export const READ_HIGH_WATER_BYTES = 256 * KIB
/** Milliseconds without a byte of progress, in either direction, after which a stream is given up. */
export const STREAM_STALL_MS = 20 * SECOND
/** Milliseconds for a dial with its handshakes. */
export const DIAL_TIMEOUT_MS = 10 * SECOND
/** Streams of one protocol that one peer may have open to this host. */
export const MAX_INBOUND_STREAMS = 16
/** Streams of one protocol that this host opens to one peer: fewer, as the other end sees later that one has ended. */
export const MAX_OUTBOUND_STREAMS = 8
/** NAR streams served to all peers at once; the next asker is answered `busy`. */
export const MAX_SERVED_STREAMS = 64
/** Connections that one peer may have with this host: two from dialling each other at once, and some that are ending. */
export const MAX_PEER_CONNECTIONS = 8
/** Connections with all peers; a fleet of more hosts than this is no full mesh for any of them. */
export const MAX_CONNECTIONS = 512
/** Streams that one connection may have open, whatever they are for; each may hold a window of bytes. */
export const MAX_MUXED_STREAMS = 256
/** Exchanges served to one peer at once: what it may open of each protocol, and some that it has ended and this host has not. */
export const MAX_PEER_EXCHANGES = 64
/** Exchanges served to all peers at once. */
export const MAX_EXCHANGES = 512
/** Requests that one peer may make at once after a pause, and then in a second. */
export const REQUEST_BURST = 2000
export const REQUESTS_PER_SECOND = 500
/** Messages of the DHT that one peer may send at once after a pause, and then in a second: a host that starts announces all that it has. */
export const DHT_BURST = 20_000
export const DHT_MESSAGES_PER_SECOND = 1000
/** Bytes that are read for one peer and on their way to it: a buffer for each stream that an honest one has open. */
export const MAX_PEER_IN_FLIGHT_BYTES = 8 * MIB
/** Bytes that are read for all peers and on their way; beyond it, whoever has some on the way waits. */
export const MAX_IN_FLIGHT_BYTES = 32 * MIB
/** Bytes that a manifest counts as while it is on its way: four of them for one peer, half of the places for all. */
export const MANIFEST_IN_FLIGHT_BYTES = 2 * MIB
/** Milliseconds of the longest ban, and for which a ban that has ended still makes the next one longer. */
export const MAX_BAN_MS = 30 * 24 * 3600 * SECOND
export const BAN_MEMORY_MS = 30 * 24 * 3600 * SECOND
/** Peers of the configuration's lists, each. */
export const MAX_LISTED_PEERS = 4096
/** Bytes per second below which no rate may be limited: a peer that waits for a byte for longer than a stall gives the stream up. */
export const MIN_RATE_BYTES = 64 * KIB
/** Bytes of one signed record in the DHT. */
export const MAX_RECORD_BYTES = 4 * KIB
/** Milliseconds that a provider or metadata record lives after it was announced. */
export const RECORD_LIFETIME_MS = 30 * 60 * SECOND
/** Milliseconds for which a published name may be valid: a little more than a year. */
export const MAX_NAME_VALIDITY_MS = 400 * 24 * 3600 * SECOND
/** Milliseconds for the look-up of a published name. */
export const NAME_LOOKUP_MS = 6 * SECOND
/** Milliseconds of clock difference between hosts that a record's times may show. */
export const CLOCK_SKEW_MS = 5 * 60 * SECOND
/** Milliseconds for one look-up in the DHT. */
export const FIND_TIMEOUT_MS = 15 * SECOND

/** Milliseconds for a request or reply header to arrive whole. */
export const HEADER_TIMEOUT_MS = 10 * SECOND
/** Metadata and manifests served to all peers at once; each holds a whole manifest in memory. */
export const MAX_SERVED_MANIFESTS = 8
/** Bytes that one stream's sender may have on the way: 1 GB/s at a round trip of 1 ms. They wait in memory where the reader is slow. */
export const STREAM_WINDOW_BYTES = 1 * MIB
/** Bytes that the muxer may hold for a paused stream; above the window, or a fast sender would be reset. */
export const STREAM_BUFFER_BYTES = 2 * MIB
/** Bytes of the socket buffers of a connection, so that one encrypted packet is not one wait. */
export const SOCKET_BUFFER_BYTES = 4 * MIB
/** Bytes that may wait in front of TLS before a connection takes no more: half of them are written while the other half comes. */
export const TLS_BUFFER_BYTES = 256 * KIB
/** Milliseconds for the look-up of one provider's signed record; a provider without one is still tried. */
export const RECORD_LOOKUP_MS = 2 * SECOND
/** Newest signed records that are remembered, to refuse older ones: a host's own, those that it stores for others, and those that it has looked up. */
export const MAX_KNOWN_RECORDS = 100_000
/** Names of which it is remembered why the last record was refused, to tell people. */
export const MAX_KNOWN_REFUSALS = 256
/** Signed records that a host stores for all members, in units. */
export const MAX_STORED_RECORDS = 50_000
/** Bytes of a stored record that are one unit: the usual ones are shorter. */
export const RECORD_UNIT_BYTES = 512
/** Records that one member may have in another's memory, of its images and of itself as a provider: as many as a closure has paths. */
export const MAX_PEER_RECORDS = 32_768
/** Provider records of all members in one host's memory. */
export const MAX_PROVIDER_RECORDS = 100_000
/** Bytes that a host takes on one stream of the DHT that it answers: a request is a record or some addresses. */
export const MAX_DHT_REQUEST_BYTES = 64 * KIB
/** Bytes of an answer of the DHT: thousands of providers. */
export const MAX_DHT_ANSWER_BYTES = 1 * MIB
/** Providers of one image that are believed to be some on the word of one peer; each costs a look-up of what it has signed. */
export const MAX_NAMED_PROVIDERS = 64
/** Providers of one image that a fetch remembers; those that it heard of first are forgotten first. */
export const MAX_KNOWN_PROVIDERS = 1024
/** Providers of which a fetch tells how they failed, the last ones. */
export const MAX_TOLD_FAILURES = 16
/** Peers that are heard of through one message of the DHT: as many as are asked for. */
export const MAX_HEARD_PEERS = 20
/** Addresses of a provider that are taken from one message. */
export const MAX_NAMED_ADDRESSES = 16
/** Addresses that are remembered of one peer: dialling refuses to try more than 25, and a host has few. */
export const MAX_PEER_ADDRESSES = 24
/** Announcements sent at once. */
export const ANNOUNCE_CONCURRENCY = 4
/** Peers that a host stays connected to by its own effort; a fleet up to this size is a full mesh. */
export const MAX_MESH_PEERS = 64
/** Peers that a host has heard of and remembers, connected or not. */
export const MAX_MESH_TARGETS = 1024
/** Of these, those that are dialled at once: the rest of the dials are left to what is being fetched. */
export const MAX_MESH_DIALS = 16
/** Milliseconds before a peer that did not answer is dialled again: first, and at most. */
export const REDIAL_MIN_MS = 1 * SECOND
export const REDIAL_MAX_MS = 60 * SECOND
/** Milliseconds without an answer after which a peer that is no bootstrap peer is forgotten. */
export const FORGET_PEER_MS = 24 * 3600 * SECOND
/** Connections that one address may open in a second; a fleet behind one router comes back all at once. */
export const MAX_INBOUND_CONNECTIONS_PER_SECOND = 256
/** Connections whose other end has not shown yet that it belongs to the fleet. */
export const MAX_HALF_OPEN = 256
/** Of these, those from one address (of IPv6: one network of 64 bits), so that one stranger leaves room for the others; who is too many comes again in a second. */
export const MAX_HALF_OPEN_PER_ADDRESS = 32
/** Milliseconds between two probes of a quiet connection, and for the answer; two failures end it. */
export const PROBE_INTERVAL_MS = 30 * SECOND
export const PROBE_TIMEOUT_MS = 20 * SECOND
/** Milliseconds for open transfers to end when the node stops. */
export const STOP_TIMEOUT_MS = 5 * SECOND

/** Bytes of a NAR up to which it comes in one stream from one peer: some ten chunks, of which a swarm would make more work than it saves. */
export const SWARM_MIN_NAR_BYTES = 1 * MIB
/** Bytes of one message of the swarm that is no chunk: room for thousands of runs. */
export const MAX_SWARM_MESSAGE_BYTES = 64 * KIB
/** Bytes of chunks in one message, and so between two turns of a session: the largest chunk fits. */
export const MAX_SWARM_CHUNK_MESSAGE_BYTES = 256 * KIB
/** Chunks that one want may name: those among which the peer may choose, too. */
export const MAX_WANT_CHUNKS = 4096
/** Wants of one session that have not ended; each holds its chunks in memory. */
export const MAX_SWARM_WANTS = 32
/** Askers of all images that are served in turns at the same time; more would only make each of them slower. */
export const SWARM_PLACES = 16
/** Bytes that one asker is sent before it makes room for one that waits: some seconds of a fast link. */
export const SWARM_QUANTUM_BYTES = 32 * MIB
/** Milliseconds for an asker to use the place that it had to wait for. */
export const SWARM_CLAIM_MS = 2 * SECOND
/** Milliseconds for which a holder keeps what it has newly proven, at least and at most, to tell each asker of it in one message: a message for each would cost as much as the chunks. */
export const SWARM_NEWS_MIN_MS = 50
export const SWARM_NEWS_MAX_MS = 400
/** Sessions that one image is served in; each may cost a bit for each chunk. The next asker is told of the others instead. */
export const MAX_SWARM_SESSIONS = 64
/** Milliseconds without a message from an asker after which its session ends; it may open another one. */
export const SWARM_IDLE_MS = 10 * 60 * SECOND
/** Peers of a swarm that one peer may name. */
export const MAX_SWARM_PEERS_NAMED = 256
/** Peers that one image is received from at once: more do not make it faster, and each costs a bit for each chunk. */
export const MAX_SWARM_SOURCES = 32

/** Store paths of one closure; a whole NixOS system has some thousands. */
export const MAX_CLOSURE_PATHS = 32_768
/** Bytes of the description of a closure: some 600 for each path of the largest. */
export const MAX_CLOSURE_BYTES = 32 * MIB
/** NARs that are asked for in one exchange; their hashes fit into one header. */
export const MAX_PACKED_NARS = 1000
/** Bytes of a NAR that is packed with others: such a one is received again from its start when its provider fails. */
export const MAX_PACKED_NAR_BYTES = 64 * MIB
/** Bytes of the NARs that are asked for in one exchange. */
export const MAX_PACK_BYTES = 1024 * MIB
/** Bytes of a NAR up to which a packed one is held in memory until a thread has unpacked it; a larger one is written as it comes. */
export const MAX_BUFFERED_NAR_BYTES = 1 * MIB
/** Bytes of the packed NARs that are held in memory, or unpacked and proven, at once; each counts as 256 KiB at least. */
export const MAX_UNPACKED_BYTES = 4 * MIB
export const MIN_UNPACKED_BYTES = 256 * KIB
/** Images of a closure that become verified together: one transaction, and one wait for the disk. */
export const MAX_SETTLED_TOGETHER = 256
/** Large paths of one closure that are fetched at once, after what comes packed: each holds buffers of its own, and one fills the line. */
export const MAX_CLOSURE_FETCHES = 1
/** Closures described, and packs sent, to all peers at once. */
export const MAX_SERVED_CLOSURES = 8

/** Bytes of one body sent to the control socket. */
export const MAX_CONTROL_BODY_BYTES = 1 * MIB
/** Milliseconds for a client of the control socket to send its whole request. */
export const CONTROL_REQUEST_TIMEOUT_MS = 10 * SECOND
/** Milliseconds that the control server waits, when it stops, for answers that are under way. */
export const CONTROL_STOP_TIMEOUT_MS = 5 * SECOND
/** Events that wait for one slow reader of the control socket; what comes on top of them is counted and left out. */
export const MAX_WAITING_EVENTS = 1000
/** Connections to the control socket at once; more are closed as they come. */
export const MAX_CONTROL_CONNECTIONS = 256
/** Connections to the page's port at once; more are closed as they come. */
export const MAX_PAGE_CONNECTIONS = 64
/** Readers of events on the page's port at once; a page that is one too many asks again and again instead. */
export const MAX_PAGE_READERS = 16
/** Spans that wait to be sent to a receiver of traces; more are left out. */
export const MAX_SPANS_WAITING = 2048
/** Peers of one fetch that have a span of their own. */
export const MAX_TRACED_PEERS = 64
/** Milliseconds for a receiver of traces to take what it is sent, and for it to take the last when the daemon stops. */
export const TRACES_EXPORT_TIMEOUT_MS = 10 * SECOND
export const TRACES_STOP_TIMEOUT_MS = 2 * SECOND
/** Pieces of an image whose filling is told; each stands for as many chunks. */
export const MAX_TOLD_CELLS = 512
/** Bytes of one line or document that the control client takes: the journal of an image with much evidence. */
export const MAX_CONTROL_ANSWER_BYTES = 64 * MIB
/** Public keys of the configuration. */
export const MAX_TRUSTED_KEYS = 256
/** Bytes of the configuration file. */
export const MAX_CONFIG_BYTES = 1 * MIB
/** Bytes of what a Nix command may print before it is stopped. */
export const MAX_NIX_OUTPUT_BYTES = 64 * MIB
/** Milliseconds for a Nix command that only asks. */
export const NIX_QUERY_TIMEOUT_MS = 30 * SECOND
/** Milliseconds between asking a Nix command to end and killing it. */
export const NIX_KILL_DELAY_MS = 2 * SECOND
/** Nix commands that ask something, running at once; each is a process, and they share one database. */
export const MAX_NIX_PROCESSES = 4
/** Nix commands that copy a tree into the store, running at once: the disk is what they wait for. */
export const MAX_NIX_ADDITIONS = 2
/** Store paths of which the catalog remembers what Nix said: more than most stores have, in about 50 MB. */
export const MAX_KNOWN_PATHS = 100_000
/** Milliseconds for which a change of Nix's database must be past before an answer is remembered: its time has a grain. */
export const NIX_SETTLE_MS = 100
/** Store paths that one Nix command is asked about: 200 KiB of arguments at most, far below what a kernel takes. */
export const MAX_PATHS_PER_NIX_COMMAND = 512
/** Bytes that a Nix daemon of ours may complain in before it is ended. */
export const MAX_NIX_STDERR_BYTES = 1 * MIB
/** Bytes of one string that a Nix daemon sends: a message with all its lines. */
export const MAX_NIX_WIRE_STRING_BYTES = 1 * MIB
/** Items of one list that a Nix daemon sends. */
export const MAX_NIX_WIRE_LIST = 65_536
/** Connections to a Nix store that register paths, at once; each is a process. */
export const MAX_NIX_WRITERS = 2
/** Milliseconds without progress of a path that is being registered: after its last byte Nix reads and flushes all of it in silence. */
export const NIX_ADD_STALL_MS = 60 * 60 * SECOND

/** Milliseconds that a write to the catalog waits for another program that has it open, such as a backup. */
export const CATALOG_BUSY_TIMEOUT_MS = 5 * SECOND
/** Bytes of the catalog's write-ahead log that are kept on disk between writes. */
export const CATALOG_WAL_BYTES = 16 * MIB
/** Bytes of the record of how far an image was received; room for a bit for each chunk of the largest image. */
export const MAX_PROGRESS_BYTES = 64 * MIB

/** Copies of an image that the configuration may ask for; each is a host that is asked before one is collected. */
export const MAX_MIN_COPIES = 16
/** Images that are received at once at most, whatever the configuration says; each has a layout and open files. */
export const MAX_FETCHES = 64
/** Milliseconds between two looks for images that are due to be proven again. */
export const SCRUB_LOOK_MS = 60 * SECOND
/** Milliseconds before an image is proven again that could not be read for another reason than damage. */
export const SCRUB_RETRY_MS = 6 * 3600 * SECOND
/** Milliseconds between two writes of when images were last used; more would be lost by a crash, fewer would write for nothing. */
export const USE_FLUSH_MS = 60 * SECOND
/** Milliseconds for a holder to say whether it still has an image; one that doesn't is not counted as a copy. */
export const HOLDER_ANSWER_MS = 5 * SECOND
/** Milliseconds between two looks at the disk while fetches are paused because it is nearly full. */
export const ROOM_LOOK_MS = 2 * SECOND
/** Bytes received after which a fetch looks at the disk and at the quota again. */
export const ROOM_CHECK_BYTES = 8 * MIB

/** Bytes read from, or written to, a file at once: a whole wire buffer, so that none is split. Larger ones save CPU time and cost memory for each peer. */
export const FILE_BUFFER_BYTES = WIRE_BUFFER_BYTES
/** Bytes of a file up to which it is read and written without a turn of the event loop for each call: that would take ten times as long as the call. */
export const SMALL_FILE_BYTES = 64 * KIB
