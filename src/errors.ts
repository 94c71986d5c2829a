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
  invalid_code: {
    status: 400,
    title: 'The code is not valid',
    help: 'Send the code that the authenticator app shows now, or a recovery code that was not used yet. Each works once; wait for the next one. Check the clock of the device.',
  },
  passkey_not_registered: {
    status: 400,
    title: 'The passkey could not be registered',
    help: 'Ask for new options, and answer them in the same session within five minutes, once, on a page of WEBAUTHN_ORIGINS.',
  },
  invalid_link: {
    status: 400,
    title: 'The link is not valid',
    help: 'It is unknown, too old or was used before, a newer one was sent, or what it was for has changed since. Ask for another one.',
  },
  invalid_scope: {
    status: 400,
    title: 'None of the requested scopes is held',
    help: 'Leave `scope` out, or ask for scopes that GET /api/v1/users/me/permissions lists.',
  },
  scope_too_large: {
    status: 400,
    title: 'The scopes do not fit into a token',
    help: 'Name the scopes that are needed in `scope` (space-separated); they may have 4096 bytes. Without `scope` that is for scopes and roles together; with it, `roles` is empty in the token when they do not fit beside the scopes.',
  },
  invalid_grant: {
    status: 400,
    title: 'What was presented gives no token',
    help: 'The refresh or subject token is not valid, or belongs to another client.',
  },
  invalid_target: {
    status: 400,
    title: 'Tokens for this resource are not to be had',
    help: 'A `resource` or `audience` must be one of the client’s audiences (RFC 8707); of people, PUBLIC_URL (or TOKEN_AUDIENCE) or one of SERVICE_AUDIENCES, and on a refresh one of those that the session was begun with, if it was.',
  },
  unauthorized_client: {
    status: 400,
    title: 'The client may not use this grant type',
    help: 'Add it to `grant_types` of the client: PATCH /api/v1/clients/{client_id}. Public clients may only refresh.',
  },
  unsupported_grant_type: {
    status: 400,
    title: 'There is no such grant type here',
    help: 'GET /.well-known/oauth-authorization-server lists them. People sign in at POST /api/v1/auth/login.',
  },
  invalid_request: {
    status: 400,
    title: 'The request is not valid',
    help: 'AuthZEN endpoints answer 400 where others answer 415 and 422. `errors` lists each fault with a JSON pointer into the request.',
  },
  unknown_consistency: {
    status: 400,
    title: 'The consistency token is not one of this environment',
    help: 'Send what an answer to a write has in X-Postern-Consistency, as it is, for the same environment.',
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
  invalid_client: {
    status: 401,
    title: 'The client could not be authenticated',
    help: 'The client is unknown or not active, its secret or assertion is wrong, or it authenticates in another way than `token_endpoint_auth_method` says.',
  },
  invalid_dpop_proof: {
    status: 401,
    title: 'The DPoP proof is not valid',
    help: 'Send a new proof with each request (RFC 9449 §4): right `htm`, `htu` under PUBLIC_URL, `iat` of this minute, a fresh `jti`, and `ath` with an access token. The token endpoint answers 400.',
  },
  invalid_credentials: {
    status: 401,
    title: 'Email or password is wrong',
    help: 'The same answer is given for an unknown email, a wrong password, a user who is not active and an account one is not a member of.',
  },
  invalid_mfa_token: {
    status: 401,
    title: 'The sign-in cannot be completed any more',
    help: 'The `mfa_token` is unknown, older than five minutes, was used already or had five wrong codes, or the password or a factor has changed since. Sign in again.',
  },
  reauthentication_required: {
    status: 401,
    title: 'You must authenticate again for this',
    help: 'The last time is longer ago than `max_age` in the WWW-Authenticate header says (STEP_UP_MAX_AGE_SECONDS), or was without the second factor that you have. Call POST /api/v1/auth/step-up and use the token that it answers (RFC 9470).',
  },
  invalid_passkey: {
    status: 401,
    title: 'The passkey was not accepted',
    help: 'The same answer is given for an unknown passkey, a wrong signature, options that are older than five minutes or were answered before, a page that is not in WEBAUTHN_ORIGINS, a user who is not active and an account one is not a member of. Ask for new options.',
  },
  invalid_refresh_token: {
    status: 401,
    title: 'The refresh token is not valid',
    help: 'It is unknown, expired or was used before, or its session ended. Sign in again. Use each refresh token once, and keep the one that comes back.',
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
  self_deletion_disabled: {
    status: 403,
    title: 'People may not delete themselves here',
    help: 'Ask an administrator. USERS_SELF_DELETION allows it.',
  },
  cross_site_request: {
    status: 403,
    title: 'The refresh cookie is not taken from this request',
    help: 'Send it by `fetch` with `Content-Type: application/json`, from a page of PUBLIC_URL or of an origin in CORS_ORIGINS.',
  },
  registration_closed: {
    status: 403,
    title: 'Open registration is off',
    help: 'Ask an administrator to create the user, or set USERS_OPEN_REGISTRATION=true.',
  },
  invitation_is_for_another: {
    status: 403,
    title: 'The invitation is for another email',
    help: 'Sign in as the person with the email that was invited.',
  },
  magic_links_off: {
    status: 403,
    title: 'Nobody signs in by mail here',
    help: 'Sign in in another way, or set MAGIC_LINK_SIGN_IN=true.',
  },
  email_change_not_allowed: {
    status: 403,
    title: 'Your own email is changed by showing that you read it',
    help: 'Call POST /api/v1/auth/email-change, which asks both addresses. Only administrators of every account write their own email here.',
  },
  not_for_oneself: {
    status: 403,
    title: 'This is not for oneself to do',
    help: 'Change your own password with POST /api/v1/auth/change-password, and your factors under /api/v1/auth/mfa. A lock, lost factors, your key and your attributes are for another administrator.',
  },
  mfa_required: {
    status: 403,
    title: 'A second factor is required',
    help: 'Send `mfa_token` with a code to POST /api/v1/auth/mfa/verify within `expires_in` seconds; `methods` says what is enrolled. At POST /api/v1/auth/step-up there is no `mfa_token`: send a `code` there instead of the password.',
  },
  email_not_verified: {
    status: 403,
    title: 'The email must be confirmed first',
    help: 'A second factor is for who has shown that the email is theirs: it outlives a new password. Call POST /api/v1/auth/email-verification and follow the link in the mail.',
  },
  mfa_enrolment_required: {
    status: 403,
    title: 'A second factor must be enrolled first',
    help: 'The account, a role or MFA_REQUIRED_FOR demands one, and the session was begun without. Enrol with POST /api/v1/auth/mfa/totp or a passkey, then refresh the session; whoever has one already calls POST /api/v1/auth/step-up.',
  },
  password_change_required: {
    status: 403,
    title: 'The password must be changed first',
    help: 'Call POST /api/v1/auth/change-password, then sign in again.',
  },
  environment_not_allowed: {
    status: 403,
    title: 'The API key does not open this environment',
    help: 'Leave the Postern-Environment header out, or use a key of that environment.',
  },
  // 404
  not_found: { status: 404, title: 'There is nothing here', help: 'Check the path and the method.' },
  user_not_found: { status: 404, title: 'User does not exist', help: 'Check the id.' },
  account_not_found: { status: 404, title: 'Account does not exist', help: 'Check the id.' },
  role_not_found: { status: 404, title: 'Role does not exist', help: 'Check the id.' },
  template_not_found: {
    status: 404,
    title: 'There is no such template',
    help: 'GET /api/v1/policy/templates lists them.',
  },
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
  environment_not_found: {
    status: 404,
    title: 'Environment does not exist',
    help: 'GET /api/v1/environments lists them; the Postern-Environment header takes `project/key`, a key of project `default`, or an id.',
  },
  project_not_found: {
    status: 404,
    title: 'Project does not exist',
    help: 'Create it first: POST /api/v1/projects.',
  },
  factor_not_found: {
    status: 404,
    title: 'There is no such second factor',
    help: 'GET /api/v1/auth/mfa says what is enrolled. An enrolment that was not confirmed within an hour must be begun anew.',
  },
  passkey_not_found: {
    status: 404,
    title: 'Passkey does not exist',
    help: 'GET /api/v1/auth/passkeys lists your own.',
  },
  session_not_found: {
    status: 404,
    title: 'Session does not exist',
    help: 'It has ended, or never was: the lists show those that live.',
  },
  api_key_not_found: { status: 404, title: 'API key does not exist', help: 'Check the id.' },
  client_not_found: { status: 404, title: 'OAuth client does not exist', help: 'Check the id.' },
  webhook_not_found: { status: 404, title: 'Webhook does not exist', help: 'Check the id.' },
  delivery_not_found: {
    status: 404,
    title: 'The webhook has no such delivery',
    help: 'GET /api/v1/webhooks/{webhook_id}/deliveries lists them; old ones are removed.',
  },
  client_secret_not_found: {
    status: 404,
    title: 'The client has no such secret',
    help: 'GET /api/v1/clients/{client_id} lists its secrets and their ids.',
  },
  member_not_found: {
    status: 404,
    title: 'The user is not a member of this account',
    help: 'Check both ids.',
  },
  resource_not_found: {
    status: 404,
    title: 'Resource does not exist',
    help: 'Check the key or id. Built-in resources are not the application’s.',
  },
  action_not_found: {
    status: 404,
    title: 'Action does not exist',
    help: 'A permission is `resource:action`; both must be defined.',
  },
  instance_not_found: {
    status: 404,
    title: 'Resource instance does not exist',
    help: 'Check the id or `type:key`. A relationship creates missing instances when it names their `account`.',
  },
  action_group_not_found: { status: 404, title: 'Action group does not exist', help: 'Check the key or id.' },
  attribute_not_found: { status: 404, title: 'Attribute does not exist', help: 'Check the key or id.' },
  relation_not_found: { status: 404, title: 'Relation does not exist', help: 'Check the key or id.' },
  derivation_not_found: {
    status: 404,
    title: 'Derivation does not exist',
    help: 'GET /api/v1/resources/{resource_id}/roles/{role_id}/derivations lists them.',
  },
  tuple_not_found: {
    status: 404,
    title: 'Relationship tuple does not exist',
    help: 'GET /api/v1/relationship-tuples lists them.',
  },
  condition_set_not_found: {
    status: 404,
    title: 'Condition set does not exist',
    help: 'Check the key or id.',
  },
  set_rule_not_found: {
    status: 404,
    title: 'Set rule does not exist',
    help: 'GET /api/v1/set-rules lists them.',
  },
  proxy_config_not_found: { status: 404, title: 'Proxy does not exist', help: 'Check the key or id.' },
  invitation_not_found: {
    status: 404,
    title: 'The invitation does not exist, or is not open any more',
    help: 'It was used, revoked or has expired, or its link is not whole. Ask whoever invited for another one.',
  },
  invite_not_found: { status: 404, title: 'Invitation does not exist', help: 'Check the key or id.' },
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
  user_gets_no_mail: {
    status: 409,
    title: 'The user has no email or no credentials',
    help: 'Whoever another system keeps does not sign in here. Give the user an email and a password with PATCH /api/v1/users/{user_id}.',
  },
  user_is_protected: {
    status: 409,
    title: 'The user has a password or a built-in role',
    help: 'API keys and the faces for other systems may change names and attributes of such a user, but not the email, key, activity, existence, password or home account: sign in as an administrator and use /api/v1/users.',
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
  environment_key_taken: {
    status: 409,
    title: 'An environment with this key already exists in the project',
    help: 'Choose another key; it may not equal the id of another environment either.',
  },
  environment_is_default: {
    status: 409,
    title: 'The default environment cannot be deleted',
    help: 'It is the one that people sign in to.',
  },
  definition_exists: {
    status: 409,
    title: 'The environment has this definition already',
    help: 'Copy with `conflict_strategy: overwrite`, or leave it out of `scope`. What a relation connects is never overwritten.',
  },
  project_key_taken: {
    status: 409,
    title: 'A project with this key already exists',
    help: 'Choose another key; it may not equal the id of another project either.',
  },
  project_has_environments: {
    status: 409,
    title: 'The project still has environments',
    help: 'Delete its environments first: GET /api/v1/environments?project= lists them. Project `default` stays.',
  },
  client_has_no_secrets: {
    status: 409,
    title: 'The client authenticates without a secret',
    help: 'Its `token_endpoint_auth_method` is private_key_jwt or none. Change its `jwks`, or make another client.',
  },
  api_key_is_revoked: {
    status: 409,
    title: 'The API key was revoked',
    help: 'Create another one: POST /api/v1/api-keys.',
  },
  no_home_account: {
    status: 409,
    title: 'The user has no home account',
    help: 'A role with account reach needs one: POST /api/v1/accounts/{account_id}/users.',
  },
  home_account_membership: {
    status: 409,
    title: 'A user who belongs to no other account cannot leave the home account',
    help: 'Deactivate the user, or move them to another account: POST /api/v1/accounts/{account_id}/users.',
  },
  user_belongs_to_other_accounts: {
    status: 409,
    title: 'The user belongs to other accounts too',
    help: 'They are a member of another account, or hold a role in every account, so that only administrators of every account change their credentials, key, attributes and activity. POST /api/v1/users/{user_id}/password-reset mails them a link; DELETE /api/v1/accounts/{account_id}/members/{user_id} ends their membership in yours.',
  },
  user_not_deleted: {
    status: 409,
    title: 'The user is not deleted',
    help: 'There is nothing to restore. Whoever is not active comes back with POST /api/v1/users/{user_id}/reactivate.',
  },
  last_super_admin: {
    status: 409,
    title: 'This is the last super admin who can sign in',
    help: 'Give SUPER_ADMIN to another active user with a password first.',
  },
  resource_key_taken: {
    status: 409,
    title: 'A resource with this key already exists',
    help: 'Choose another key; it may not equal the id of another resource either.',
  },
  action_key_taken: {
    status: 409,
    title: 'The resource has an action with this key already',
    help: 'Choose another key; it may not equal the id of another action either.',
  },
  action_group_key_taken: {
    status: 409,
    title: 'The resource has an action group with this key already',
    help: 'Choose another key; it may not equal the id of another group either.',
  },
  attribute_key_taken: {
    status: 409,
    title: 'This attribute is defined already',
    help: 'Choose another key; it may not equal the id of another attribute either.',
  },
  relation_key_taken: {
    status: 409,
    title: 'The resource has a relation with this key already',
    help: 'Choose another key; it may not equal the id of another relation either.',
  },
  resource_in_use: {
    status: 409,
    title: 'Resource sets of other resources descend from sets of this one',
    help: 'Give them another parent first: PATCH /api/v1/condition-sets/{condition_set_id}.',
  },
  derivation_exists: {
    status: 409,
    title: 'The role is derived in this way already',
    help: 'To change its condition, delete the derivation and create it anew.',
  },
  limit_reached: {
    status: 409,
    title: 'There may be no more of these',
    help: 'The detail says how many there may be. Delete what nothing uses.',
  },
  instance_key_taken: {
    status: 409,
    title: 'An instance of this resource with this key already exists',
    help: 'Keys are unique per resource, across accounts; one may not equal the id of another instance either.',
  },
  tuple_exists: {
    status: 409,
    title: 'This relationship exists already',
    help: 'There is nothing to do; POST /api/v1/relationship-tuples/bulk skips what exists.',
  },
  instances_in_different_accounts: {
    status: 409,
    title: 'The instances belong to different accounts',
    help: 'Relationships stay inside one account. An instance does not move; delete it and create it in the other one.',
  },
  condition_set_key_taken: {
    status: 409,
    title: 'A condition set with this key already exists',
    help: 'User sets and resource sets share one name space. Choose another key.',
  },
  condition_set_has_children: {
    status: 409,
    title: 'The condition set is the parent of another one',
    help: 'Give its children another parent first: PATCH /api/v1/condition-sets/{condition_set_id}.',
  },
  condition_set_cycle: {
    status: 409,
    title: 'A condition set cannot be its own ancestor',
    help: 'Choose a parent that does not descend from the set.',
  },
  set_rule_exists: {
    status: 409,
    title: 'This rule exists already',
    help: 'There is nothing to do: GET /api/v1/set-rules lists it.',
  },
  proxy_config_key_taken: {
    status: 409,
    title: 'A proxy with this key already exists',
    help: 'Choose another key; it may not equal the id of another proxy either.',
  },
  invitation_exists: {
    status: 409,
    title: 'This address is invited to the account already',
    help: 'Send it again, or revoke it: GET /api/v1/accounts/{account_id}/invitations lists it.',
  },
  invitation_is_closed: {
    status: 409,
    title: 'The invitation was accepted or revoked',
    help: 'Make another one: POST /api/v1/accounts/{account_id}/invitations.',
  },
  invitation_is_void: {
    status: 409,
    title: 'Whoever invited may not give this role any more',
    help: 'Ask an administrator of the account to send the invitation again.',
  },
  invitation_needs_sign_in: {
    status: 409,
    title: 'The email of the invitation belongs to somebody who must sign in first',
    help: 'Sign in with that email, and send the access token along.',
  },
  account_limit_reached: {
    status: 409,
    title: 'You may open no more accounts',
    help: 'ACCOUNTS_PER_PERSON says how many there may be. Delete one that nothing uses, or ask an administrator.',
  },
  invite_key_taken: {
    status: 409,
    title: 'An invitation with this key already exists',
    help: 'Choose another key, or delete the other invitation; it may not equal the id of another one either.',
  },
  invite_is_approved: {
    status: 409,
    title: 'The invitation was approved already',
    help: 'The user is there. Give further roles as to any other.',
  },
  last_factor: {
    status: 409,
    title: 'This is the last second factor, and one is required',
    help: 'Enrol another one first, a passkey or an authenticator app.',
  },
  last_credential: {
    status: 409,
    title: 'Without it you could not sign in any more',
    help: 'It is the only passkey that verifies its user, and you have no password. Register another passkey first, and use it once.',
  },
  no_passkey: {
    status: 409,
    title: 'There is no passkey that could replace the password',
    help: 'Register a passkey that asks for a PIN or biometrics, or sign in with one that does: `is_user_verifying` in GET /api/v1/auth/passkeys.',
  },
  no_password: { status: 409, title: 'There is no password', help: 'There is nothing to do.' },
  passkey_exists: {
    status: 409,
    title: 'This passkey is registered already',
    help: 'Use it to sign in, or register another authenticator.',
  },
  no_second_factor: {
    status: 409,
    title: 'There is no second factor that recovery codes could stand in for',
    help: 'Enrol one first: POST /api/v1/auth/mfa/totp, or a passkey. Recovery codes come with it.',
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
  password_blocklisted: {
    status: 422,
    title: 'The password is too easy to guess',
    help: 'It is a common or breached password, a repetition, a sequence, or little more than a name or the email; `detail` says which. Choose another one: a few unrelated words are good.',
  },
  role_cycle: {
    status: 422,
    title: 'A role cannot extend itself, directly or through others',
    help: 'Leave the roles out of `extends` that extend this one.',
  },
  relation_mismatch: {
    status: 422,
    title: 'The relation does not connect these resources',
    help: 'It must be defined on the object’s resource, with the subject’s resource as its subject.',
  },
  answer_too_large: {
    status: 422,
    title: 'The answer would be too large',
    help: 'More than 100,000 instances are involved, or 500,000 rules would have to be asked. Ask about fewer accounts, resources or instances.',
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
  not_offered: {
    status: 501,
    title: 'This part of the protocol is not offered here',
    help: 'Postern has no console to embed: elements of Permit cannot be signed in to.',
  },
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
  stream_limit_reached: {
    status: 503,
    title: 'There are as many open streams as there may be',
    help: 'A process serves 2,000, and 200 of one caller. Try again; Retry-After says when. Close streams that you do not read.',
  },
  policy_unavailable: {
    status: 503,
    title: 'The policy cannot be read',
    help: 'The database does not answer, and what is cached is older than POLICY_MAX_STALENESS. Try again; Retry-After says when.',
  },
  policy_engine_unavailable: {
    status: 503,
    title: 'Permit does not answer',
    help: 'It decides here (POLICY_ENGINE, POLICY_GUARD), and is away, too slow or refuses the key. Try again; Retry-After says when.',
  },
  mail_not_configured: {
    status: 503,
    title: 'This service sends no mails',
    help: 'Set SMTP_URL and MAIL_FROM. With ENVIRONMENT=dev links are printed to the log instead.',
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
  /** The age of an authentication above which this is refused, in seconds (RFC 9470 §3). */
  maxAgeSeconds?: number
  /** Further members of the problem document (RFC 9457 §3.2). */
  extensions?: Readonly<Record<string, unknown>>
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
  readonly maxAgeSeconds: number | undefined
  readonly extensions: Readonly<Record<string, unknown>> | undefined
  readonly boundary: boolean

  constructor(code: ProblemCode, options: AppErrorOptions = {}) {
    super(options.detail ?? PROBLEMS[code].title, { cause: options.cause })
    this.code = code
    this.detail = options.detail
    this.errors = options.errors
    this.retryAfterSeconds = options.retryAfterSeconds
    this.requiredScope = options.requiredScope
    this.maxAgeSeconds = options.maxAgeSeconds
    this.extensions = options.extensions
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
