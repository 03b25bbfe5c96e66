import { join } from 'node:path'
import { expect, test } from 'vitest'
import { howToStart } from '../../../src/cli/socket.ts'
import { SYSTEM_SOCKET } from '../../../src/config.ts'

test('who finds no daemon is told of the service only where there is one, and its socket is meant', () => {
  const unit = join(import.meta.dirname, '../../../config/narvikd.service')
  expect(howToStart(SYSTEM_SOCKET, ['/absent', unit])).toMatch(/^Start it with: systemctl start narvikd;/)
  expect(howToStart(SYSTEM_SOCKET, ['/absent'])).toBeUndefined()
  expect(howToStart('/home/me/narvik.sock', [unit])).toBeUndefined()
})
