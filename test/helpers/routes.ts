/** `METHOD /path` of every line of the tree that Fastify prints. */
export function routesOf(tree: string): string[] {
  const parents: string[] = []
  return tree.split('\n').flatMap((line) => {
    const match = /^(?<indent>[│├└─ ]*)(?<path>\S+)(?: \((?<methods>[A-Z, ]+)\))?$/.exec(line)
    if (!match?.groups) return []
    const { indent = '', path = '', methods = '' } = match.groups
    const depth = indent.length / 4
    const url = `${parents[depth - 1] ?? ''}${path}`
    parents[depth] = url
    const known = url === '/docs*' ? '/docs/*' : url
    return methods === '' ? [] : methods.split(', ').map((method) => `${method} ${known}`)
  })
}
