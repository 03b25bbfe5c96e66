import { SWARM_NEWS_MAX_MS, SWARM_NEWS_MIN_MS } from '../../limits.ts'

/** What part of its age a session may lose by waiting for news: those of a short one go at once, those of a long one together. */
const PART_OF_AGE = 1 / 50

/** Milliseconds from one message of news to the next in a session that has run for `ageMs`. */
export function newsPauseMs(ageMs: number): number {
  return Math.min(Math.max(ageMs * PART_OF_AGE, SWARM_NEWS_MIN_MS), SWARM_NEWS_MAX_MS)
}
