import { type LookupAddress, lookup } from 'node:dns'
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net'

/** Networks that are not the public internet (RFC 6890 and its registries, RFC 4193, RFC 6052, RFC 3056). */
const CLOSED_NETWORKS = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12'],
  ...['192.0.0.0/24', '192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15'],
  ...['198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4'],
  ...['::/96', '64:ff9b::/96', '64:ff9b:1::/48', '100::/64', '2001::/23', '2001:db8::/32', '2002::/16'],
  ...['fc00::/7', 'fe80::/10', 'fec0::/10', 'ff00::/8'],
]

/** Which addresses deliveries may go to. */
export type Addresses = ReturnType<typeof createAddresses>

/**
 * Keeps deliveries out of the network that this service stands in (OWASP SSRF Prevention Cheat Sheet): addresses that
 * are not public are refused, unless the operator named them.
 * @param allowedNetworks addresses and CIDR ranges
 */
export function createAddresses(allowedNetworks: readonly string[]) {
  const closed = blockListOf(CLOSED_NETWORKS)
  const allowed = blockListOf(allowedNetworks)

  const isNamed = (address: string): boolean => allowed.check(unmapped(address), familyOf(unmapped(address)))
  const isOpen = (address: string): boolean =>
    isNamed(address) || !closed.check(unmapped(address), familyOf(unmapped(address)))

  return {
    /**
     * Why a URL can be no webhook, as a sentence without its subject; `undefined` when it can. What a name resolves to
     * is looked at with each delivery.
     */
    faultOf(text: string): string | undefined {
      const url = URL.canParse(text) ? new URL(text) : undefined
      if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:'))
        return 'must be an http(s) URL'
      if (url.username !== '' || url.password !== '') return 'must not hold a user name or password'
      if (url.hash !== '') return 'must not have a fragment'
      const host = hostOf(url)
      if (isIP(host) !== 0 && !isOpen(host))
        return 'must not be an address of a private network (WEBHOOKS_ALLOWED_NETWORKS)'
      if (url.protocol === 'http:' && (isIP(host) === 0 || !isNamed(host)))
        return 'must begin with https://; plain http is for addresses that WEBHOOKS_ALLOWED_NETWORKS names'
      return undefined
    },

    /**
     * Resolves a name as sockets do, and fails when one of its addresses is closed: what is connected to is what was
     * looked at, so that a name whose address changes in between leads nowhere else.
     */
    lookup: ((hostname, options, callback) => {
      lookup(hostname, { ...options, all: true }, (error, found) => {
        const addresses = (found ?? []) as LookupAddress[]
        const refused = addresses.find(({ address }) => !isOpen(address))
        if (error || refused || addresses[0] === undefined) {
          callback(error ?? new Error('the name leads into a private network'), '', 4)
        } else if (options.all) callback(null, addresses)
        else callback(null, addresses[0].address, addresses[0].family)
      })
    }) as LookupFunction,
  }
}

/** The host of a URL without the brackets of an IPv6 address. */
const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[(.*)\]$/, '$1')

/** An IPv4 address that is written as an IPv6 one is what it is. */
function unmapped(address: string): string {
  const dotted = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (dotted) return dotted
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(address) ?? []
  if (high === undefined || low === undefined) return address
  const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)]
  return [a >> 8, a & 255, b >> 8, b & 255].join('.')
}

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIPv6(address) ? 'ipv6' : 'ipv4')

function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits] = network.split('/')
    if (bits === undefined) list.addAddress(address, familyOf(address))
    else list.addSubnet(address, Number(bits), familyOf(address))
  }
  return list
}
