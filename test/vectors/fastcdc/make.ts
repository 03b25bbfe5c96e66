import { blake3 } from '@napi-rs/blake-hash'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bytesOf, VECTORS } from './inputs.ts'
import { referenceGear, referenceLengths } from './reference.ts'

// Writes gear.json and cuts.json from the reference, not from what they test: `node test/vectors/fastcdc/make.ts`.

const cuts = VECTORS.map(({ name, parts }) => {
  const bytes = bytesOf(parts)
  const chunks: { length: number, blake3: string }[] = []
  let at = 0
  for (const length of referenceLengths(bytes)) {
    chunks.push({ length, blake3: blake3(bytes.subarray(at, at + length)).toString('hex') })
    at += length
  }
  return { name, parts, chunks }
})

write('gear.json', referenceGear.map(Number))
write('cuts.json', cuts)

function write(name: string, value: unknown): void {
  writeFileSync(join(import.meta.dirname, name), `${JSON.stringify(value, null, 1)}\n`)
}
