/** Bytes of each unit that a size may be written in. */
const UNITS: Readonly<Record<string, number>> = {
  '': 1, 'B': 1,
  'kB': 1000, 'MB': 1000 ** 2, 'GB': 1000 ** 3, 'TB': 1000 ** 4,
  'KiB': 1024, 'MiB': 1024 ** 2, 'GiB': 1024 ** 3, 'TiB': 1024 ** 4,
}

/** The binary units, the smallest first. */
const BINARY_UNITS = ['KiB', 'MiB', 'GiB', 'TiB'] as const

/** What a size has to look like, for messages. */
export const BYTE_SIZE_FORM = 'a size such as 200 GiB (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)'

/** The bytes of a size that a person wrote, such as `200 GiB`, `1.5TB` or `4096`; undefined where it is none. */
export function parseByteSize(text: string): number | undefined {
  const [, amount = '', unit = ''] = /^(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})$/.exec(text.trim()) ?? []
  const factor = Object.hasOwn(UNITS, unit) ? UNITS[unit] : undefined
  if (amount === '' || factor === undefined) return undefined
  const bytes = Math.round(Number(amount) * factor)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** The shortest exact way to write it: in the largest binary unit that goes into it. */
export function formatByteSize(bytes: number): string {
  const unit = BINARY_UNITS.findLast(name => bytes > 0 && bytes % (UNITS[name] ?? 1) === 0)
  return unit === undefined ? String(bytes) : `${bytes / (UNITS[unit] ?? 1)} ${unit}`
}

/** `1.2 GiB`, for people; below a KiB the count itself. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${Math.round(bytes)} B`
  const exponent = Math.min(Math.floor(Math.log2(bytes) / 10), BINARY_UNITS.length)
  return `${(bytes / 1024 ** exponent).toFixed(1)} ${BINARY_UNITS[exponent - 1] ?? 'B'}`
}
