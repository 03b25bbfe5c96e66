import { parentPort } from 'node:worker_threads'
import { Listing, type ListingColumns } from '../../image/listing.ts'
import { BatchFiller, type Batches } from './batches.ts'
import { BatchRing, type SharedRing } from './batch-ring.ts'

export interface HelperJob {
  readonly root: string
  readonly columns: ListingColumns
  readonly batches: Batches
  readonly ring: SharedRing
}

// The thread that helps another one to read the small files of a tree.

parentPort?.on('message', ({ root, columns, batches, ring }: HelperJob) => {
  const listing = new Listing(columns)
  const filler = new BatchFiller(root, listing, batches)
  try {
    new BatchRing(ring, filler, listing, batches).work()
  } finally {
    filler.close()
  }
  parentPort?.postMessage('done')
})
