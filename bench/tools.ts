import { execa } from 'execa'

/** Debian's packages by the command that shows that they are there. */
const PACKAGES = {
  'nginx-light': ['nginx', '-v'],
  'nix-bin': ['nix', '--version'],
  'curl': ['curl', '--version'],
  'iproute2': ['tc', '-V'],
  'casync': ['casync', '--version'],
  'e2fsprogs': ['debugfs', '-V'],
  'python3-libtorrent': ['/usr/bin/python3', '-c', 'import libtorrent; print("libtorrent", libtorrent.__version__)'],
} as const

export type Package = keyof typeof PACKAGES

/**
 * Makes sure that the programs of these packages can run; installs what is absent, and says so. Resolves with the version of each.
 * @throws where one is absent and can't be installed: a benchmark without its reference says nothing.
 */
export async function requireTools(packages: readonly Package[]): Promise<Record<string, string>> {
  const found = await versionsOf(packages)
  const absent = packages.filter(name => found[name] === undefined)
  if (absent.length > 0) await install(absent)
  const versions = await versionsOf(packages)
  const failing = packages.find(name => versions[name] === undefined)
  if (failing !== undefined) throw new Error(`Cannot run the benchmarks: ${PACKAGES[failing].join(' ')} fails although ${failing} is installed`)
  return Object.fromEntries(packages.map(name => [name, versions[name] ?? '']))
}

async function versionsOf(packages: readonly Package[]): Promise<Partial<Record<Package, string>>> {
  const versions: Partial<Record<Package, string>> = {}
  for (const name of packages) {
    const [program, ...args] = PACKAGES[name]
    const { failed, stdout, stderr } = await execa(program, args, { reject: false })
    if (!failed) versions[name] = (stdout + stderr).split('\n')[0]?.replace('nginx version: ', '') ?? ''
  }
  return versions
}

async function install(absent: readonly Package[]): Promise<void> {
  const wanted = `Cannot run the benchmarks: found no ${absent.join(' and no ')}, needed ${absent.length === 1 ? 'it' : 'all of them'}`
  if (process.getuid?.() !== 0) throw new Error(`${wanted}; install with: apt-get install ${absent.join(' ')}`)
  console.log(`Installing ${absent.join(', ')}, which the benchmarks compare with`)
  const { failed, stderr } = await execa('apt-get', ['install', '-y', '--no-install-recommends', ...absent], { env: { DEBIAN_FRONTEND: 'noninteractive' }, reject: false })
  if (failed) throw new Error(`${wanted}; apt-get says: ${stderr}`)
}
