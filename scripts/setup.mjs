// Puts node_modules in place when it is absent or older than the lockfile. Runs under any Node that npm itself
// runs under, because the pinned Node comes with the very packages that this installs.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createHash } from 'node:crypto'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamp = join(root, 'node_modules', '.narvik-lock')
const wanted = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex')

if (!isInstalled()) install()
checkNode()

function isInstalled () {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted
}

// No package needs its install script: the native ones ship their binaries, and compiling one would need headers.
function install () {
  process.stderr.write('narvik: installing packages (npm ci) …\n')
  const npm = process.env.npm_execpath
  const [command, args] = npm ? [process.execPath, [npm]] : ['npm', []]
  const { status, error } = spawnSync(command, [...args, 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: root, stdio: ['ignore', 2, 2] })
  if (error || status !== 0) {
    process.stderr.write(`narvik: Cannot install the packages: npm ci ended with ${error?.message ?? `status ${status}`}, needed 0\n`)
    process.exit(1)
  }
  writeFileSync(stamp, wanted)
}

function checkNode () {
  const pinned = join(root, 'node_modules', '.bin', 'node')
  if (existsSync(pinned) && statSync(pinned).isFile()) return
  const major = Number(process.versions.node.split('.')[0])
  if (major >= 24) return
  process.stderr.write(`narvik: Cannot run: found Node ${process.versions.node} on ${process.platform}-${process.arch}, needed Node 24 or newer (a pinned one is installed on linux-x64 and linux-arm64)\n`)
  process.exit(1)
}
