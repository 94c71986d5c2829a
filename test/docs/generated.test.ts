import { readFile } from 'node:fs/promises'
import t from 'tap'
import { generatedFiles } from '../../docs/generate.ts'

t.test('the generated files say what the code says; otherwise "npm run docs" and commit', async (t) => {
  for (const [path, text] of await generatedFiles()) {
    t.equal(await readFile(new URL(`../../${path}`, import.meta.url), 'utf8'), text, path)
  }
})
