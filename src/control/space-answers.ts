import { z } from 'zod'
import { STATES } from '../image/states.ts'
import { count, sri, time } from './fields.ts'

/** What Narvik takes on disk. Sizes are those of the blocks, so that holes take nothing; `apparentBytes` counts them. */
export const usageSchema = z.object({
  /** null: there is no quota. */
  quotaBytes: count.nullable(),
  /** All that counts against the quota. */
  usedBytes: count,
  /** Of it, what is claimed for images on their way in. */
  claimedBytes: count,
  catalogBytes: count,
  /** Free on the disk, and what must be for fetches to go on. */
  freeBytes: count,
  minFreeBytes: count,
  /** Why fetches are paused; null where they are not. */
  paused: z.string().nullable(),
  /** Everything that has files, the largest first. */
  images: z.array(z.object({
    narHash: sri,
    name: z.string().nullable(),
    state: z.enum(STATES),
    /** `content`: published; `quarantine`; `nix-store`: in place in the Nix store, which counts against nothing here. */
    place: z.enum(['content', 'quarantine', 'nix-store']),
    diskBytes: count,
    apparentBytes: count,
    pinned: z.boolean(),
    usedAt: time,
  })).readonly(),
})
export type UsageJson = z.output<typeof usageSchema>

export const collectionSchema = z.object({
  dryRun: z.boolean(),
  freedBytes: count,
  collected: z.array(z.object({
    narHash: sri,
    name: z.string().nullable(),
    /** `image`; or `rejected`: the bytes of a rejected image, whose evidence stays. */
    what: z.enum(['image', 'rejected']),
    diskBytes: count,
    usedAt: time,
  })).readonly(),
  /** What was next in turn and had to stay. */
  kept: z.array(z.object({ narHash: sri, name: z.string().nullable(), reason: z.string() })).readonly(),
})
export type CollectionJson = z.output<typeof collectionSchema>

/** The images that wait for their turn to be received, the next one first. */
export const queueSchema = z.array(z.object({
  /** 1: the next one. */
  position: z.int().min(1),
  narHash: sri,
  name: z.string().nullable(),
  /** Higher ones go first. */
  priority: z.int(),
  since: time,
}))
export type QueueJson = z.output<typeof queueSchema>
