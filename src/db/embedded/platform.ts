export const isWindows = process.platform === 'win32'
export const isRoot = process.getuid?.() === 0
