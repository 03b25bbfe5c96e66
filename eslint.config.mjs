import js from '@eslint/js'
import { defineConfig } from 'eslint/config'
import ts from 'typescript-eslint'

export default defineConfig(
  { ignores: ['node_modules/', '**/*.mjs'] },
  js.configs.recommended,
  ts.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'max-lines': ['error', { max: 400 }],
      'max-lines-per-function': ['error', { max: 60 }],
      'no-console': 'error',
      'no-restricted-syntax': ['error', { selector: 'ExportDefaultDeclaration', message: 'Export by name.' }],
      // Numbers and booleans read well in messages, and have one text form.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // What is disposed of at the end of its block may have nothing else to do.
      '@typescript-eslint/no-unused-vars': ['error', { ignoreUsingDeclarations: true }],
      // `while (true)` with an exit inside is the plainest form of many stream loops.
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: 'only-allowed-literals' }],
    },
  },
  // What the browser runs as it is; the types are in comments, and tsc knows what a browser has.
  { files: ['src/page/browser/**'], rules: { 'no-undef': 'off' } },
  // A test file is one `describe` after another; its callbacks are not functions to be kept short.
  { files: ['test/**'], rules: { 'max-lines-per-function': 'off' } },
  // The places that speak to a person.
  { files: ['src/cli.ts', 'scripts/**', 'bench/**', 'test/helpers/reporter.ts'], rules: { 'no-console': 'off' } },
  // Tools that read a default export of their configuration.
  { files: ['*.config.ts', 'test/helpers/reporter.ts'], rules: { 'no-restricted-syntax': 'off' } },
)

