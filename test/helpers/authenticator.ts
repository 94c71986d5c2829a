import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto'

type Descriptor = { id: string }
type CreationOptions = {
  rp: { id: string }
  user: { id: string }
  challenge: string
  excludeCredentials?: Descriptor[]
}
type RequestOptions = { rpId: string; challenge: string; allowCredentials?: Descriptor[] }

/** What a page and an authenticator say beside what they are asked, each thing to be told wrong by a test. */
export type Ceremony = {
  origin?: string
  rpId?: string
  challenge?: string
  type?: string
  isUserVerified?: boolean
  isUserPresent?: boolean
  counter?: number
  userHandle?: string | null
  crossOrigin?: boolean
  /** With an attestation that nobody asked for. */
  isCertified?: boolean
  /** Of a new credential. */
  credentialId?: Buffer
}

type Traits = {
  /** The origin of the page. */
  origin: string
  /** Kept on more than one device. */
  isSynced?: boolean
  /** Asks for a PIN or a finger. */
  isUserVerified?: boolean
  /** Whether it counts signatures. */
  counts?: boolean
}

type Credential = { id: Buffer; rpId: string; userHandle: string; privateKey: KeyObject; counter: number }

export type Authenticator = ReturnType<typeof createAuthenticator>

/**
 * An authenticator and the browser before it, in software: ES256, without attestation (WebAuthn Level 3 §6). It answers
 * with the JSON that `PublicKeyCredential.toJSON()` makes.
 */
export function createAuthenticator({
  origin,
  isSynced = false,
  isUserVerified = true,
  counts = true,
}: Traits) {
  const credentials: Credential[] = []

  function flagsOf(ceremony: Ceremony, extra = 0): number {
    return (
      (ceremony.isUserPresent === false ? 0 : 0x01) |
      ((ceremony.isUserVerified ?? isUserVerified) ? 0x04 : 0) |
      (isSynced ? 0x18 : 0) |
      extra
    )
  }

  const clientData = (type: string, challenge: string, ceremony: Ceremony): Buffer =>
    Buffer.from(
      JSON.stringify({
        type: ceremony.type ?? type,
        challenge: ceremony.challenge ?? challenge,
        origin: ceremony.origin ?? origin,
        crossOrigin: ceremony.crossOrigin ?? false,
      }),
    )

  function countOf(credential: Credential, ceremony: Ceremony): number {
    if (counts) credential.counter++
    return ceremony.counter ?? credential.counter
  }

  return {
    credentials,

    /** `navigator.credentials.create`. */
    create(options: CreationOptions, ceremony: Ceremony = {}) {
      if (options.excludeCredentials?.some(({ id }) => find(id))) throw new Error('InvalidStateError')
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const rpId = ceremony.rpId ?? options.rp.id
      const id = ceremony.credentialId ?? randomBytes(16)
      const credential = { id, rpId, userHandle: options.user.id, privateKey, counter: 0 }
      credentials.push(credential)
      const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
      const attested = Buffer.concat([
        Buffer.alloc(16),
        uint16(credential.id.length),
        credential.id,
        coseKey(Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')),
      ])
      const authData = authenticatorData(
        rpId,
        flagsOf(ceremony, 0x40),
        countOf(credential, ceremony),
        attested,
      )
      return {
        ...named(credential),
        response: {
          clientDataJSON: clientData('webauthn.create', options.challenge, ceremony).toString('base64url'),
          attestationObject: attestationObject(authData, ceremony.isCertified ?? false).toString('base64url'),
          transports: isSynced ? ['internal', 'hybrid'] : ['usb'],
        },
        clientExtensionResults: {},
      }
    },

    /** `navigator.credentials.get`: with a credential that was asked for, else with the last one of the domain. */
    get(options: RequestOptions, ceremony: Ceremony = {}) {
      const asked = options.allowCredentials?.map(({ id }) => find(id)).find((one) => one !== undefined)
      const credential = asked ?? credentials.findLast(({ rpId }) => rpId === options.rpId)
      if (!credential) throw new Error('NotAllowedError')
      const data = clientData('webauthn.get', options.challenge, ceremony)
      const authData = authenticatorData(
        ceremony.rpId ?? options.rpId,
        flagsOf(ceremony),
        countOf(credential, ceremony),
      )
      const handle = ceremony.userHandle === undefined ? credential.userHandle : ceremony.userHandle
      return {
        ...named(credential),
        response: {
          clientDataJSON: data.toString('base64url'),
          authenticatorData: authData.toString('base64url'),
          signature: sign(
            'sha256',
            Buffer.concat([authData, sha256(data)]),
            createPrivateKey(credential.privateKey.export({ format: 'pem', type: 'pkcs8' })),
          ).toString('base64url'),
          ...(handle !== null && { userHandle: handle }),
        },
        clientExtensionResults: {},
      }
    },
  }

  function find(id: string): Credential | undefined {
    return credentials.find((one) => one.id.toString('base64url') === id)
  }
}

const named = ({ id }: Credential) => ({
  id: id.toString('base64url'),
  rawId: id.toString('base64url'),
  type: 'public-key',
  authenticatorAttachment: 'cross-platform',
})

const sha256 = (data: Buffer | string): Buffer => createHash('sha256').update(data).digest()
const uint16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])

function authenticatorData(rpId: string, flags: number, counter: number, attested = Buffer.alloc(0)): Buffer {
  const count = Buffer.alloc(4)
  count.writeUInt32BE(counter)
  return Buffer.concat([sha256(rpId), Buffer.from([flags]), count, attested])
}

// CBOR (RFC 8949 §3) of the three kinds that are needed here.
const head = (major: number, length: number): Buffer =>
  length < 24
    ? Buffer.from([(major << 5) | length])
    : length < 256
      ? Buffer.from([(major << 5) | 24, length])
      : Buffer.concat([Buffer.from([(major << 5) | 25]), uint16(length)])
const cborText = (text: string): Buffer =>
  Buffer.concat([head(3, Buffer.byteLength(text)), Buffer.from(text)])
const cborBytes = (bytes: Buffer): Buffer => Buffer.concat([head(2, bytes.length), bytes])
const cborMap = (...entries: Buffer[]): Buffer => Buffer.concat([head(5, entries.length / 2), ...entries])

/** RFC 9053 §7.1.1: kty EC2, alg ES256, crv P-256. */
const coseKey = (x: Buffer, y: Buffer): Buffer =>
  Buffer.concat([
    Buffer.from('a5010203262001', 'hex'),
    Buffer.from('21', 'hex'),
    cborBytes(x),
    Buffer.from('22', 'hex'),
    cborBytes(y),
  ])

/** An attestation object of `none`, or of `packed` with a certificate that is none. */
function attestationObject(authData: Buffer, isCertified: boolean): Buffer {
  const statement = isCertified
    ? cborMap(
        cborText('alg'),
        Buffer.from([0x26]),
        cborText('sig'),
        cborBytes(Buffer.alloc(8)),
        cborText('x5c'),
        Buffer.concat([head(4, 1), cborBytes(Buffer.from('30820000', 'hex'))]),
      )
    : cborMap()
  const format = cborText(isCertified ? 'packed' : 'none')
  return cborMap(
    cborText('fmt'),
    format,
    cborText('attStmt'),
    statement,
    cborText('authData'),
    cborBytes(authData),
  )
}
