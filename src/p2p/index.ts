/** What the rest of Narvik uses of the network. */
export { loadIdentity, newIdentity, peerIdOf } from './identity.ts'
export { createNode, type NodeComponents, type NodeInit, P2pNode, type PeerInfo } from './node.ts'
export { fetchMetadata, type MetaAnswer } from './meta/client.ts'
export { type ClosureAnswer, fetchClosurePaths, fetchNars, type NarsAnswer, type WantedNar } from './closure/client.ts'
export { fetchNar, type NarAnswer } from './nar/client.ts'
export type { ClosurePath, ClosureSource, ImageSource, Refusal, StreamOpener, Traffic } from './protocol.ts'
export type { Announcement, ContentRouter, Provider } from './router.ts'
export { MemoryNetwork, MemoryRouter } from './router-memory.ts'
