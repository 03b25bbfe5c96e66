/**
 * Counts which blocks of the source run, and how often: a hook of Node's module loader puts a counter at the start of every block of every file
 * of `src` that is imported after `instrument()`. What a file has as literals becomes the dictionary.
 */
import { registerHooks } from 'node:module'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const SOURCE = new URL('../../src/', import.meta.url).href
const COUNTERS = '__narvikBlocks'
/** Blocks that can be told apart: many more than the source has. */
const MAX_BLOCKS = 65_536
/** Characters of a literal that is worth trying. */
const LONGEST_WORD = 64

export interface Instrumented {
  /** How often each block has run, up to 255; to be cleared by whoever looks. */
  readonly counters: Uint8Array
  /** Blocks that are counted so far; grows as files are imported. */
  readonly blocks: () => number
  readonly words: ReadonlySet<string>
  readonly numbers: ReadonlySet<number>
}

export function instrument(): Instrumented {
  const counters = new Uint8Array(MAX_BLOCKS)
  Object.assign(globalThis, { [COUNTERS]: counters })
  const words = new Set<string>()
  const numbers = new Set<number>()
  let blocks = 0
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      if (!url.startsWith(SOURCE) || loaded.source == undefined) return loaded
      const text = typeof loaded.source === 'string' ? loaded.source : new TextDecoder().decode(loaded.source)
      const { outputText } = ts.transpileModule(text, {
        fileName: fileURLToPath(url),
        compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true, sourceMap: false },
        transformers: { before: [withCounters(() => Math.min(blocks++, MAX_BLOCKS - 1), { words, numbers })] },
      })
      return { format: 'module', source: outputText, shortCircuit: true }
    },
  })
  return { counters, blocks: () => blocks, words, numbers }
}

function withCounters(nextBlock: () => number, { words, numbers }: { words: Set<string>, numbers: Set<number> }): ts.TransformerFactory<ts.SourceFile> {
  return context => {
    const { factory } = context
    const count = (): ts.Expression => factory.createPostfixIncrement(factory.createElementAccessExpression(factory.createIdentifier(COUNTERS), nextBlock()))
    const counted = (expression: ts.Expression): ts.Expression => factory.createParenthesizedExpression(factory.createComma(count(), expression))
    const statements = (inside: readonly ts.Statement[]): ts.Statement[] => [factory.createExpressionStatement(count()), ...inside]
    const visit = (node: ts.Node): ts.Node => {
      if (ts.isStringLiteralLike(node) && node.text.length > 0 && node.text.length <= LONGEST_WORD) words.add(node.text)
      if (ts.isNumericLiteral(node)) numbers.add(Number(node.text))
      if (ts.isTypeNode(node) || ts.isImportDeclaration(node)) return node
      const inner = ts.visitEachChild(node, visit, context)
      if (ts.isBlock(inner)) return factory.updateBlock(inner, statements(inner.statements))
      if (ts.isCaseClause(inner)) return factory.updateCaseClause(inner, inner.expression, statements(inner.statements))
      if (ts.isDefaultClause(inner)) return factory.updateDefaultClause(inner, statements(inner.statements))
      if (ts.isIfStatement(inner)) return factory.updateIfStatement(inner, inner.expression, inBlock(inner.thenStatement), inner.elseStatement && inBlock(inner.elseStatement))
      if (ts.isArrowFunction(inner) && !ts.isBlock(inner.body)) return factory.updateArrowFunction(inner, inner.modifiers, inner.typeParameters, inner.parameters, inner.type, inner.equalsGreaterThanToken, counted(inner.body))
      if (ts.isConditionalExpression(inner)) return factory.updateConditionalExpression(inner, inner.condition, inner.questionToken, counted(inner.whenTrue), inner.colonToken, counted(inner.whenFalse))
      if (ts.isBinaryExpression(inner) && SHORTCUTS.has(inner.operatorToken.kind)) return factory.updateBinaryExpression(inner, inner.left, inner.operatorToken, counted(inner.right))
      return inner
    }
    const inBlock = (statement: ts.Statement): ts.Statement => ts.isBlock(statement) || ts.isIfStatement(statement) ? statement : factory.createBlock(statements([statement]))
    return file => ts.visitNode(file, visit) as ts.SourceFile
  }
}

/** Operators that may leave out what stands on their right. */
const SHORTCUTS: ReadonlySet<ts.SyntaxKind> = new Set([ts.SyntaxKind.AmpersandAmpersandToken, ts.SyntaxKind.BarBarToken, ts.SyntaxKind.QuestionQuestionToken])
