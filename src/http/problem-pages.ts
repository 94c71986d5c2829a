import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { fail, PROBLEMS, type ProblemCode } from '../errors.ts'
import { problem } from './schemas.ts'

const isProblemCode = (code: string): code is ProblemCode => Object.hasOwn(PROBLEMS, code)

/** What the `type` of a problem document leads to: its meaning, and what to do. */
export const problemPages: FastifyPluginAsyncTypebox = async (app) => {
  app.get(
    '/problems/:code',
    {
      config: { access: 'public' },
      schema: {
        operationId: 'getProblem',
        tags: ['Operation'],
        summary: 'What a problem means and what to do about it',
        params: Type.Object({ code: Type.String({ maxLength: 128, examples: ['user_not_found'] }) }),
        response: {
          200: Type.Object({
            type: Type.String(),
            title: Type.String(),
            status: Type.Integer(),
            help: Type.String(),
          }),
          404: problem('No such problem'),
        },
      },
    },
    async ({ params: { code } }) => ({
      type: `/problems/${code}`,
      ...PROBLEMS[isProblemCode(code) ? code : fail('not_found')],
    }),
  )
}
