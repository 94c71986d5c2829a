import { isWindows } from './platform.ts'

/** The server's settings, as arguments of `postgres`. */
export function settings(port: number, ephemeral: boolean): string[] {
  const values = {
    port,
    listen_addresses: '127.0.0.1',
    // A socket's path may have 107 bytes at most, and DATA_DIR may have more.
    unix_socket_directories: '',
    cluster_name: 'postern',
    shared_buffers: '48MB',
    max_connections: ephemeral ? 200 : 100,
    // Statements here touch few rows; workers for the large ones only cost memory.
    max_parallel_workers_per_gather: 0,
    io_method: 'sync',
    max_logical_replication_workers: 0,
    // Files, because /dev/shm is small in containers and systemd may empty it when a user logs out.
    dynamic_shared_memory_type: isWindows ? 'windows' : 'mmap',
    // Failed statements are the client's to log, and their text holds personal data.
    log_min_messages: 'log',
    log_checkpoints: 'off',
    ...(ephemeral && {
      fsync: 'off',
      synchronous_commit: 'off',
      full_page_writes: 'off',
      wal_level: 'minimal',
      max_wal_senders: 0,
      autovacuum: 'off',
    }),
  }
  return Object.entries(values).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}
