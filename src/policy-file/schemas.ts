import Type from 'typebox'
import { RECORD_KINDS } from './records.ts'

const Definition = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  description: 'The definition, with every default written out',
})

export const PolicyChangeSchema = Type.Object(
  {
    change: Type.String({ enum: ['add', 'update', 'delete'], examples: ['add'] }),
    kind: Type.String({ enum: [...RECORD_KINDS], examples: ['role'] }),
    name: Type.String({ examples: ['Editor'] }),
    before: Type.Optional(Definition),
    after: Type.Optional(Definition),
  },
  { $id: 'PolicyChange', title: 'A change of the policy' },
)

export const PolicyDocumentSchema = Type.Unsafe<Record<string, unknown>>({
  $id: 'PolicyDocument',
  title: 'A policy file',
  type: 'object',
  additionalProperties: true,
  description: 'Every definition of the environment, in the format of policy files',
  examples: [
    {
      version: 1,
      resources: { Post: { actions: ['create', 'read'] } },
      roles: { Viewer: { permissions: ['Post:read'] } },
    },
  ],
})

export const TemplateSchema = Type.Object(
  { name: Type.String({ examples: ['blog-rbac'] }), description: Type.String() },
  { $id: 'PolicyTemplate', title: 'A policy that comes with the service' },
)

export const TemplateParams = Type.Object({
  name: Type.String({ pattern: '^[a-z0-9-]+$', maxLength: 64, examples: ['blog-rbac'] }),
})

export const ApplyQuery = Type.Object(
  {
    dry_run: Type.Boolean({ default: false, description: 'Only say what would change' }),
  },
  { additionalProperties: false },
)
