import { isDeepStrictEqual } from 'node:util'
import Type, { type Static } from 'typebox'
import { AppError } from '../errors.ts'
import { Key } from '../http/schemas.ts'
import type { Model } from '../model.ts'
import { CreateProxyConfigBody, rulesOf } from '../permit/proxies-schemas.ts'
import type { Caller } from '../principal.ts'
import type { ProxyConfigFields } from '../proxies/repository.ts'
import { LIMITS } from '../resources/limits.ts'
import type { Placed, Standing } from './facts.ts'
import { fieldOf, fitting, Label, type LeaveOut } from './shapes.ts'

export const PROXY = 'proxy configuration'

const ProxyShape = Type.Object({
  key: Key,
  name: Type.Optional(Type.Unknown()),
  mapping_rules: CreateProxyConfigBody.properties.mapping_rules,
  secret: Type.Optional(Type.Unknown()),
  auth_mechanism: Type.Optional(Type.Unknown()),
})

/**
 * How the proxy configurations of the source stand here: all of them, or none. Their rules are asked together, the
 * highest priority first, so that in the place of one that is missing a wider one would answer, and allow more.
 */
export async function placedProxies(
  values: readonly unknown[],
  { model, leaveOut }: { model: Pick<Model, 'proxies'>; leaveOut: LeaveOut },
): Promise<Placed<ProxyConfigFields>[]> {
  const items = values.map((value) => fitting(PROXY, ProxyShape, value, leaveOut))
  const whole = items.filter((item) => item !== undefined)
  if (whole.length < items.length) {
    for (const { key } of whole)
      leaveOut({ kind: PROXY, name: key, reason: 'goes with one that is left out' })
    return []
  }
  const { items: here } = await model.proxies.listProxyConfigs({
    limit: LIMITS.proxyConfigs.most,
    skip: 0,
    sort: 'created_at',
  })
  const byKey = new Map(whole.map((item) => [item.key, readProxy(item, leaveOut)]))
  return [...byKey.values()].map((item) => {
    const found = here.find(({ key }) => key === item.key)
    return { item, standing: found ? standingOf(item, found) : 'new' }
  })
}

/** The proxy configurations as they are kept: no proxy is here that would show the secret to a service. */
function readProxy(
  { key, name, mapping_rules: rules, secret, auth_mechanism: mechanism }: Static<typeof ProxyShape>,
  leaveOut: LeaveOut,
): ProxyConfigFields {
  if ((secret ?? '') !== '' || (mechanism ?? 'Bearer') !== 'Bearer')
    leaveOut({
      kind: PROXY,
      name: key,
      reason: 'its secret was left away: no proxy is here that would show it',
    })
  return {
    key,
    name: fieldOf({ kind: PROXY, name: key }, 'name', Label, name, leaveOut) ?? key,
    mappingRules: rulesOf(rules ?? []),
  }
}

const standingOf = ({ name, mappingRules }: ProxyConfigFields, found: ProxyConfigFields): Standing =>
  name === found.name && isDeepStrictEqual(mappingRules, found.mappingRules) ? 'unchanged' : 'changed'

/** Writes all of them, or none. @returns those that were left out */
export async function writeProxies(
  caller: Caller,
  placed: readonly Placed<ProxyConfigFields>[],
  { model, leaveOut }: { model: Pick<Model, 'proxies'>; leaveOut: LeaveOut },
): Promise<Placed<ProxyConfigFields>[]> {
  if (placed.length === 0) return []
  try {
    await model.proxies.putProxyConfigs(
      caller,
      placed.map(({ item }) => item),
    )
    return []
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    const [fault] = error.errors ?? []
    const reason = fault ? `${fault.pointer.slice('/body/'.length)} ${fault.detail}` : error.message
    for (const { item } of placed)
      leaveOut({ kind: PROXY, name: item.key, reason: `is left out with all: ${reason}` })
    return [...placed]
  }
}
