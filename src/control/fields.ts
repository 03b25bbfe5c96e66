import { z } from 'zod'
import { narHashText } from '../image/metadata.ts'

/** Fields that many shapes of the control socket have. */
export const count = z.int().min(0)
export const rate = z.number().min(0)
export const time = z.iso.datetime()
export const sri = narHashText.transform(hash => hash.toSri())
