import { spawn, type ChildProcess } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface NginxOptions {
  /** For its configuration, its log and its temporary files; made where it is absent. */
  readonly dir: string
  /** The directory that is served. */
  readonly root: string
  /** `address:port`. */
  readonly listen: string
  /** The words of a command that becomes nginx somewhere else, such as in a network namespace. */
  readonly via?: readonly string[]
  /** Whether it answers by now. */
  readonly answers: () => Promise<boolean>
}

/** Starts nginx as one process that serves plain files, and resolves when it answers. */
export async function startNginx({ dir, root, listen, via = [], answers }: NginxOptions): Promise<ChildProcess> {
  await mkdir(dir, { recursive: true })
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path ${dir}/${kind};`).join(' ')
  await writeFile(join(dir, 'nginx.conf'), `
    daemon off; master_process off; pid ${dir}/pid; error_log ${dir}/error.log; ${process.getuid?.() === 0 ? 'user root;' : ''}
    events {}
    http { access_log off; sendfile on; tcp_nopush on; ${temporary} server { listen ${listen}; root ${root}; } }
  `)
  const [program, ...words] = [...via, 'nginx', '-c', join(dir, 'nginx.conf'), '-e', join(dir, 'error.log')]
  const nginx = spawn(program, words, { stdio: 'inherit' })
  for (;;) {
    if (nginx.exitCode !== null) throw new Error(`Cannot start nginx: it ended with ${nginx.exitCode}`)
    if (await answers()) return nginx
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
