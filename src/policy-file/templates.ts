import { readdirSync, readFileSync } from 'node:fs'
import { AppError } from '../errors.ts'
import { readPolicyFile } from './read.ts'
import type { PolicyFile } from './schema.ts'

const FOLDER = new URL('../../seeds/policies/', import.meta.url)

/** A policy that comes with the service. */
export type Template = { name: string; description: string }

/** The templates by name. */
export function listTemplates(): Template[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.yaml'))
    .sort()
    .map((file) => {
      const name = file.slice(0, -'.yaml'.length)
      return { name, description: readTemplate(name).description ?? '' }
    })
}

/** @throws AppError template_not_found */
export function readTemplate(name: string): PolicyFile {
  const file = readdirSync(FOLDER).find((one) => one === `${name}.yaml`)
  if (file === undefined) throw new AppError('template_not_found')
  return readPolicyFile(readFileSync(new URL(file, FOLDER), 'utf8'))
}
