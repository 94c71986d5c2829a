#!/usr/bin/env node
import { main } from './cli/main.ts'

const exitCode = await main(process.argv.slice(2))
// After success nothing is left to wait for, but what `serve` has started.
if (exitCode !== 0) process.exit(exitCode)
