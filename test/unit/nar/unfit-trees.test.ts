import { execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, chownSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FILE_BUFFER_BYTES } from '../../../src/limits.ts'
import { copyTree } from '../../../src/nar/copy.ts'
import { dumpTree } from '../../../src/nar/dump.ts'
import { hashTree, scanTree } from '../../../src/nar/hash-tree.ts'
import { Layout } from '../../../src/nar/layout.ts'
import { readRange } from '../../../src/nar/read-range.ts'
import { removeTree } from '../../../src/nar/remove.ts'
import { sealTree } from '../../../src/nar/seal.ts'
import { hashContents } from '../../../src/nar/thread/hash-contents.ts'
import { directory, regular, symlink } from '../../helpers/nar-bytes.ts'
import { collect, plant, withTemporaryDirectory } from '../../helpers/trees.ts'

describe('a tree that is no image', () => {
  it('with a fifo is refused and nobody waits for it', async () => {
    await withTemporaryDirectory(async path => {
      execFileSync('mkfifo', [join(path, 'a fifo')])
      const attempts = [() => hashTree(path), () => scanTree(path), () => collect(dumpTree(path)), () => copyTree(path, `${path}-copy`), () => hashTree(join(path, 'a fifo'))]
      for (const attempt of attempts) {
        await expect(attempt()).rejects.toMatchObject({ code: 'unsupported-file', message: expect.stringContaining(`${path}/a fifo: found a fifo`) as string })
      }
      expect(existsSync(`${path}-copy`)).toBe(false)
    })
  })

  it('with a socket or a device is refused', async () => {
    await withTemporaryDirectory(async path => {
      const server = createServer().listen(join(path, 'socket'))
      await new Promise(resolve => server.once('listening', resolve))
      await expect(hashTree(path)).rejects.toMatchObject({ code: 'unsupported-file', message: expect.stringContaining('found a socket') as string })
      server.close()
      await expect(hashTree('/dev/null')).rejects.toMatchObject({ code: 'unsupported-file', message: expect.stringContaining('/dev/null: found a character device') as string })
    })
  })

  it('is not there', async () => {
    await withTemporaryDirectory(async path => {
      await expect(hashTree(join(path, 'nothing'))).rejects.toMatchObject({ code: 'not-found', message: expect.stringContaining(join(path, 'nothing')) as string })
      await expect(hashTree(`${path}/a\0b`)).rejects.toMatchObject({ name: 'NarvikError' })
    })
  })

  it('is measured as a symlink where the path is one, with a slash after it or without', async () => {
    await withTemporaryDirectory(async path => {
      plant(join(path, 'link'), symlink('.'))
      expect((await hashTree(join(path, 'link'))).narSize).toBe(120)
      expect((await hashTree(`${join(path, 'link')}/`)).narSize).toBe(120)
    })
  })
})

describe('a tree that changes', () => {
  const shrink = (path: string): void => { truncateSync(join(path, 'sub/file'), 10) }
  const changes: Record<string, (path: string) => void> = {
    'a shorter file': shrink,
    'a longer file': path => { appendFileSync(join(path, 'sub/file'), 'x') },
    'no file': path => { rmSync(join(path, 'sub/file')) },
    'another mode': path => { chmodSync(join(path, 'sub/file'), 0o755) },
    'a directory in place of a file': path => { rmSync(join(path, 'sub/file')); mkdirSync(join(path, 'sub/file')) },
    'a fifo in place of a file': path => { rmSync(join(path, 'sub/file')); execFileSync('mkfifo', [join(path, 'sub/file')]) },
    'a symlink in place of a file': path => { renameSync(join(path, 'sub/file'), join(path, 'moved')); symlinkSync('../moved', join(path, 'sub/file')) },
    'a symlink in place of a directory': path => { renameSync(join(path, 'sub'), join(path, 'moved')); symlinkSync('moved', join(path, 'sub')) },
  }

  it.each(Object.keys(changes))('to %s is noticed when a range is read', async name => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'tree')
      plant(path, directory({ sub: directory({ file: regular(Buffer.alloc(700_000, 1)) }) }))
      const layout = Layout.of(await scanTree(path))
      changes[name]?.(path)
      await expect(collect(readRange(path, layout, 0, layout.narSize))).rejects.toMatchObject({ code: 'changed-while-reading', message: expect.stringContaining(`${path}/sub/file`) as string })
    })
  })

  it.each(['a shorter file', 'a longer file'])('to %s is noticed in the middle of it', async name => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'tree')
      plant(path, directory({ sub: directory({ file: regular(Buffer.alloc(3 * FILE_BUFFER_BYTES, 1)) }) }))
      const layout = Layout.of(await scanTree(path))
      const reading = async (): Promise<void> => {
        let count = 0
        for await (const bytes of readRange(path, layout, 0, layout.narSize)) if (bytes.length > 0 && count++ === 0) changes[name]?.(path)
      }
      await expect(reading()).rejects.toMatchObject({ code: 'changed-while-reading' })
    })
  })

  it.each([100, 300_000, 5_000_000])('is noticed by the hash where a file says %i bytes and has others', async size => {
    await withTemporaryDirectory(async scratch => {
      const path = join(scratch, 'file')
      writeFileSync(path, Buffer.alloc(size, 1))
      const listing = await scanTree(path)
      appendFileSync(path, 'x')
      await expect(hashContents(path, listing, { check: () => undefined })).rejects.toMatchObject({ code: 'changed-while-reading' })
      truncateSync(path, size - 1)
      await expect(hashContents(path, listing, { check: () => undefined })).rejects.toMatchObject({ code: 'changed-while-reading' })
      // What /proc says of the sizes of its files is never true.
      await expect(hashTree('/proc/self/status')).rejects.toMatchObject({ code: 'changed-while-reading' })
    })
  })
})

