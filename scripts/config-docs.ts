import { z } from 'zod'
import { formatByteSize } from '../src/byte-size.ts'
import { defaultConfig, describeConfig, environmentName, isByteSize, type ConfigKey } from '../src/config.ts'
import { row } from './markdown-row.ts'

/** Characters of a line of the example. */
const WIDTH = 120

/** The text of config/narvik.example.toml: every key with the default that the service has. */
export function renderExample(): string {
  const head = comment('Narvik\'s configuration: every key with its default, as the service has it. Copy what you change to /etc/narvik/narvik.toml ' +
    '(a daemon of your own reads ~/.config/narvik/narvik.toml), or name another file with --config or NARVIK_CONFIG. ' +
    'Each key can also be set by an environment variable: data_dir is NARVIK_DATA_DIR, nix.bin_dir is NARVIK_NIX_BIN_DIR, ' +
    'lists are separated by commas. Flags win over variables, variables over this file. Made by scripts/docs.ts.')
  const keys = describeConfig('keys')
  const top = keys.filter(({ key }) => !key.includes('.')).map(entry)
  const tables = describeConfig('tables').map(({ key: table, description }) => {
    const inside = keys.filter(({ key }) => key.startsWith(`${table}.`)).map(entry)
    return `${comment(description)}\n[${table}]\n${inside.join('\n\n')}`
  })
  return `${[head, ...top, ...tables].join('\n\n')}\n`
}

/** The text of docs/CONFIG.md. */
export function renderConfigPage(): string {
  const keys = describeConfig('keys')
  const heading = `${row(['key', 'type', 'default', 'meaning'])}\n${row(['---', '---', '---', '---'])}`
  const rowsOf = (part: readonly ConfigKey[]): string => part.map(documented => row([
    `\`${documented.key}\``, typeName(documented.schema), defaultText(documented), inMarkdown(documented.description),
  ])).join('\n')
  const tables = describeConfig('tables').map(({ key: table, description }) =>
    `## ${table}\n\n${description}\n\n${heading}\n${rowsOf(keys.filter(({ key }) => key.startsWith(`${table}.`)))}`)
  return `# Configuration

One TOML file, a few environment variables, and flags. This page is made from [src/config.ts](../src/config.ts)
(\`node scripts/docs.ts\`), and so is [config/narvik.example.toml](../config/narvik.example.toml), a file with every key.

- The file is \`/etc/narvik/narvik.toml\` for root and the service, \`~/.config/narvik/narvik.toml\` for a daemon of your own;
  \`--config FILE\` or \`NARVIK_CONFIG\` names another one. It need not exist.
- Every key has a variable: \`NARVIK_\` and the key in capitals, dots as \`_\`. \`nix.bin_dir\` is \`${environmentName('nix.bin_dir')}\`. Lists are separated by commas.
- Flags win over variables, variables over the file, the file over the defaults.
- \`narvik config check [FILE]\` says everything that is wrong, with line numbers, and shows every key with the place that its value
  came from. The daemon does not start with a file that has anything wrong in it: an unknown key is a mistake, not a wish.

## The daemon

${heading}
${rowsOf(keys.filter(({ key }) => !key.includes('.')))}

${tables.join('\n\n')}
`
}

function entry(documented: ConfigKey): string {
  const name = documented.key.split('.').at(-1) ?? ''
  const value = defaultOf(documented.key)
  const line = value === null ? `# ${name} = ${toToml(documented.example)}` : `${name} = ${valueText(documented, value)}`
  return `${comment(documented.description)}\n${line}`
}

/** The value that the service has: it runs with the directories of root. */
function defaultOf(key: string): unknown {
  const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return key.split('.').reduce<unknown>((value, part) => (value as Record<string, unknown>)[camel(part)], { ...defaultConfig({ env: {}, uid: 0 }) })
}

function defaultText(documented: ConfigKey): string {
  const value = defaultOf(documented.key)
  return value === null ? 'not set' : `\`${valueText(documented, value)}\``
}

/** A size is written with its unit. */
function valueText({ schema }: ConfigKey, value: unknown): string {
  return toToml(isByteSize(schema) && typeof value === 'number' && value > 0 ? formatByteSize(value) : value)
}

/** Strings, numbers, booleans and lists of them read the same in TOML as in JSON. */
function toToml(value: unknown): string {
  return Array.isArray(value) ? `[${value.map(toToml).join(', ')}]` : JSON.stringify(value)
}

function typeName(schema: z.ZodType): string {
  if (isByteSize(schema)) return 'size'
  if (schema instanceof z.ZodNullable) return typeName(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodReadonly) return typeName(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodArray) return `list of ${typeName(schema.unwrap() as z.ZodType)}s`
  if (schema instanceof z.ZodEnum) return schema.options.map(String).join(', ')
  if (schema instanceof z.ZodBoolean) return 'true or false'
  if (schema instanceof z.ZodNumber) return schema.format?.endsWith('int') === true ? 'whole number' : 'number'
  return 'text'
}

function comment(text: string): string {
  const lines = ['#']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line.length + word.length < WIDTH) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(`# ${word}`)
  }
  return lines.join('\n')
}

/** What stands in quotes in a description is something to be typed. */
function inMarkdown(text: string): string {
  return text.replace(/"([^"]+)"/g, '`"$1"`')
}
