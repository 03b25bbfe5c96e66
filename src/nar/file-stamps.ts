import type { Stats } from 'node:fs'
import { changeTime } from './change-time.ts'

/** One number per entry of a listing; 0 for what is no regular file. */
export interface StampColumns {
  /** In microseconds. */
  readonly changeTimes: Float64Array<ArrayBuffer>
  readonly inodes: Float64Array<ArrayBuffer>
  /** 1 for a file to which nothing was written since it was made: every byte of it is zero. */
  readonly holes: Uint8Array<ArrayBuffer>
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
    return new FileStamps({ changeTimes: new Float64Array(count), inodes: new Float64Array(count), holes: new Uint8Array(count) })
  }

  set(entry: number, stat: Stats): void {
    this.columns.changeTimes[entry] = changeTime(stat)
    this.columns.inodes[entry] = stat.ino
    this.columns.holes[entry] = 0
  }

  /** As `set`, of a file that has got its size and nothing else. */
  setHole(entry: number, stat: Stats): void {
    this.set(entry, stat)
    this.columns.holes[entry] = 1
  }

  /** Whether nothing was written to the file since it was made, so that all of it is zero. */
  isHole(entry: number): boolean {
    return this.columns.holes[entry] === 1
  }

  has(entry: number, stat: Stats): boolean {
    return this.columns.changeTimes[entry] === changeTime(stat) && this.columns.inodes[entry] === stat.ino
  }
}
