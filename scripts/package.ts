// Makes dist/narvik_<version>_<arch>.deb: the sources, the packages that they need, and the pinned Node. Uses no network: all of it is in node_modules.
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'

const ROOT = new URL('../', import.meta.url).pathname
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.stdout.write(`${makePackage()}\n`)

export interface PackageOptions {
  /** In place of the one in package.json. */
  readonly version?: string
  /** Directory that the package is put into; `dist` where absent. */
  readonly out?: string
  /** `none` packs at once, for a package that is tried and thrown away. gzip: every dpkg reads it, and packing takes seconds. */
  readonly compression?: 'gzip' | 'none'
}

/** Makes the package and answers with its path. */
export function makePackage({ version = ownVersion(), out = join(ROOT, 'dist'), compression = 'gzip' }: PackageOptions = {}): string {
  const architecture = ARCHITECTURES[process.arch] ?? process.arch
  const stage = join(out, `stage-${version}`)
  rmSync(stage, { recursive: true, force: true })
  const app = join(stage, 'usr/lib/narvik')
  mkdirSync(app, { recursive: true })
  copyProgram(app, version)
  copyNode(app)
  copySystemFiles(stage)
  writeControl(stage, { version, architecture })
  const file = join(out, `narvik_${version}_${architecture}.deb`)
  execFileSync('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', stage, file], { stdio: ['ignore', 'ignore', 'inherit'] })
  rmSync(stage, { recursive: true, force: true })
  return file
}

function ownVersion(): string {
  return (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version
}

function copyProgram(app: string, version: string): void {
  for (const name of ['src', 'bin', 'config', 'LICENSE']) cpSync(join(ROOT, name), join(app, name), { recursive: true })
  const description = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, unknown>
  writeFileSync(join(app, 'package.json'), `${JSON.stringify({ ...description, version }, null, 2)}\n`)
  for (const [name, dev] of installedPackages()) {
    if (dev || name.startsWith('node_modules/node-linux-')) continue
    const from = join(ROOT, name)
    if (!existsSync(from)) continue
    cpSync(realpathSync(from), join(app, name), { recursive: true, filter: source => !isLitter(source) && !(source !== realpathSync(from) && source.endsWith('/node_modules')) })
  }
}

/** Paths of the lockfile, and whether only development needs them. */
function installedPackages(): [string, boolean][] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: boolean, devOptional?: boolean }> }
  return Object.entries(packages).filter(([name]) => name !== '').map(([name, { dev = false, devOptional = false }]) => [name, dev || devOptional])
}

/** What no program opens: maps, declarations, sources of C, binaries for other machines. */
function isLitter(path: string): boolean {
  if (/\.(map|d\.ts|d\.mts|d\.cts|md|markdown|c|cc|cpp|h|o|tsbuildinfo)$/.test(path)) return true
  return /\/(test|tests|docs|deps|prebuilds\/(darwin|win32)[^/]*|\.cache)$/.test(path) && lstatSync(path).isDirectory()
}

function copyNode(app: string): void {
  const bin = join(app, 'node_modules/.bin')
  mkdirSync(bin, { recursive: true })
  const pinned = join(ROOT, 'node_modules/.bin/node')
  cpSync(realpathSync(existsSync(pinned) ? pinned : process.execPath), join(bin, 'node'))
  chmodSync(join(bin, 'node'), 0o755)
}

function copySystemFiles(stage: string): void {
  const put = (to: string, content: string): void => {
    mkdirSync(dirname(join(stage, to)), { recursive: true })
    writeFileSync(join(stage, to), content)
  }
  put('lib/systemd/system/narvikd.service', readFileSync(join(ROOT, 'config/narvikd.service'), 'utf8').replace(/^ExecStart=.*$/m, 'ExecStart=/usr/lib/narvik/bin/narvik daemon'))
  put('usr/lib/sysusers.d/narvik.conf', readFileSync(join(ROOT, 'config/narvik.sysusers.conf'), 'utf8'))
  for (const name of ['narvik.example.toml', 'narvik.rules.yml', 'narvik.dashboard.json']) put(`usr/share/doc/narvik/${name}`, readFileSync(join(ROOT, 'config', name), 'utf8'))
  for (const name of readdirSync(join(ROOT, 'docs'))) put(`usr/share/doc/narvik/${name}`, readFileSync(join(ROOT, 'docs', name), 'utf8'))
  put('usr/share/doc/narvik/copyright', readFileSync(join(ROOT, 'LICENSE'), 'utf8'))
  const completions = { bash: 'bash-completion/completions/narvik', zsh: 'zsh/vendor-completions/_narvik', fish: 'fish/vendor_completions.d/narvik.fish' }
  for (const [shell, place] of Object.entries(completions)) put(`usr/share/${place}`, execFileSync(join(ROOT, 'bin/narvik'), ['completion', shell], { encoding: 'utf8' }))
  mkdirSync(join(stage, 'usr/bin'), { recursive: true })
  symlinkSync('../lib/narvik/bin/narvik', join(stage, 'usr/bin/narvik'))
  mkdirSync(join(stage, 'etc/narvik'), { recursive: true })
}

function writeControl(stage: string, { version, architecture }: { readonly version: string, readonly architecture: string }): void {
  const kib = execFileSync('du', ['-sk', stage], { encoding: 'utf8' }).split('\t')[0] ?? '0'
  const control = `Package: narvik
Version: ${version}
Architecture: ${architecture}
Maintainer: Narvik's maintainers <narvik@localhost>
Installed-Size: ${kib}
Depends: systemd (>= 247), libc6 (>= 2.28), libstdc++6
Recommends: nix-bin
Section: admin
Priority: optional
Description: moves Nix-built VM images between the hosts of a fleet, peer to peer
 Nothing that arrives is usable until it is proven: the receiving host recomputes
 the NAR hash and keeps an image in quarantine until it passes.
`
  mkdirSync(join(stage, 'DEBIAN'), { recursive: true })
  writeFileSync(join(stage, 'DEBIAN/control'), control)
  for (const name of ['postinst', 'prerm', 'postrm']) {
    writeFileSync(join(stage, 'DEBIAN', name), readFileSync(join(ROOT, 'scripts/deb', name), 'utf8'))
    chmodSync(join(stage, 'DEBIAN', name), 0o755)
  }
}
