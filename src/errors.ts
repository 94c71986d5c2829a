/**
 * Every problem this service answers with: its code (the last part of the problem's `type`), HTTP status,
 * title, and a sentence for `docs/errors.md` that says what the reader can do.
 */
export const PROBLEMS = {
  // 400
  malformed_request: {
    status: 400,
    title: 'The request could not be read',
    help: 'Check that the body is valid JSON and matches its Content-Type and Content-Length.',
  },
  invalid_password: {
    status: 400,
    title: 'The current password is wrong',
    help: 'Send the password that is in force now as `current_password`.',
  },
  invalid_scope: {
    status: 400,
    title: 'None of the requested scopes is held',
    help: 'Leave `scope` out, or ask for scopes that GET /api/v1/users/me/permissions lists.',
  },
  scope_too_large: {
    status: 400,
    title: 'The scopes do not fit into a token',
    help: 'Name the scopes that are needed in `scope` (space-separated); together they may have 4096 bytes.',
  },
  // 401
  authentication_required: {
    status: 401,
    title: 'Authentication is required',
    help: 'Send an access token: `Authorization: Bearer <token>`.',
  },
  invalid_token: {
    status: 401,
    title: 'The access token is not valid',
    help: 'It is malformed, expired or revoked, or its holder was disabled or given other roles. Sign in again.',
  },
  invalid_credentials: {
    status: 401,
    title: 'Email or password is wrong',
    help: 'The same answer is given for an unknown email, a wrong password, a user who is not active and an account one is not a member of.',
  },
  // 403
  insufficient_scope: {
    status: 403,
    title: 'The access token lacks a permission',
    help: '`required` in the problem names the scope. Ask an administrator for a role that holds it.',
  },
  grant_exceeds_own: {
    status: 403,
    title: 'This would exceed your own permissions or reach',
    help: 'Nobody grants, changes or removes a role or a person holding built-in permissions beyond their own.',
  },
  registration_closed: {
    status: 403,
    title: 'Open registration is off',
    help: 'Ask an administrator to create the user, or set USERS_OPEN_REGISTRATION=true.',
  },
  email_change_not_allowed: {
    status: 403,
    title: 'Only administrators change an email',
    help: 'Ask an administrator of your account to change it.',
  },
  password_change_required: {
    status: 403,
    title: 'The password must be changed first',
    help: 'Call POST /api/v1/auth/change-password, then sign in again.',
  },
  // 404
  not_found: { status: 404, title: 'There is nothing here', help: 'Check the path and the method.' },
  user_not_found: { status: 404, title: 'User does not exist', help: 'Check the id.' },
  account_not_found: { status: 404, title: 'Account does not exist', help: 'Check the id.' },
  role_not_found: { status: 404, title: 'Role does not exist', help: 'Check the id.' },
  role_not_assigned: {
    status: 404,
    title: 'There is no role assigned to this user',
    help: 'Assign one with POST /api/v1/user-roles.',
  },
  assignment_not_found: {
    status: 404,
    title: 'Role assignment does not exist',
    help: 'GET /api/v1/users/{user_id}/roles lists the assignments and their ids.',
  },
  member_not_found: {
    status: 404,
    title: 'The user is not a member of this account',
    help: 'Check both ids.',
  },
  // 405, 406, 409
  method_not_allowed: {
    status: 405,
    title: 'This path does not take this method',
    help: 'The Allow header lists the methods it takes.',
  },
  email_taken: {
    status: 409,
    title: 'A user with this email already exists',
    help: 'Emails are compared without regard to case.',
  },
  user_key_taken: {
    status: 409,
    title: 'A user with this key already exists',
    help: 'Choose another key; it may not equal the id of another user either.',
  },
  account_key_taken: {
    status: 409,
    title: 'An account with this name already exists',
    help: 'The key is made from the name; choose another name, or send a `key` of your own.',
  },
  role_key_taken: { status: 409, title: 'A role with this key already exists', help: 'Choose another key.' },
  role_already_assigned: {
    status: 409,
    title: 'This user has already been assigned a role',
    help: 'Change it with PUT /api/v1/user-roles/{user_id}, or add further roles with POST /api/v1/users/{user_id}/roles.',
  },
  role_is_builtin: {
    status: 409,
    title: 'A built-in role cannot be changed',
    help: 'Make a role of your own with POST /api/v1/roles.',
  },
  role_in_use: {
    status: 409,
    title: 'The role is still assigned',
    help: 'Remove it from its holders first: GET /api/v1/users?role_id= lists them.',
  },
  account_has_people: {
    status: 409,
    title: 'The account still has people',
    help: 'Move or delete its users and remove its members first, or deactivate the account.',
  },
  account_is_default: {
    status: 409,
    title: 'The first account cannot be deleted',
    help: 'It is the account that requests without one mean.',
  },
  no_home_account: {
    status: 409,
    title: 'The user has no home account',
    help: 'A role with account reach needs one: POST /api/v1/accounts/{account_id}/users.',
  },
  home_account_membership: {
    status: 409,
    title: 'A user cannot leave the home account',
    help: 'Move the user to another account first: POST /api/v1/accounts/{account_id}/users.',
  },
  last_super_admin: {
    status: 409,
    title: 'This is the last super admin who can sign in',
    help: 'Give SUPER_ADMIN to another active user with a password first.',
  },
  conflict: {
    status: 409,
    title: 'Another change got in between',
    help: 'Read the current state and try again.',
  },
  // 412, 413, 414, 415, 422, 428, 429, 431
  precondition_failed: {
    status: 412,
    title: 'The record has changed since it was read',
    help: 'GET it again, apply the change to what it says now, and send the new ETag in If-Match.',
  },
  payload_too_large: {
    status: 413,
    title: 'The request body is too large',
    help: 'The limit is BODY_LIMIT_BYTES.',
  },
  unsupported_media_type: {
    status: 415,
    title: 'The Content-Type is not supported',
    help: 'Send application/json (the OAuth endpoints: application/x-www-form-urlencoded).',
  },
  validation_failed: {
    status: 422,
    title: 'The request is not valid',
    help: '`errors` lists each fault with a JSON pointer into the request.',
  },
  too_many_requests: {
    status: 429,
    title: 'Too many attempts',
    help: 'Wait as long as the Retry-After header says. Known and unknown emails are treated alike.',
  },
  request_header_too_large: {
    status: 431,
    title: 'The request headers are too large',
    help: 'Headers may have 16 KiB in all.',
  },
  // 5xx
  internal_error: {
    status: 500,
    title: 'Something went wrong here',
    help: 'Find the log line whose reqId is the `instance` of the problem.',
  },
  database_unavailable: {
    status: 503,
    title: 'The database does not answer',
    help: 'Nothing was changed. Try again; Retry-After says when.',
  },
  sign_in_busy: {
    status: 503,
    title: 'Too many sign-ins at once',
    help: 'Password hashing is at its limit (HASH_CONCURRENCY, HASH_QUEUE). Try again; Retry-After says when.',
  },
} as const satisfies Record<string, { status: number; title: string; help: string }>

