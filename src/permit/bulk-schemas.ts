import Type from 'typebox'
import { CreateTenantBody, CreateUserBody, Name } from './schemas.ts'

/** The most of one bulk request. */
const MOST_USERS = 3000
const MOST_TENANTS = 2000

export const WriteUsersBody = Type.Object({
  operations: Type.Array(CreateUserBody, { maxItems: MOST_USERS }),
})
export const DeleteUsersBody = Type.Object({ idents: Type.Array(Name, { maxItems: MOST_USERS }) })
export const CreateTenantsBody = Type.Object({
  operations: Type.Array(CreateTenantBody, { maxItems: MOST_TENANTS }),
})
export const DeleteTenantsBody = Type.Object({ idents: Type.Array(Name, { maxItems: MOST_TENANTS }) })