it('is noticed by the hash where a file is written to in the middle and keeps its size', async () => {
  await withTemporaryDirectory(async scratch => {
    const path = join(scratch, 'file')
    writeFileSync(path, Buffer.alloc(5_000_000, 1))
    const listing = await scanTree(path)
    const overwrite = (bytes: number): void => { if (bytes > 2_000_000) writeFileSync(path, Buffer.alloc(5_000_000, 2)) }
    await expect(hashContents(path, listing, { check: overwrite })).rejects.toMatchObject({ code: 'changed-while-reading' })
  })
})

it('is noticed by the hash where one of very many files is gone', async () => {
  await withTemporaryDirectory(async scratch => {
    const path = join(scratch, 'tree')
    const names = Array.from({ length: 3000 }, (_, index) => `file-${String(index).padStart(4, '0')}`)
    plant(path, directory(Object.fromEntries(names.map(name => [name, regular(name.repeat(100))]))))
    const listing = await scanTree(path)
    for (const victim of [0, 1500, 2999]) {
      rmSync(join(path, names[victim] ?? ''))
      await expect(hashContents(path, listing, { check: () => undefined })).rejects.toMatchObject({ code: 'changed-while-reading', message: expect.stringContaining('found it gone') as string })
    }
  })
})

describe('as a user who is not root', () => {
  it('says which file can not be read, and removes sealed trees', async () => {
    await withTemporaryDirectory(async scratch => {
      chmodSync(scratch, 0o777)
      plant(join(scratch, 'secret'), directory({ file: regular('x'), locked: directory({ file: regular('x') }) }))
      plant(join(scratch, 'sealed'), directory({ a: directory({ b: directory({ c: regular('x') }) }) }))
      if (process.getuid?.() === 0) execFileSync('chown', ['-R', '65534', join(scratch, 'secret'), join(scratch, 'sealed')])
      await sealTree(join(scratch, 'sealed'))
      chmodSync(join(scratch, 'sealed/a/b'), 0)
      if (process.getuid?.() === 0) chownSync(join(scratch, 'sealed'), 65534, 0)
      chmodSync(join(scratch, 'secret/file'), 0)
      expect(asNobody(`hashTree('${scratch}/secret')`)).toMatch(/unreadable.*secret\/file/)
      chmodSync(join(scratch, 'secret/locked'), 0)
      expect(asNobody(`scanTree('${scratch}/secret')`)).toMatch(/unreadable.*secret\/locked/)
      expect(asNobody(`removeTree('${scratch}/sealed')`)).toBe('')
      expect(existsSync(join(scratch, 'sealed'))).toBe(false)
    })
  })
})

describe('removeTree', () => {
  it('removes symlinks and what they are in, not what they lead to; nothing there is well', async () => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'kept'), directory({ file: regular('x') }))
      plant(join(scratch, 'tree'), directory({ link: symlink('../kept'), file: regular('x') }))
      await removeTree(join(scratch, 'tree'))
      await removeTree(join(scratch, 'tree'))
      expect(existsSync(join(scratch, 'tree'))).toBe(false)
      expect(existsSync(join(scratch, 'kept/file'))).toBe(true)
    })
  })
})

/** The code and message of what a call of Narvik's throws when it runs as a user without rights. */
function asNobody(call: string): string {
  const folder = join(import.meta.dirname, '../../../src/nar')
  const script = `
    import { hashTree, scanTree } from '${folder}/hash-tree.ts'
    import { removeTree } from '${folder}/remove.ts'
    await Promise.resolve([hashTree, scanTree, removeTree])
    await (${call}).catch(error => { process.stdout.write(error.code + ' ' + error.message) })`
  const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], { ...user, cwd: '/', encoding: 'utf8' })
}
