import type { Command } from 'commander'
import { NarvikError } from '../errors.ts'
import { listReferences } from './references.ts'
import type { Action } from './outcome.ts'

/** One command with what may follow it. */
interface Node {
  /** `fleet create`; empty for the program. */
  readonly path: string
  readonly commands: readonly Word[]
  readonly options: readonly (Word & { readonly takesValue: boolean })[]
  /** Which argument is a REF, counted from 0. */
  readonly refAt: number | undefined
  readonly arguments: number
}

interface Word {
  readonly name: string
  readonly description: string
}

const SHELLS = { bash, zsh, fish } as const
/** What the scripts ask for, in place of a shell. */
const REFERENCES = 'refs'

/** A script that teaches a shell this command line, made from the commands themselves; or the references that the script asks for. */
export function completion(shell: string, word: string | undefined, program: Command): Action {
  if (shell === REFERENCES) return listReferences(word ?? '')
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
  const options = command.options.map(({ long, description, required }) => ({ name: long ?? '', description, takesValue: required }))
  const refAt = command.registeredArguments.findIndex(argument => argument.name() === 'REF')
  yield {
    path,
    commands: command.commands.map(child => ({ name: child.name(), description: child.description() })),
    options: [...options, { name: '--help', description: 'print this help', takesValue: false }],
    refAt: refAt < 0 ? undefined : refAt,
    arguments: command.registeredArguments.length,
  }
  for (const child of command.commands) yield * nodesOf(child, `${path} ${child.name()}`.trim())
}

function bash(nodes: readonly Node[]): string {
  return `# bash completion of narvik
${lookOf(nodes)}
_narvik() {
  local -a items=()
  local cur=\${COMP_WORDS[COMP_CWORD]}
  _narvik_look "$cur" "\${COMP_WORDS[@]:0:COMP_CWORD}"
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "\${items[*]%%:*}" -- "$cur"))
}
complete -o default -F _narvik narvik
`
}

function zsh(nodes: readonly Node[]): string {
  return `#compdef narvik
${lookOf(nodes)}
_narvik() {
  local -a items=()
  _narvik_look "$PREFIX" "\${(@)words[1,CURRENT-1]}"
  _describe 'narvik' items || _files
}
if [ "$funcstack[1]" = _narvik ]; then _narvik "$@"; else compdef _narvik narvik; fi
`
}

/**
 * What both shells share: puts what may stand in place of the word, with a colon and its description, into \`items\`. The daemon is asked
 * only where a REF is due; it answers soon, or says nothing.
 */
function lookOf(nodes: readonly Node[]): string {
  const steps = nodes.filter(({ path }) => path !== '').map(({ path }) => `      ${quoted(stepOf(path))}) at=${quoted(path)} args=0 ;;`)
  const values = nodes.flatMap(({ path, options }) => options.filter(({ takesValue }) => takesValue).map(({ name }) => `      ${quoted(`${path}|${name}`)}) option=$word ;;`))
  const words = nodes.map(({ path, commands, options }) => `    ${quoted(path)}) items=(${[...commands, ...options].map(word => quoted(described(word))).join(' ')}) ;;`)
  const refs = nodes.filter(({ refAt }) => refAt !== undefined).map(({ path, refAt }) => quoted(`${path}|${refAt ?? 0}`))
  return `_narvik_look() {
  local cur=$1 program=$2 at= option= word= ref= about=
  local -a socket=()
  local args=0
  shift 2
  for word in "$@"; do
    if [ -n "$option" ]; then
      if [ "$option" = --socket ]; then socket=(--socket "$word"); fi
      option=
      continue
    fi
    case "$at|$word" in
${[...steps, ...values].join('\n')}
      *'|-'*) ;;
      *) args=$((args + 1)) ;;
    esac
  done
  if [ -n "$option" ]; then return; fi
  case "$at" in
${words.join('\n')}
  esac
  case "$cur" in -*) return ;; esac
  case "$at|$args" in
    ${refs.join('|')})
      items=()
      while IFS=$'\\t' read -r ref about; do items+=("$ref:$about"); done < <("\${program/#\\~/$HOME}" completion refs "\${socket[@]}" -- "$cur" 2>/dev/null) ;;
  esac
}`
}

function fish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap(({ path, commands, options, refAt, arguments: count }) => {
    const names = path.split(' ').filter(name => name !== '')
    const inside = names.map(name => `__fish_seen_subcommand_from ${name}`)
    const outside = commands.length === 0 ? [] : [`not __fish_seen_subcommand_from ${commands.map(({ name }) => name).join(' ')}`]
    const condition = fishQuoted([...inside, ...outside].join('; and '))
    return [
      ...commands.map(({ name, description }) => `complete -c narvik -n ${condition} -f -a ${name} -d ${fishQuoted(description)}`),
      ...options.map(({ name, description, takesValue }) => `complete -c narvik -n ${condition} -l ${name.slice(2)}${takesValue ? ' -r' : ''} -d ${fishQuoted(description)}`),
      // Where a file may follow, files are offered too.
      ...(refAt === undefined ? [] : [`complete -c narvik -n ${condition}${count === 1 ? ' -f' : ''} -a '(narvik completion refs -- (commandline -ct) 2>/dev/null)'`]),
    ]
  })
  return `# fish completion of narvik\n${lines.join('\n')}\n`
}

/** The command before, and the word that leads from it. */
function stepOf(path: string): string {
  const words = path.split(' ')
  return `${words.slice(0, -1).join(' ')}|${words.at(-1) ?? ''}`
}

function described({ name, description }: Word): string {
  return `${name}:${description.replaceAll(':', '\\:')}`
}

function quoted(text: string): string {
  return `'${text.replaceAll('\'', '\'\\\'\'')}'`
}

function fishQuoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll('\'', '\\\'')}'`
}
