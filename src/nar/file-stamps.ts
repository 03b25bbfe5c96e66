import type { Stats } from 'node:fs'
import { changeTime } from './change-time.ts'

/** One number per entry of a listing; 0 for what is no regular file. */
export interface StampColumns {
  /** In microseconds. */
  readonly changeTimes: Float64Array<ArrayBuffer>
  readonly inodes: Float64Array<ArrayBuffer>
}

/**
 * How the files of a tree were when this process wrote to them last. The kernel sets a file's change time with each change of its bytes, mode,
 * size or links: a file that has its stamp still has what was written. The time has a grain of some milliseconds, within which
 * somebody else's write can't be told from one's own.
 */
export class FileStamps {
  readonly columns: StampColumns

  constructor(columns: StampColumns) {
    this.columns = columns
  }

  static ofNone(count: number): FileStamps {
    return new FileStamps({ changeTimes: new Float64Array(count), inodes: new Float64Array(count) })
  }

  set(entry: number, stat: Stats): void {
    this.columns.changeTimes[entry] = changeTime(stat)
    this.columns.inodes[entry] = stat.ino
  }

  has(entry: number, stat: Stats): boolean {
    return this.columns.changeTimes[entry] === changeTime(stat) && this.columns.inodes[entry] === stat.ino
  }
}
