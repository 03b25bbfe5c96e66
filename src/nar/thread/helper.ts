import { parentPort } from 'node:worker_threads'
import { Listing, type ListingColumns } from '../../image/listing.ts'
import { BatchFiller, type Batches } from './batches.ts'
import { BatchRing, type SharedRing } from './batch-ring.ts'
import { Measurer, type SharedMeasures } from './measure-files.ts'

/** A share of the work at the tree of `columns`: looking at its files, or reading them. */
export type HelperJob = { readonly root: string, readonly columns: ListingColumns } & (
  | { readonly task: 'measure', readonly shared: SharedMeasures }
  | { readonly task: 'read', readonly batches: Batches, readonly ring: SharedRing }
)

// The thread that helps another one with the small files of a tree.

parentPort?.on('message', (job: HelperJob) => {
  const listing = new Listing(job.columns)
  if (job.task === 'measure') new Measurer(job.root, listing, job.shared).work()
  else read(job, listing)
  parentPort?.postMessage('done')
})

function read({ root, batches, ring }: Extract<HelperJob, { task: 'read' }>, listing: Listing): void {
  const filler = new BatchFiller(root, listing, batches)
  try {
    new BatchRing(ring, filler, listing, batches).work()
  } finally {
    filler.close()
  }
}
