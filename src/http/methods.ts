import type { FastifyInstance, HTTPMethods } from 'fastify'
import { AppError } from '../errors.ts'

const METHODS: HTTPMethods[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Remembers which methods each path takes; `refuseOthers` then answers the others with 405 and Allow (RFC 9110 §15.5.6). */
export function watchMethods(app: FastifyInstance): { refuseOthers(): void } {
  const taken = new Map<string, Set<string>>()
  app.addHook('onRoute', (route) => {
    const methods = taken.get(route.url) ?? new Set()
    for (const method of [route.method].flat()) methods.add(method)
    taken.set(route.url, methods)
  })
  return {
    refuseOthers() {
      for (const [url, methods] of [...taken]) {
        const others = METHODS.filter((method) => !methods.has(method))
        if (others.length === 0 || url.includes('*')) continue
        const allow = [...methods].join(', ')
        app.route({
          method: others,
          url,
          schema: { hide: true },
          config: { access: 'public' },
          handler: async (_request, reply) => {
            reply.header('allow', allow)
            throw new AppError('method_not_allowed')
          },
        })
      }
    },
  }
}