/** A code of the table above. */
export type ProblemCode = keyof typeof PROBLEMS

/** One fault of a request: an RFC 6901 JSON pointer into it, prefixed by the part (`/body/email`), and a sentence. */
export type FieldError = { pointer: string; detail: string }

export type AppErrorOptions = {
  /** A sentence for the caller; never holds what only an operator may see. */
  detail?: string
  errors?: readonly FieldError[]
  /** Seconds, for the Retry-After header. */
  retryAfterSeconds?: number
  /** The scope that was missing (RFC 6750 §3). */
  requiredScope?: string
  /** True when an account boundary was tried: answered as unknown, but recorded in the audit trail. */
  boundary?: boolean
  cause?: unknown
}

/** A refusal with a stable code. Guards, services and repositories throw it; `http/problem.ts` answers it. */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ProblemCode
  readonly detail: string | undefined
  readonly errors: readonly FieldError[] | undefined
  readonly retryAfterSeconds: number | undefined
  readonly requiredScope: string | undefined
  readonly boundary: boolean

  constructor(code: ProblemCode, options: AppErrorOptions = {}) {
    super(options.detail ?? PROBLEMS[code].title, { cause: options.cause })
    this.code = code
    this.detail = options.detail
    this.errors = options.errors
    this.retryAfterSeconds = options.retryAfterSeconds
    this.requiredScope = options.requiredScope
    this.boundary = options.boundary ?? false
  }

  get status(): number {
    return PROBLEMS[this.code].status
  }
}

/** Throws; an expression, so that `find() ?? fail('user_not_found')` reads as one sentence. */
export function fail(code: ProblemCode, options?: AppErrorOptions): never {
  throw new AppError(code, options)
}

/** A sentence for the operator that ends the process with exit code 1. Never sent to a client. */
export class StartupError extends Error {
  override readonly name = 'StartupError'
}
