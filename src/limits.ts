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

/** Bytes of the metadata in a reply; room for an image with thousands of references. */
export const MAX_METADATA_BYTES = 1 * MIB
/** References of one image. */
export const MAX_REFERENCES = 8192
/** Signatures of one image. */
export const MAX_SIGNATURES = 64
/** Bytes of an image's name; the length of a store path's name. */
export const MAX_NAME_BYTES = 211

/** Bytes of one request or reply header on the wire, without its body. */
export const MAX_WIRE_HEADER_BYTES = 64 * KIB
/** Bytes of one buffer given to a stream: larger ones become muxer frames that hold up other streams. */
export const WIRE_BUFFER_BYTES = 64 * KIB
/** Bytes received and not yet taken, per stream, above which the stream is paused. */
export const READ_HIGH_WATER_BYTES = 1 * MIB
/** Milliseconds without a byte of progress, in either direction, after which a stream is given up. */
export const STREAM_STALL_MS = 20 * SECOND
/** Milliseconds for a dial with its handshakes. */
export const DIAL_TIMEOUT_MS = 10 * SECOND
/** Streams of one protocol that one peer may have open to this host. */
export const MAX_INBOUND_STREAMS = 16
/** NAR streams served to all peers at once; the next asker is answered `busy`. */
export const MAX_SERVED_STREAMS = 64
/** Bytes of one signed record in the DHT. */
export const MAX_RECORD_BYTES = 4 * KIB
/** Milliseconds that a provider or metadata record lives after it was announced. */
export const RECORD_LIFETIME_MS = 30 * 60 * SECOND
/** Milliseconds of clock difference between hosts that a record's times may show. */
export const CLOCK_SKEW_MS = 5 * 60 * SECOND
/** Milliseconds for one look-up in the DHT. */
export const FIND_TIMEOUT_MS = 15 * SECOND

/** Bytes of one body sent to the control socket. */
export const MAX_CONTROL_BODY_BYTES = 1 * MIB
/** Bytes of what a Nix command may print before it is stopped. */
export const MAX_NIX_OUTPUT_BYTES = 64 * MIB
/** Milliseconds for a Nix command that only asks. */
export const NIX_QUERY_TIMEOUT_MS = 30 * SECOND
/** Milliseconds between asking a Nix command to end and killing it. */
export const NIX_KILL_DELAY_MS = 2 * SECOND

/** Bytes read from, or written to, a file at once. */
export const FILE_BUFFER_BYTES = 256 * KIB
/** Bytes of a file up to which it is read and written without a turn of the event loop for each call: that would take ten times as long as the call. */
export const SMALL_FILE_BYTES = 64 * KIB
