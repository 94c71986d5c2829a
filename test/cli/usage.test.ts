import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { helpOf } from '../../src/cli/command.ts'
import { allCommands } from '../../src/cli/main.ts'
import { matchEach } from '../helpers/matching.ts'
import { aDataDir, runPostern, spawnPostern } from '../helpers/processes.ts'

t.test(
  '--help lists every command, and tells of each usage, options, exit codes and an example',
  async (t) => {
    const { code, stdout, stderr } = await runPostern(t, ['--help'])
    const ofOne = await runPostern(t, ['users', 'create', '--help'])

    t.strictSame([code, stderr], [0, ''])
    t.match(stdout, /Exit codes:/)
    for (const command of await allCommands()) {
      t.match(stdout, `  ${command.path} `)
      const help = helpOf(command)
      t.match(help, new RegExp(`Usage:\n {2}postern ${command.path}`))
      t.match(help, /Options:\n[\s\S]*--help[\s\S]*Exit codes:\n[\s\S]*Examples?:\n {2}.*postern/)
      t.notMatch(help, /.{131}/)
      if (command.path === 'users create') t.match(ofOne, { code: 0, stdout: `${help}\n` })
    }
  },
)

t.test('--version is that of the package', async (t) => {
  const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string
  }

  t.match(await runPostern(t, ['--version']), { code: 0, stdout: `${manifest.version}\n` })
})

t.test('wrong usage is exit code 2, with the usage and before anything is started', async (t) => {
  const dataDir = await aDataDir(t)
  const cases: [args: string[], stderr: RegExp][] = [
    [[], /^Postern: [\s\S]*Usage:/],
    [['sevre'], /^There is no command "sevre": .*\nUsage: postern <command>/],
    [['users'], /^There is no command "users": there are "users create", /],
    [['serve', '--port', '1'], /^Unknown option '--port'\.\nUsage: postern serve\n$/],
    [['backup'], /^"postern backup" takes TARGET, and was given 0\.\nUsage: postern backup TARGET\n$/],
    [['seed', '--force'], /^--force goes with --demo\.\nUsage: postern seed /],
    [
      ['users', 'create', '--name', 'X'],
      /^--email is missing\.\nUsage: postern users create --email EMAIL --name/,
    ],
    [
      ['users', 'create', '--email', 'x@y.example', '--name', 'X', '--password', 'hunter2-hunter2'],
      /^Unknown option '--password'\.\n/,
    ],
    [
      ['users', 'create', '--email', 'x', '--name', 'X', '--generate-password'],
      /^--email must match format "email"/,
    ],
    [
      ['users', 'create', '--email', 'x@y.example', '--name', 'X'],
      /^There is no terminal to ask for the password: /,
    ],
    [['users', 'set-password', 'x', '--generate-password', '--password-stdin'], /^Give --password-stdin or /],
  ]
  for (const [args, pattern] of cases) {
    const { code, stdout, stderr } = await runPostern(t, args, { env: { DATA_DIR: dataDir } })

    t.strictSame([code, stdout], [2, ''], args.join(' '))
    t.match(stderr, pattern)
    t.notMatch(stderr, /hunter2/)
  }
})

t.test('the exit code is that of the process', async (t) => {
  const ends = [['--version'], ['seed', '--force'], ['check', 'a', 'b', 'c']].map(
    async (args) => await spawnPostern(t, args, { env: { DATA_DIR: join(t.testdirName, 'none') } }).ended,
  )

  matchEach(t, await Promise.all(ends), [
    { code: 0, stdout: /^\d/, stderr: '' },
    { code: 2, stdout: '', stderr: /^--force goes with --demo/ },
    { code: 1, stdout: '', stderr: /^There is no database in / },
  ])
})

t.test('faults of the configuration are told as by serve', async (t) => {
  t.match(await runPostern(t, ['seed'], { env: { PORT: 'x', LOG_LEVEL: 'y' } }), {
    code: 1,
    stderr: /^The configuration has faults:\n {2}PORT must .*\n {2}LOG_LEVEL must .*\n$/,
  })
})
