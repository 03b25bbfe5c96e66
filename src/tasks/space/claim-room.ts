import { diskBytesOf } from '../../nar/disk-usage.ts'
import type { Layout } from '../../nar/layout.ts'
import type { TaskContext } from '../context.ts'
import type { Job } from '../jobs.ts'

/** Until the fetch ends, nobody else gets the room that the image will take. */
export async function claimRoom({ space }: Pick<TaskContext, 'space'>, { narHash, signal }: Job<unknown>, { listing }: Layout): Promise<void> {
  await space.claim(narHash.toNix32(), diskBytesOf(listing), { signal })
}
