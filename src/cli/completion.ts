import type { Command } from 'commander'
import { NarvikError } from '../errors.ts'
import type { Action } from './outcome.ts'

/** One command with what may follow it. */
interface Node {
  /** `fleet create`; empty for the program. */
  readonly path: string
  readonly description: string
  readonly commands: readonly { readonly name: string, readonly description: string }[]
  readonly options: readonly { readonly name: string, readonly description: string }[]
}

const SHELLS = { bash, zsh, fish } as const

/** A script that teaches a shell this command line; made from the commands themselves. */
export function completion(shell: string, program: Command): Action {
  const render = Object.hasOwn(SHELLS, shell) ? SHELLS[shell as keyof typeof SHELLS] : undefined
  if (render === undefined) {
    throw new NarvikError('invalid-argument', `Cannot make a completion: found ${JSON.stringify(shell)}, needed ${Object.keys(SHELLS).join(', ')}`, { hint: 'For instance: narvik completion bash > /etc/bash_completion.d/narvik' })
  }
  return () => {
    const script = render([...nodesOf(program)])
    return Promise.resolve({ json: { script }, text: () => script.trimEnd() })
  }
}

function * nodesOf(command: Command, path = ''): Generator<Node> {
  const options = [...command.options.map(({ long, description }) => ({ name: long ?? '', description })), { name: '--help', description: 'print this help' }]
  const commands = command.commands.map(child => ({ name: child.name(), description: child.description() }))
  yield { path, description: command.description(), commands, options }
  for (const child of command.commands) yield * nodesOf(child, `${path} ${child.name()}`.trim())
}

function bash(nodes: readonly Node[]): string {
  const steps = nodes.filter(({ path }) => path !== '').map(({ path }) => `      "${stepOf(path)}") path="${path}" ;;`)
  const words = nodes.map(({ path, commands, options }) => `    "${path}") words="${[...commands, ...options].map(({ name }) => name).join(' ')}" ;;`)
  return `# bash completion of narvik
_narvik() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path= words= word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path|$word" in
${steps.join('\n')}
    esac
  done
  case "$path" in
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _narvik narvik
`
}

function zsh(nodes: readonly Node[]): string {
  const steps = nodes.filter(({ path }) => path !== '').map(({ path }) => `      '${stepOf(path)}') at='${path}' ;;`)
  const cases = nodes.map(({ path, commands, options }) => {
    const described = [...commands, ...options].map(({ name, description }) => `'${name}:${description.replaceAll('\'', '\'\\\'\'').replaceAll(':', '\\:')}'`)
    return `    '${path}') items=(${described.join(' ')}) ;;`
  })
  return `#compdef narvik
_narvik() {
  local at='' word
  local -a items
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$at|$word" in
${steps.join('\n')}
    esac
  done
  case "$at" in
${cases.join('\n')}
  esac
  _describe 'narvik' items || _files
}
if [ "$funcstack[1]" = _narvik ]; then _narvik "$@"; else compdef _narvik narvik; fi
`
}

function fish(nodes: readonly Node[]): string {
  const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll('\'', '\\\'')}'`
  const lines = nodes.flatMap(({ path, commands, options }) => {
    const names = path.split(' ').filter(name => name !== '')
    const inside = names.map(name => `__fish_seen_subcommand_from ${name}`)
    const outside = commands.length === 0 ? [] : [`not __fish_seen_subcommand_from ${commands.map(({ name }) => name).join(' ')}`]
    const condition = quoted([...inside, ...outside].join('; and '))
    return [
      ...commands.map(({ name, description }) => `complete -c narvik -n ${condition} -f -a ${name} -d ${quoted(description)}`),
      ...options.map(({ name, description }) => `complete -c narvik -n ${condition} -l ${name.slice(2)} -d ${quoted(description)}`),
    ]
  })
  return `# fish completion of narvik\n${lines.join('\n')}\n`
}

/** The command before, and the word that leads from it. */
function stepOf(path: string): string {
  const words = path.split(' ')
  return `${words.slice(0, -1).join(' ')}|${words.at(-1) ?? ''}`
}
