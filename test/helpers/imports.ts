import ts from 'typescript'

/** One file's use of another file or of a package. */
export interface Import {
  /** As written; `null` where it is computed when the program runs. */
  readonly specifier: string | null
  /** Whether the module is loaded only when that line runs. */
  readonly lazy: boolean
  /** Counted from 1. */
  readonly line: number
}

/**
 * Everything that a TypeScript file takes from elsewhere: imports and re-exports, `import type` and `import('…').Type`
 * too, dynamic imports, `require`, and files named by `new URL('./…', import.meta.url)`, which is how workers start.
 */
export function importsOf(fileName: string, text: string): Import[] {
  const source = ts.createSourceFile(fileName, text, ts.ScriptTarget.Latest, true)
  const found: Import[] = []
  const add = (node: ts.Node, specifier: ts.Node | undefined, lazy = false): void => {
    const literal = specifier !== undefined && ts.isStringLiteralLike(specifier)
    found.push({ specifier: literal ? specifier.text : null, lazy, line: source.getLineAndCharacterOfPosition(node.getStart()).line + 1 })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node, node.moduleSpecifier)
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) add(node, node.moduleSpecifier)
    else if (ts.isExternalModuleReference(node)) add(node, node.expression)
    else if (ts.isImportTypeNode(node)) add(node, ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined)
    else if (ts.isCallExpression(node) && isLoader(node.expression)) add(node, node.arguments[0], true)
    else if (ts.isNewExpression(node) && isModuleUrl(node)) add(node, node.arguments?.[0], true)
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

function isLoader(callee: ts.Expression): boolean {
  return callee.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(callee) && callee.text === 'require')
}

/** A URL beside this file that ends in `.ts`; data files and directories are no imports. */
function isModuleUrl({ expression, arguments: [path] = [] as unknown as ts.NodeArray<ts.Expression> }: ts.NewExpression): boolean {
  return ts.isIdentifier(expression) && expression.text === 'URL' && path !== undefined && ts.isStringLiteralLike(path) && /^\.{1,2}\/.*\.[cm]?[jt]s$/.test(path.text)
}
