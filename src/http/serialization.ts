import SerializerSelector from '@fastify/fast-json-stringify-compiler'

const compilersOf = SerializerSelector()
type Compile = ReturnType<typeof compilersOf>
type Serialize = ReturnType<Compile>

/**
 * Fastify's own serializers, each made once: of the hundreds of answers that the routes declare most are the same
 * few problems and objects, and making a serializer costs start-up time and memory.
 */
export function buildSerializer(...shared: Parameters<typeof compilersOf>): Compile {
  const compile = compilersOf(...shared)
  const made = new Map<string, Serialize>()
  return (route) => {
    const schema = JSON.stringify(route.schema)
    const serialize = made.get(schema) ?? compile(route)
    made.set(schema, serialize)
    return serialize
  }
}
