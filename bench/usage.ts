import { readFile } from 'node:fs/promises'

/** What a process has used so far. */
export interface Usage {
  /** MiB resident: now, and the most it ever was. */
  readonly resident: number
  readonly peak: number
  readonly cpuSeconds: number
}

/** What a process of this machine, with all its threads, has used so far. */
export async function usageOf(pid: number): Promise<Usage> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const mib = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024
  return { resident: mib('VmRSS'), peak: mib('VmHWM'), cpuSeconds: cpuSecondsIn(stat) }
}

/** User and system time of /proc/PID/stat, without that of children: fields 14 and 15, in ticks of 10 ms; the command before them may have spaces in it. */
function cpuSecondsIn(stat: string): number {
  const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 13).map(Number)
  return ((user ?? 0) + (system ?? 0)) / 100
}
