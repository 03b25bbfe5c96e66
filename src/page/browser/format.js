/** Numbers, times and identifiers as people read them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** @param {number | null} bytes */
export function size(bytes) {
  if (bytes === null) return 'size not known yet'
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ${UNITS[unit] ?? ''}`
}

/** @param {number} bytesPerSecond */
export function rate(bytesPerSecond) {
  return `${size(Math.round(bytesPerSecond))}/s`
}

/** @param {number} part @param {number | null} whole */
export function percent(part, whole) {
  if (whole === null || whole === 0) return null
  // What is not whole is never shown as whole.
  return part >= whole ? 100 : Math.min(99, Math.floor(100 * part / whole))
}

/** @param {number} number */
export function counted(number) {
  return number.toLocaleString('en')
}

/** @param {number} number @param {string} one @param {string} [many] */
export function plural(number, one, many = `${one}s`) {
  return `${counted(number)} ${number === 1 ? one : many}`
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return 'less than 1 s'
  if (seconds < 90) return `${Math.round(seconds)} s`
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`
  return plural(Math.round(seconds / 86_400), 'day')
}

/** @param {string | null} time @param {number} now */
export function ago(time, now) {
  if (time === null) return '–'
  const seconds = (now - Date.parse(time)) / 1000
  return seconds < 5 ? 'just now' : `${duration(seconds)} ago`
}

/** @param {string} time */
export function clock(time) {
  const date = new Date(time)
  const day = date.toLocaleDateString('sv')
  return day === new Date().toLocaleDateString('sv') ? date.toLocaleTimeString('sv') : `${day} ${date.toLocaleTimeString('sv')}`
}

/** The first characters of a NAR hash; all of it is in the title beside it. @param {string} narHash */
export function shortHash(narHash) {
  return `${narHash.slice(0, 17)}…`
}

/** A peer id by its end: all of a kind begin alike. @param {string} peerId */
export function shortPeer(peerId) {
  return peerId.length > 14 ? `…${peerId.slice(-8)}` : peerId
}

/** @param {{ name: string | null, narHash: string }} image */
export function nameOf({ name, narHash }) {
  return name ?? shortHash(narHash)
}
