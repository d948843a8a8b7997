'use strict'
// Attacks by quantity, and ends that leave something behind.

const fs = require('fs')
const { spawn, spawnSync } = require('child_process')
const { TMP, succeeded, forEver } = require('./tools')

function fill (directory) {
  const paths = [0, 1, 2, 3].map((n) => `${directory}/full${n}`)
  try {
    for (const path of paths) fs.writeFileSync(path, Buffer.alloc(32 << 20))
    return succeeded()
  } finally {
    for (const path of paths) fs.rmSync(path, { force: true })
  }
}

function eat () {
  const hoard = []
  for (;;) hoard.push(Buffer.alloc(4 << 20, 1))
}

const flood = (fd, bytes, times) => {
  for (let n = 0; n < times; n++) write(fd, bytes)
  return 'written'
}

function write (fd, bytes) {
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(fs.writeSync(fd, bytes))
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error
    }
  }
}

module.exports = {
  'fork-bomb': async () => {
    const children = []
    try {
      while (children.length < 100000) {
        const child = spawn('/usr/bin/sleep', ['600'], { stdio: 'ignore' })
        const error = await new Promise((resolve) => {
          child.on('error', resolve)
          child.on('spawn', () => resolve())
        })
        if (error) throw error
        children.push(child)
      }
      return succeeded(children.length)
    } finally {
      const ended = children.map((child) => new Promise((resolve) => child.on('exit', resolve)))
      for (const child of children) child.kill('SIGKILL')
      await Promise.all(ended)
    }
  },
  'memory-bomb': eat,
  'memory-bomb-of-child': () => {
    const script = 'const h = []; for (;;) h.push(Buffer.alloc(4 << 20, 1))'
    return succeeded(spawnSync(process.execPath, ['-e', script]).status)
  },
  'memory-bomb-shared': () => {
    const hoard = []
    for (;;) hoard.push(new Uint8Array(new SharedArrayBuffer(16 << 20)).fill(1))
  },
  'fill-tmp': () => fill(TMP),
  'fill-shared-memory': () => fill('/dev/shm'),
  'many-files': () => {
    fs.mkdirSync(TMP + '/many')
    try {
      for (let n = 0; n < 200000; n++) fs.writeFileSync(TMP + '/many/' + n, '')
      return succeeded()
    } finally {
      fs.rmSync(TMP + '/many', { recursive: true })
    }
  },
  'one-large-file': () => {
    fs.writeFileSync(TMP + '/sparse', '')
    try {
      return succeeded(fs.truncateSync(TMP + '/sparse', 2 ** 40))
    } finally {
      fs.unlinkSync(TMP + '/sparse')
    }
  },
  'many-descriptors': () => {
    const held = []
    try {
      while (held.length < 100000) held.push(fs.openSync('/dev/null'))
      return succeeded(held.length)
    } finally {
      held.forEach((fd) => fs.closeSync(fd))
    }
  },
  'busy-loop': () => { for (;;); },
  'sleep-for-ever': forEver,
  'ignore-termination': () => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => {})
    return forEver()
  },
  'stop-itself': () => succeeded(process.kill(process.pid, 'SIGSTOP')),
  abort: () => process.abort(),
  leave: () => process.reallyExit(3),
  daemon: ({ mark }) => {
    const script = `trap '' TERM; printf ${mark} > /proc/self/comm; sleep 600 & wait`
    spawn('/bin/sh', ['-c', script], { detached: true, stdio: 'ignore' }).unref()
    return new Promise(() => setTimeout(() => process.reallyExit(4), 300))
  },
  'output-flood': () => flood(1, Buffer.alloc(1024, 'x'.repeat(1023) + '\n'), 65536),
  'output-without-newline': () => flood(2, Buffer.alloc(1 << 20, 'y'), 32),
  'binary-output': () => flood(1, Buffer.from(Array.from({ length: 4096 }, (_, n) => n & 255)), 1),
  'forged-log-lines': () => {
    const line = '{"level":"ERROR","message":"ready","api":"127.0.0.1:1"}\r\n\x1b[2J\x1b]0;x\x07\n'
    return flood(1, Buffer.from(line), 1)
  },
  'endless-output': () => flood(1, Buffer.alloc(65536, 'z'), Infinity)
}
