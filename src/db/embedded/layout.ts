import { join } from 'node:path'

/** Where the server of one DATA_DIR keeps its files. */
export type ServerFiles = {
  dataDir: string
  folder: string
  /** The database cluster itself: PGDATA. */
  data: string
  /** The superuser's password. */
  password: string
  log: string
}

/** The folder in DATA_DIR that holds the server's files, unless `POINTER_FILE` names another. */
export const SERVER_FOLDER = 'postgres'
/** Lies in DATA_DIR and holds the path of the server's folder, when that must be elsewhere. */
export const POINTER_FILE = 'postgres.location'
/** Begins the names of the files that `withDataDirLock` keeps in DATA_DIR. */
export const LOCK_FILE = 'start.lock'
/** Lies in DATA_DIR while a restore replaces what is there. */
export const RESTORING_FILE = 'restore-unfinished'
/** Begins the name of the folder in DATA_DIR into which a restore copies first. */
export const STAGING = 'restore.partial-'
/** Begins the names of the folders in DATA_DIR that keep what a restore replaced. */
export const REPLACED = 'replaced-'

/** Where root keeps what the server's user must reach and cannot in its place: such folders, and the programs. */
export const STATE_FOLDER = '/var/lib/postern'

/** The files of a server that lives in `folder`. */
export function filesIn(dataDir: string, folder = join(dataDir, SERVER_FOLDER)): ServerFiles {
  return {
    dataDir,
    folder,
    data: join(folder, 'data'),
    password: join(folder, 'password'),
    log: join(folder, 'server.log'),
  }
}

/** True for what a restore replaces in DATA_DIR. */
export const isReplaceable = (name: string): boolean =>
  !name.startsWith(LOCK_FILE) &&
  !name.startsWith(REPLACED) &&
  name !== RESTORING_FILE &&
  name !== 'lost+found'

/** True for what a backup takes from DATA_DIR besides the database. */
export const isSecret = (name: string): boolean =>
  isReplaceable(name) && !name.startsWith(STAGING) && name !== SERVER_FOLDER && name !== POINTER_FILE
